"""RabbitMQ adapters. Floor 5.

All but `streams`, which uses aio-pika, are built on pika's asyncio adapter. Nothing above this floor imports either library.
"""
