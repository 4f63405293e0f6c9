"""Answers what became of a job, from the journal alone: no process of ours has to run for that. Floor 6, on the journal.

`story` tells it in words, for people; it is imported from its own module.
"""

from rmqjobs.tracking.handle import AsyncTrackedJob, TrackedJob
from rmqjobs.tracking.reading import Life, changes, find, find_all, until_ended

__all__ = ["AsyncTrackedJob", "Life", "TrackedJob", "changes", "find", "find_all", "until_ended"]
