"""Cron expressions: five fields, read once, then followed in wall-clock time. Floor 1.

`reading` takes a text apart, `days` knows which days match, `words` says an expression in English. Times of day are a product
of two short lists. What a wall-clock time means in a time zone is the business of `timetable`.
"""

from __future__ import annotations

from rmqjobs.cron.reading import Expression, Prefixed, read, unprefixed
from rmqjobs.cron.words import in_words

__all__ = ["Expression", "Prefixed", "in_words", "read", "unprefixed"]
