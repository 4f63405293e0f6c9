"""Answers what became of a job, from the journal alone: no process of ours has to run for that. Floor 7, a service."""

from rmqjobs.tracking.reading import Life, find, watch
from rmqjobs.tracking.story import Moment, outlook, story

__all__ = ["Life", "Moment", "find", "outlook", "story", "watch"]
