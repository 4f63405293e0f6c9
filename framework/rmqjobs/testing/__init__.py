"""For tests and demos: a real RabbitMQ (`broker`); without one, a run (`run_job`) and a moved clock (`jobs_of`). Floor 7."""

from rmqjobs.testing.broker import RunningBroker, running_broker
from rmqjobs.testing.clock import jobs_of
from rmqjobs.testing.run import run_job

__all__ = ["RunningBroker", "jobs_of", "run_job", "running_broker"]
