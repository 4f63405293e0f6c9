"""RabbitMQ adapters. Floor 5.

`connection`, `publishing`, `consuming` and `declaring` stand on pika's asyncio adapter, the hot path; `control` stands on
aio-pika and serves reviews and journal readers. Nothing above this floor imports either library.
"""
