"""What producers use: `AsyncPublisher` on an event loop, `Publisher` in any program. Floor 6: both use the same link.

`publish` returns when RabbitMQ has confirmed the job, or raises within the deadline; there is no third way.
"""

from rmqjobs.publisher.asynchronous import AsyncPublisher
from rmqjobs.publisher.synchronous import Publisher
from rmqjobs.publisher.writing import BatchOptions, PublishOptions

__all__ = ["AsyncPublisher", "BatchOptions", "PublishOptions", "Publisher"]
