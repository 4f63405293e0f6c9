"""What a plugin author and a producer write, under strict type checking: `mypy` reads it, nobody runs it."""

from datetime import UTC, datetime, timedelta

from rmqjobs import AsyncPublisher, Job, Payload, Plugin, Publisher, Reject, Retry, RetryPolicy, Snooze, hookimpl


class Resize(Payload, type="image.resize"):
    path: str
    width: int = 800


plugin = Plugin("image", retry=RetryPolicy(max_attempts=3, never=(ValueError,)))


@plugin.handler
async def resize(payload: Resize, job: Job) -> dict[str, int]:
    job.progress(1, 2, "half")
    job.checkpoint({"done": payload.width})
    if job.cancelled:
        raise Retry("busy", after=timedelta(seconds=5))
    if payload.width < 0:
        raise Reject("no such width")
    raise Snooze(until=datetime.now(UTC))


@plugin.handler(pool="process", max_runtime=timedelta(hours=1), singleton=True)
def heavy(payload: Resize) -> int:
    return payload.width


class Watch:
    @hookimpl
    def rmqjobs_before_job(self, job: Job) -> None:
        job.log("starts")


same_signature: int = heavy(Resize(path="a"))


def publish() -> str:
    with Publisher("amqp://localhost/") as jobs:
        ids: list[str] = jobs.publish_many([Resize(path="a")], delay=timedelta(hours=1))
        return jobs.publish(Resize(path=ids[0]), priority=3)


async def publish_async() -> str:
    async with AsyncPublisher("amqp://localhost/") as jobs:
        return await jobs.publish(Resize(path="a"), run_at=datetime.now(UTC))
