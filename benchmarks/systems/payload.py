"""The payload of a job, typed, for systems that have no class of their own for it."""

from __future__ import annotations

from pydantic import BaseModel

from benchmarks.systems import program


class Add(BaseModel):
    """About 200 bytes as JSON."""

    x: int
    y: int = 1
    note: str = program.NOTE
