"""Where is my job, as its publisher and an operator ask it."""

import json
import secrets

from tests.acceptance.helpers import Stand
from tests.helpers import wait


def test_show_why_and_wait(here: Stand) -> None:
    good = here.cli("publish", "accept.mark", '{"n": 7}').stdout.strip()
    wait(lambda: good in here.cli("events", "--kind", "published").stdout)
    assert "queued" in here.cli("jobs", "show", good).stdout
    assert "has not ended in time" in here.cli("jobs", "wait", good, "--timeout", "1s", code=124).stderr
    here.worker()
    here.cli("jobs", "wait", good)
    bad = here.cli("publish", "accept.mark", '{"n": -1}').stdout.strip()
    ended = here.cli("jobs", "wait", bad, "--timeout", "60s", code=8).stderr
    assert f"{bad} is dead: attempts exhausted: ValueError: negative" in ended

    shown = json.loads(here.cli("jobs", "show", good, "--json").stdout)
    assert (shown["id"], shown["state"], shown["type"], shown["attempts"]) == (good, "done", "accept.mark", 1)
    why = here.cli("jobs", "why", bad).stdout
    assert "attempt 1 failed after" in why
    assert "ValueError: negative; waits " in why
    assert "; given up: attempts exhausted" in why
    here.cli("dlq", "drop", bad, "--yes", "--because", "a test")
    assert "dropped by" in here.cli("jobs", "why", bad).stdout
    assert f"rmqjobs dlq restore {bad}" in here.cli("jobs", "show", bad).stdout


def test_waiting_for_a_job_that_is_published_later(here: Stand) -> None:
    here.worker()
    job_id = f"mine-{secrets.token_hex(4)}"
    waiting = here.start("jobs", "wait", job_id)
    here.cli("publish", "accept.mark", '{"n": 3}', "--job-id", job_id)
    assert waiting.wait(timeout=60) == 0


def test_what_is_not_known_is_said_to_be_so(here: Stand) -> None:
    here.cli("topology", "apply", "--plugin", "accept")
    assert "nothing is known of 'no-such-job'" in here.cli("jobs", "show", "no-such-job", code=5).stderr
    for n in range(2):
        here.cli("publish", "accept.mark", f'{{"n": {n}}}', "--job-id", f"twin-{n}")
    wait(lambda: "twin-1" in here.cli("jobs", "show", "twin-1").stdout)
    assert "is the beginning of 2 jobs" in here.cli("jobs", "show", "twin", code=2).stderr
