"""For tests and demos: a real RabbitMQ at hand (`broker`), and a handler run without one (`run_job`). Floor 7."""

from rmqjobs.testing.broker import RunningBroker, running_broker
from rmqjobs.testing.run import run_job

__all__ = ["RunningBroker", "run_job", "running_broker"]
