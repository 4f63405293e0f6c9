"""How long commands and imports take, each in a new interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.runs import PEERS, ROOT

IMPORTS = {
    "import rmqjobs": (sys.executable, "rmqjobs"),
    "from rmqjobs import Plugin, Payload": (sys.executable, "rmqjobs.plugin"),
    "from rmqjobs import Publisher": (sys.executable, "rmqjobs.publisher"),
    "import celery (the app)": (str(PEERS), "celery.app"),
    "import dramatiq, its broker": (str(PEERS), "dramatiq.brokers.rabbitmq"),
    "import faststream.rabbit": (str(PEERS), "faststream.rabbit"),
    "import taskiq_aio_pika": (str(PEERS), "taskiq_aio_pika"),
}
HELP = {"rmqjobs --help": (sys.executable, "rmqjobs")} | {
    f"{name} --help": (str(PEERS), name) for name in ("celery", "dramatiq", "faststream", "taskiq")
}


def seconds_of(rounds: int) -> dict[str, float]:
    """Medians by what was run, interpreter included."""
    commands = {what: [python, "-c", f"import {module}"] for what, (python, module) in IMPORTS.items()}
    commands |= {what: [python, "-m", module, "--help"] for what, (python, module) in HELP.items()}
    taken: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(rounds + 1):  # the first reads the disk
        for what, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            taken[what].append(time.perf_counter() - began)
    return {what: statistics.median(times[1:]) for what, times in taken.items()}
