"""The read model by itself: how fast it takes records, and answers about many jobs.

    python -m benchmarks.readmodel [JOBS]

The peer is Python's own JSON reader on the same lines, in the same run: the least that any reader of the journal has to do.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rmqjobs.amqp.streams import StreamMessage
from rmqjobs.events import Event, EventKind
from rmqjobs.readmodel import schema
from rmqjobs.readmodel.filters import parse
from rmqjobs.readmodel.queries import Queries
from rmqjobs.readmodel.writing import Writer
from rmqjobs.wire import events as wire
from rmqjobs.wire.ids import new_job_id

AT_ONCE = 500
FILTERS = (
    "",
    "state:dead",
    "type:bench.3 state:dead",
    "state:dead state:retrying type:bench.1",
    "error:TimeoutError",
    '"no answer"',
)


def main() -> None:
    """Prints the figures."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.sqlite"
        writer = Writer(schema.open_file(path), max_bytes=10**11)
        taking = reading = 0.0
        records = 0
        for messages in _messages(jobs):
            began = time.process_time()
            for message in messages:
                for line in message.body.splitlines():
                    json.loads(line)
            middle = time.process_time()
            records += writer.take(messages)
            reading, taking = reading + middle - began, taking + time.process_time() - middle
        megabytes = path.stat().st_size / 10**6
        print(f"{records:,} records of {jobs:,} jobs: {records / taking:,.0f} a second of CPU, {megabytes:,.0f} MB")
        print(f"{taking / reading:.1f} times the CPU of json.loads on the same lines")
        queries, now = Queries(schema.connect(path, read_only=True)), datetime.now(UTC)
        for text in FILTERS:
            which = parse(text, now)
            began = time.perf_counter()
            page = queries.jobs(which)
            middle = time.perf_counter()
            count = queries.count(which)
            listed, counted = 1000 * (middle - began), 1000 * (time.perf_counter() - middle)
            found = f"page of {len(page.jobs):2} in {listed:6.1f} ms, {count.jobs:9,} counted in {counted:6.1f} ms"
            print(f"{text or 'all':44} {found}")


def _messages(jobs: int) -> Iterator[list[StreamMessage]]:
    roll, start = random.Random(7), datetime.now(UTC) - timedelta(milliseconds=jobs)  # noqa: S311 - the same each time
    for first in range(0, jobs, AT_ONCE):
        published, ended = [], []
        for number in range(first, min(first + AT_ONCE, jobs)):
            at, job_id, job_type = start + timedelta(milliseconds=number), new_job_id(), f"bench.{roll.randrange(20)}"
            published.append(Event(EventKind.PUBLISHED, at, job_id, job_type, data={"app": "shop"}))
            kind = roll.choices((EventKind.SUCCEEDED, EventKind.RETRIED, EventKind.DEAD), (90, 5, 5))[0]
            error = {"error": "demo.TimeoutError: no answer"} if kind is not EventKind.SUCCEEDED else {"result": 42}
            data = {"seconds": 0.02, "in_seconds": 60, **error}
            ended.append(Event(kind, at + timedelta(seconds=1), job_id, job_type, "bench", 1, data))  # type: ignore[arg-type]
        sources = ((published, "rmqjobs-publisher@a:1"), (ended, "rmqjobs-worker@b:1"))
        yield [
            StreamMessage(2 * first + place, b"\n".join(map(wire.encode, part)), who)
            for place, (part, who) in enumerate(sources)
        ]


if __name__ == "__main__":
    main()
