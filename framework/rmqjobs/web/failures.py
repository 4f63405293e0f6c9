"""Dead letters, as pages show them: groups that are looked at now and then, and one letter."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rmqjobs.deadletters.groups import Group, groups_of
from rmqjobs.deadletters.review import Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import RmqJobsError
from rmqjobs.masking import masked
from rmqjobs.web.site import Site
from rmqjobs.wire.deadletters import DeadLetter

FRESH = 10.0  # seconds for which a look counts: each one holds the dead letters for a moment


class Failures:
    """The groups of a site, from one look at a time.

    Args:
        site: The site.
        known: Work queues of installed plugins.
    """

    def __init__(self, site: Site, known: Sequence[str]) -> None:
        self._site, self._known = site, known
        self._groups: list[Group] = []
        self._looked = -FRESH
        self._looking = asyncio.Lock()
        self.looked_at: datetime | None = None
        self.problem = ""

    async def groups(self, by: str, *, now: bool = False) -> list[Group]:
        """The groups, the largest first; as they were some seconds ago, unless they must be those of now."""
        async with self._looking:
            if now or time.monotonic() - self._looked > FRESH:
                try:
                    async with self._site.operator(by) as at_work:
                        review = Review(at_work.desk, self._site.settings, by=by)
                        self._groups = await groups_of(review, await review.queues(self._known))
                    self.problem, self.looked_at = "", datetime.now(UTC)
                except RmqJobsError as error:
                    self.problem = str(error)
                self._looked = time.monotonic()
            return self._groups

    async def group(self, key: str, by: str) -> Group | None:
        """One group."""
        return next((group for group in await self.groups(by) if group.key == key), None)

    async def letter(self, job_id: str, by: str) -> DeadLetter | None:
        """One dead letter."""
        async with self._site.operator(by) as at_work:
            review = Review(at_work.desk, self._site.settings, by=by)
            for queue in await review.queues(self._known):
                async for letter in review.letters(queue, Selection(ids=(job_id,), whole=True), limit=1):
                    return letter
        return None

    def forget(self) -> None:
        """Has the next question look anew."""
        self._looked = -FRESH


def payload_of(letter: DeadLetter) -> str:
    """The payload, set out as JSON where it is, secrets hidden; else as text."""
    try:
        return json.dumps(masked(json.loads(letter.body)), indent=2, ensure_ascii=False)
    except ValueError:
        return letter.body.decode(errors="backslashreplace")
