"""Handlers a child process can import."""

import ctypes
import os
import signal
import time
from datetime import timedelta

from rmqjobs.errors import Reject, Retry, Snooze
from rmqjobs.job import Job, Payload


class Do(Payload, type="test.do"):
    what: str
    path: str = ""


class Unpicklable(Exception):
    def __init__(self, a: object, b: object) -> None:
        super().__init__("cannot be pickled")
        self.a, self.b = a, lambda: b


def work(payload: Do, job: Job) -> object:  # noqa: PLR0911, PLR0912 - one branch for each way to end
    match payload.what:
        case "return":
            return {"attempt": job.attempt, "pid": os.getpid()}
        case "gorge":
            return {"pid": os.getpid(), "bytes": len(bytes(400 * 2**20).replace(b"\0", b"x"))}
        case "report":
            job.progress(1, 2, "half")
            job.checkpoint({"page": 4})
            return job.state
        case "raise":
            raise ConnectionRefusedError("nobody there")
        case "unpicklable":
            raise Unpicklable(lambda: 1, 2)
        case "odd":
            return lambda: 1
        case "retry":
            raise Retry("later", after=timedelta(seconds=9))
        case "reject":
            raise Reject("no")
        case "snooze":
            raise Snooze(for_=timedelta(seconds=3))
        case "sleep":
            job.log("asleep")
            time.sleep(30)
        case "nap":
            job.log("asleep")
            time.sleep(1)
            return "rested"
        case "spin":
            while not job.cancelled:
                time.sleep(0.001)
            return "cancelled"
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(30)
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "sys.exit":
            raise SystemExit(4)
        case "fork":
            if os.fork() == 0:
                return "the copy came back"
            return "the original"
        case "grandchild":
            os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", f"sleep 2; touch {payload.path}")
            os._exit(5)
    return None


async def work_async(payload: Do, job: Job) -> object:
    return work(payload, job)
