"""An operator's day with queues, jobs and workers, on the command line and over HTTP."""

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

from rmqjobs import Publisher
from rmqjobs.operations.queues import HELD
from tests.acceptance.helpers import Mark, Stand
from tests.helpers import depth, wait

QUEUE, PROCESS_QUEUE = "accept", "accept.process"


def jobs_of(here: Stand, *words: str) -> dict[str, str]:
    """State of each job that is listed, by its id."""
    listed = json.loads(here.cli("jobs", "list", *words, "--json", "-n", "1000").stdout)
    return {job["id"]: job["state"] for job in listed["jobs"]}


def test_a_queue_is_paused_while_no_worker_runs(here: Stand) -> None:
    here.cli("topology", "apply", "--plugin", "accept")
    assert f"paused {QUEUE}" in here.cli("queues", "pause", QUEUE, "--because", "the disk is full").stderr
    here.cli("publish", "accept.mark", '{"n": 1}')
    here.worker()
    time.sleep(1)
    assert here.marks == []
    listed = here.cli("queues", "list").stdout
    assert "because: the disk is full" in next(line for line in listed.splitlines() if line.startswith(f"{QUEUE} "))
    (state,) = [each for each in json.loads(here.cli("queues", "list", "--json").stdout) if each["queue"] == QUEUE]
    assert (state["ready"], state["paused"]["because"]) == (1, "the disk is full")
    assert "is paused" in here.cli("doctor", "--plugin", "accept").stdout
    here.cli("queues", "resume", QUEUE)
    wait(lambda: here.marks == [1])
    assert "is not paused" in here.cli("queues", "resume", QUEUE).stderr
    assert "there is no queue 'acept'. Known: accept" in here.cli("queues", "pause", "acept", code=5).stderr


def test_jobs_that_wait_are_delayed_or_run_are_cancelled(here: Stand) -> None:
    here.cli("topology", "apply", "--plugin", "accept")
    waits = here.cli("publish", "accept.mark", '{"n": 1}').stdout.strip()
    later = here.cli("publish", "accept.mark", '{"n": 2}', "--delay", "1h").stdout.strip()
    wait(lambda: len(jobs_of(here)) == 2)
    assert "was queued, and is cancelled" in here.cli("jobs", "cancel", waits[:25], "--because", "a test").stderr
    assert f"{later} was delayed, and is cancelled" in here.cli("jobs", "cancel", later).stderr
    worker = here.worker()
    here.cli("publish", "accept.mark", '{"n": 3}')
    wait(lambda: here.marks == [3])
    runs = here.cli("publish", "accept.heavy", '{"n": 4, "seconds": 600}').stdout.strip()
    wait(lambda: any("pid" in line for line in here.effects))
    stacks = here.cli("workers", "stacks").stdout
    assert "rmqjobs_accept.py" in stacks
    assert "in heavy" in stacks
    assert f"{runs} was running, and is cancelled" in here.cli("jobs", "cancel", runs).stderr
    wait(lambda: Counter(jobs_of(here).values()) == {"cancelled": 3, "done": 1})
    assert here.marks == [3]
    told = here.cli("jobs", "why", waits).stdout
    assert "because: a test" in told
    assert "did not run on rmqjobs-worker@" in told
    assert f"{runs} is cancelled: it is not cancelled" in here.cli("jobs", "cancel", runs, code=1).stderr
    many = here.cli("jobs", "cancel", "-", "--yes", stdin=f"not-seen-1\nnot-seen-2\n{runs}\n", code=3).stderr
    assert "not-seen-1 is not seen yet: it is cancelled if it comes" in many
    assert "neither an option nor an id" in here.cli("jobs", "cancel", "--yse", runs, code=2).stderr
    assert worker.poll() is None


def test_workers_are_listed_drained_and_stopped(here: Stand) -> None:
    here.cli("topology", "apply", "--plugin", "accept")
    assert "no worker answers" in here.cli("workers", "ping", "--timeout", "500ms", code=6).stderr
    worker = here.worker()
    (listed,) = json.loads(here.cli("workers", "list", "--json").stdout)
    name = listed["worker"]
    assert (listed["state"], listed["running"]) == ("ready", 0)
    assert name in here.cli("workers", "ping").stdout
    assert "takes no more jobs" in here.cli("workers", "drain", name, "--because", "an update").stderr
    here.cli("publish", "accept.mark", '{"n": 1}')
    time.sleep(1)
    assert here.marks == []
    assert "draining" in here.cli("workers", "list").stdout
    assert "takes jobs again" in here.cli("workers", "resume", name).stderr
    wait(lambda: here.marks == [1])
    assert "add --yes" in here.cli("workers", "stop", name, code=2).stderr
    here.cli("workers", "stop", name, "--yes")
    assert worker.wait(timeout=60) == 0
    wait(lambda: [each["state"] for each in json.loads(here.cli("workers", "list", "--json").stdout)] == ["stopped"])


