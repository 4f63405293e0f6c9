"""The plugin object, to which handlers and schedules add themselves."""

from __future__ import annotations

from datetime import timedelta

from rmqjobs import Plugin, RetryPolicy

plugin = Plugin("video", retry=RetryPolicy(first_delay=timedelta(seconds=2), max_attempts=5))
