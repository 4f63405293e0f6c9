"""The worker: the one message path. Floor 6.

`path.JobPath.handle` takes one job from delivery to settlement; read it first. `settlement` publishes what a verdict asks for
and acknowledges, `chronicle` writes to the journal and the log, `service.Worker` starts, keeps and drains it all, `case` is one
delivery on its way.
"""

from rmqjobs.worker.service import Worker

__all__ = ["Worker"]