def test_a_job_whose_worker_was_killed_is_not_just_called_running(here: Stand) -> None:
    worker = here.worker()
    job_id = here.cli("publish", "accept.mark", '{"n": 1, "seconds": 600}').stdout.strip()
    wait(lambda: jobs_of(here, "state:running") == {job_id: "running"})
    assert "it has run for" in here.cli("jobs", "why", job_id).stdout
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait(lambda: "lost" in here.cli("workers", "list").stdout)
    assert "has given no sign of life since" in here.cli("jobs", "why", job_id).stdout
    assert "has given no sign of life since" in here.cli("jobs", "show", job_id).stdout


def test_a_queue_is_drained_moved_and_purged(here: Stand) -> None:
    here.worker()
    here.cli("publish", "accept.mark", '{"n": 1, "seconds": 3}')
    wait(lambda: "running" in json.loads(here.cli("workers", "list", "--json").stdout)[0])
    drained = here.cli("queues", "drain", QUEUE, "--timeout", "60s").stderr
    assert "is paused, and 0 of its jobs run" in drained
    for number in range(6):
        here.cli("publish", "accept.mark", f'{{"n": {number + 10}}}')
    moved = here.cli("queues", "move", QUEUE, "--to", PROCESS_QUEUE, "-y", "--limit", "2").stderr
    assert "moved 2" in moved
    assert "add --confirm accept" in here.cli("queues", "purge", QUEUE, code=2).stderr
    assert "another name: nothing was done" in here.cli("queues", "purge", QUEUE, "--confirm", "x", code=2).stderr
    assert "purged 4" in here.cli("queues", "purge", QUEUE, "--confirm", QUEUE, "--because", "a test").stderr
    wait(lambda: sorted(here.marks) == [1, 10, 11])
    here.cli("dlq", "restore", "--reason", "purged", "--yes")
    here.cli("dlq", "replay", "--reason", "purged", "--yes")
    here.cli("queues", "resume", QUEUE)
    wait(lambda: sorted(here.marks) == [1, *range(10, 16)])


def test_a_purge_that_is_killed_half_way_loses_nothing(here: Stand) -> None:
    here.cli("topology", "apply", "--plugin", "accept")
    with Publisher(settings=here.settings) as jobs:
        jobs.publish_many(Mark(n=number) for number in range(3_000))
    purging = here.start("queues", "purge", QUEUE, "--confirm", QUEUE)
    wait(lambda: asyncio.run(depth(here.settings, "dropped")) > 300)
    purging.send_signal(signal.SIGKILL)
    purging.wait()
    wait(lambda: asyncio.run(depth(here.settings, QUEUE)) > 0)
    left = wait(lambda: _settled(here))
    assert 3_000 <= sum(left) <= 3_000 + HELD, "each is in one place, or in both"
    assert left[0] < 2_900
    here.cli("queues", "purge", QUEUE, "--confirm", QUEUE)
    assert asyncio.run(depth(here.settings, QUEUE)) == 0


def _settled(here: Stand) -> tuple[int, int] | None:
    """Jobs in the queue and dropped ones, once no more come back from the one that was killed."""
    counts = []
    for _ in range(2):
        counts.append((asyncio.run(depth(here.settings, QUEUE)), asyncio.run(depth(here.settings, "dropped"))))
        time.sleep(1)
    return counts[0] if counts[0] == counts[1] and sum(counts[0]) >= 3_000 else None


def test_the_web_server_says_where_it_is_and_stops(here: Stand) -> None:
    here.worker()
    wrong = here.cli("web", "--host", "0.0.0.0", "--port", "0", code=2).stderr
    assert "is open to others, and no token is set" in wrong
    secret = "short-secret"
    told = here.cli("web", code=2, RMQJOBS_WEB_TOKEN=secret).stderr
    assert "RMQJOBS_WEB_TOKEN" in told
    assert secret not in told
    server = here.start("web", "--port", "0", "--model", str(here.folder / "model.sqlite"))
    url = wait(lambda: next((json.loads(line)["url"] for line in here.log_of(server).splitlines() if '"url"' in line), None))
    root = url.rstrip("/")
    wait(lambda: _status(f"{root}/readyz") == 200)
    with urllib.request.urlopen(f"{root}/api/events", timeout=30) as stream:
        job_id = here.cli("publish", "accept.mark", '{"n": 5}').stdout.strip()
        heard: list[Any] = []
        while not any(record["job"] == job_id and record["kind"] == "succeeded" for record in heard):
            line = stream.readline().decode()
            heard += json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else []
        wait(lambda: _state(f"{root}/api/jobs/{job_id}") == "done")
        server.send_signal(signal.SIGTERM)  # although somebody listens
        assert server.wait(timeout=30) == 0


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def _state(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(json.load(answer)["state"])
    except urllib.error.HTTPError as error:
        error.close()
        return ""


def test_show_needs_no_server_and_a_filter_that_is_wrong_is_named(here: Stand) -> None:
    here.worker()
    job_id = here.cli("publish", "accept.mark", '{"n": 5}').stdout.strip()
    wait(lambda: jobs_of(here, "state:done", "type:accept.mark") == {job_id: "done"})
    assert "state done" in " ".join(here.cli("jobs", "show", job_id).stdout.split())
    assert "Did you mean state:?" in here.cli("jobs", "list", "stat:dead", code=2).stderr
    assert "--watch needs a terminal" in here.cli("jobs", "list", "--watch", code=2).stderr
    assert "0 jobs, searched since" in here.cli("jobs", "list", "state:dead").stderr
