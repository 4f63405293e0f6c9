"""The dashboard with lively jobs: `make dashboard`. It goes on until Ctrl-C.

A private broker (or yours, RMQJOBS_URL), a worker with a small shop's handlers in this process, jobs of every state, and
`rmqjobs web` as anybody would start it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from datetime import timedelta

from rmqjobs import AsyncPublisher, Job, Payload, Plugin, Reject, RetryPolicy, Settings
from rmqjobs.plugins import registry_of
from rmqjobs.testing.broker import free_port, running_broker
from rmqjobs.worker import Worker

PREFIX = "rmqjobs-dashboard"
EVERY = 0.4  # seconds between two jobs
LIMIT = 90_000  # cents
shop = Plugin("shop", retry=RetryPolicy(max_attempts=3, first_delay=timedelta(seconds=2)))
roll = random.Random()  # noqa: S311 - for show


class Invoice(Payload, type="shop.invoice"):
    """Quick, and hardly ever wrong."""

    order: int


class Film(Payload, type="shop.film"):
    """Takes a while, and says how far it is."""

    title: str


class Charge(Payload, type="shop.charge"):
    """Asks a bank that does not always answer."""

    order: int
    cents: int


class Report(Payload, type="shop.report"):
    """Blocks a thread."""

    month: str


@shop.handler
async def invoice(payload: Invoice) -> dict[str, int]:
    """Writes an invoice."""
    await asyncio.sleep(roll.uniform(0.01, 0.3))
    return {"invoice": payload.order + 1_000_000}


@shop.handler
async def film(payload: Film, job: Job) -> str:
    """Renders a film."""
    for second in range(30):
        job.progress(second, 30, f"rendering {payload.title}")
        await asyncio.sleep(1)
    return f"{payload.title}.mp4"


@shop.handler
async def charge(payload: Charge) -> str:
    """Charges a card."""
    await asyncio.sleep(roll.uniform(0.1, 0.6))
    match roll.randrange(10):
        case 0:
            raise TimeoutError(f"bank-{roll.randrange(3)} did not answer within 30 s")
        case 1 if payload.cents > LIMIT:
            raise Reject(f"the limit of the card is below {payload.cents} cents")
        case 2 if payload.order % 5 == 0:
            raise KeyError("iban")
    return "charged"


@shop.handler
def report(payload: Report) -> int:
    """Adds up a month."""
    return sum(range(3_000_000)) % len(payload.month)


async def publish(settings: Settings) -> None:
    """Publishes one job after the other, for ever."""
    async with AsyncPublisher(settings=settings, app_id="web-shop") as jobs:
        number = 1
        while True:
            number += 1
            await jobs.publish(Invoice(order=number))
            if number % 2:
                await jobs.publish(Charge(order=number, cents=roll.randrange(100, 120_000)))
            if number % 15 == 0:
                await jobs.publish(Film(title=roll.choice(("aurora", "harbour", "orchard"))), priority=3)
            if number % 9 == 0:
                await jobs.publish(
                    Report(month=f"2026-{number % 12 + 1:02}"), delay=timedelta(seconds=roll.randrange(20, 4000))
                )
            await asyncio.sleep(EVERY)


async def show(url: str) -> None:
    """Runs everything until Ctrl-C."""
    settings = Settings(url=url, prefix=PREFIX)
    worker, port = Worker(registry_of(shop), settings), free_port()
    await worker.start()
    environ = os.environ | {"RMQJOBS_URL": url, "RMQJOBS_PREFIX": PREFIX}
    command = (sys.executable, "-m", "rmqjobs", "web", "--port", str(port))
    web = await asyncio.create_subprocess_exec(*command, env=environ)
    print(f"\n  Look at http://127.0.0.1:{port}/   (Ctrl-C ends it)\n")
    publishing = asyncio.create_task(publish(settings))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    if web.returncode is None:
        web.terminate()
    await web.wait()
    await worker.drain(timedelta(seconds=1))


if __name__ == "__main__":
    with running_broker(os.environ) as broker:
        asyncio.run(show(broker.url))
