"""RabbitMQ adapters. Floor 5.

All stand on pika's asyncio adapter but `streams`, whose readers use aio-pika. Nothing above this floor imports either library.
"""
