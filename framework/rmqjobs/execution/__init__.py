"""Runs one handler on one job: on the event loop, in a thread, or in a child process. Floor 4: knows no AMQP.

`Run` is one run, `Pools` the three places. A run ends with a result or an exception, and is stopped with an exception. A run
that cannot be stopped is not abandoned: its job stays ours until the run ends, so that it never runs twice at once.
"""

from rmqjobs.execution.limits import keep_limits, run_alone
from rmqjobs.execution.pools import Pools
from rmqjobs.execution.processes import MOST as HELD_BY_A_CHILD
from rmqjobs.execution.processes import Recycle
from rmqjobs.execution.run import Run

__all__ = ["HELD_BY_A_CHILD", "Pools", "Recycle", "Run", "keep_limits", "run_alone"]
