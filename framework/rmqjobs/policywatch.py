"""Checks now and then what policies do to our queues, and warns before anybody misses a job. Floor 6, below the services.

It asks the management API, if there is one; AMQP knows nothing of policies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rmqjobs.amqp.connection import Connection
from rmqjobs.errors import RmqJobsError
from rmqjobs.settings import Settings
from rmqjobs.topology import Names

if TYPE_CHECKING:
    from rmqjobs.policies import Harm

log = logging.getLogger("rmqjobs.policies")

LOOK_EVERY = 300.0
LOOK_AGAIN = 10.0  # after a change, and after the start: it takes RabbitMQ a while to say which policy a queue has
_NOT_YET = 1.0  # seconds until the next try while there is no connection


class PolicyWatch:
    """What policies do, as last seen.

    Args:
        settings: The broker, and the prefix of our queues.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._names = settings, Names(settings.prefix)
        self._harms: tuple[Harm, ...] = ()
        self._complained = False

    @property
    def loss(self) -> str:
        """Which policies make confirmed jobs vanish, in a sentence; empty when none does."""
        return "; ".join(harm.summary for harm in self._harms if harm.loses)

    def collect(self) -> Iterable[Any]:
        """The metric families."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - only where somebody scrapes

        from rmqjobs.policies import Effect  # noqa: PLC0415 - as in `look`

        text = "Policies that make queues lose, bury, hurry or refuse jobs"
        family = GaugeMetricFamily("rmqjobs_harmful_policies", text, labels=["effect"])
        for effect in Effect:
            family.add_metric([effect.value], sum(effect in harm.effects for harm in self._harms))
        yield family

    async def run(self, connection: Callable[[], Connection | None]) -> None:
        """Looks at start and every five minutes, sooner while things change, until cancelled."""
        before: tuple[Harm, ...] | None = None
        while True:
            current = connection()
            if current is None or current.closed.done():
                await asyncio.sleep(_NOT_YET)
                continue
            await self.look(current)
            await asyncio.sleep(LOOK_EVERY if self._harms == before else LOOK_AGAIN)
            before = self._harms

    async def look(self, connection: Connection) -> None:
        """Looks once. If it cannot see the policies, the last findings stay."""
        # An HTTP client takes long to import; here, the first job does not wait for it.
        from rmqjobs import policies  # noqa: PLC0415
        from rmqjobs.amqp import management  # noqa: PLC0415

        vhost = self._settings.broker.vhost
        try:
            api = await management.find(self._settings, connection)
            if api is None:
                return
            queues, by_operators = await api.queues(vhost), await api.operator_policies(vhost)
        except RmqJobsError as error:
            level = logging.DEBUG if self._complained or self._settings.management_url is None else logging.WARNING
            log.log(level, "cannot look at policies", extra={"because": str(error)})
            self._complained = True
            return
        self._complained = False
        self._tell(tuple(policies.judge(queues, self._names, by_operators)))

    def _tell(self, harms: tuple[Harm, ...]) -> None:
        """Logs what is new; what has been logged is not logged again."""
        known = {harm.summary: harm.evidence for harm in self._harms}
        for harm in harms:
            if known.get(harm.summary) != harm.evidence:
                mend = harm.mend(self._settings.broker.vhost)
                level = logging.ERROR if harm.loses else logging.WARNING
                log.log(level, harm.summary, extra={"because": harm.evidence, "mend": mend})
        if self._harms and not harms:
            log.info("no policy harms jobs any more")
        self._harms = harms
