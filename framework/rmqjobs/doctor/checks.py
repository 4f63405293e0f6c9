"""What the doctor makes of the facts. Pure: each check is a function from the patient to findings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from rmqjobs.doctor.drift import compare
from rmqjobs.doctor.facts import Facts
from rmqjobs.job import Handler
from rmqjobs.permissions import roles
from rmqjobs.policies import Effect, judge
from rmqjobs.settings import Settings
from rmqjobs.topology import LADDER_LEVELS, Binding, Names, Topology, consumer_arguments, job_type_of_key, milliseconds
from rmqjobs.tracking.processes import of_beat

CONSUMER_TIMEOUTS = (3, 12)
STRICT_PRIORITIES, TWO_PRIORITIES = (4, 3), (4, 0)
OLDEST = (3, 10)
MOST_SKEW = timedelta(seconds=2)
Found = Iterator[tuple["Severity", str, str, str]]


class Severity(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result.

    Args:
        check: A stable name.
        severity: How bad.
        summary: One sentence.
        evidence: What was seen.
        mend: A command, or what to do.
    """

    check: str
    severity: Severity
    summary: str
    evidence: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the facts, and what they should be.

    Args:
        facts: What was seen.
        settings: The settings with which it was seen.
        handlers: Handlers of the plugins.
        topology: What they need.
        options: Command-line options, for the commands in findings.
    """

    facts: Facts
    settings: Settings
    handlers: tuple[Handler, ...]
    topology: Topology
    options: str = ""

    def command(self, words: str) -> str:
        """A command of ours, with the options that say where."""
        return f"rmqjobs {words} {self.options}".rstrip()

    def unseen(self, names: Iterable[str]) -> Found:
        """A note about names that this user may not look at: they are unknown, not in order."""
        if hidden := sorted(set(names) & set(self.facts.unseen)):
            evidence = f"{self.settings.broker.user!r} may not look at {_some(hidden)}"
            yield Severity.NOTE, "not looked at", evidence, "run the doctor as the operator"

    def dead_queues(self) -> dict[str, str]:
        """Dead-letter queues by their work queue."""
        return {queue: self.names.dead_queue(queue) for queue in sorted(self.by_queue())}

    @property
    def names(self) -> Names:
        """Every name."""
        return Names(self.settings.prefix)

    @property
    def vhost(self) -> str:
        """The virtual host, quoted for a command."""
        return shlex.quote(self.settings.broker.vhost)

    def by_queue(self) -> Mapping[str, list[Handler]]:
        """Handlers by their work queue."""
        found: dict[str, list[Handler]] = {}
        for handler in self.handlers:
            found.setdefault(handler.queue, []).append(handler)
        return found


def examine(patient: Patient) -> list[Finding]:
    """All findings, in the order of the checks; a check that finds nothing wrong says so, unless it could not look."""
    findings: list[Finding] = []
    able = CHECKS if patient.facts.management else [check for check in CHECKS if check not in BY_MANAGEMENT]
    for check in able:
        name = check.__name__.replace("_", "-")
        found = [Finding(name, *rest) for rest in check(patient)]
        findings += found or [Finding(name, Severity.OK, (check.__doc__ or "").splitlines()[0])]
    return findings


def version(patient: Patient) -> Found:
    """The broker's version is supported."""
    release, text = patient.facts.release, patient.facts.version
    if release < OLDEST:
        yield Severity.ERROR, f"RabbitMQ {text} is too old", "quorum queues lack a message TTL", "upgrade to 3.10 or newer"
        return
    gives = [
        "32 strict priorities" if release >= STRICT_PRIORITIES else "two priorities" if release >= TWO_PRIORITIES else "",
        "a limit for each consumer" if release >= CONSUMER_TIMEOUTS else "",
        "returns that do not count as crashes" if release >= STRICT_PRIORITIES else "",
    ]
    lacks = "no priorities, no limit for each consumer" if release < CONSUMER_TIMEOUTS else ""
    yield Severity.NOTE, f"RabbitMQ {text}", ", ".join(filter(None, gives)) or lacks, ""


def management(patient: Patient) -> Found:
    """The management API answers."""
    if patient.facts.management is None:
        configured = patient.settings.management_url is not None
        what = "alarms, policies, bindings, permissions and clocks were not looked at"
        mend = "correct management_url" if configured else "set RMQJOBS_MANAGEMENT_URL=http://user:password@host:15672"
        yield Severity.ERROR if configured else Severity.NOTE, what, patient.facts.management_problem, mend


def alarms(patient: Patient) -> Found:
    """No memory or disk alarm is in effect."""
    api = patient.facts.management
    if api is not None and api.alarms:
        yield Severity.ERROR, "an alarm is in effect: nobody can publish", "", "rabbitmq-diagnostics alarms"


def topology(patient: Patient) -> Found:
    """Exchanges, queues and bindings are there."""
    drift, apply = compare(patient.facts, patient.topology), patient.command("topology apply")
    yield from patient.unseen(patient.facts.unseen)
    if drift.missing:
        yield Severity.ERROR, f"exchanges or queues are missing: {len(drift.missing)}", _some(drift.missing), apply
    if drift.bindings and not drift.missing:
        count, lost = len(drift.bindings), _some(map(_route, drift.bindings))
        yield Severity.ERROR, f"bindings are missing, their jobs are unrouted: {count}", lost, apply
    if drift.obsolete:
        evidence = _some(map(_route, drift.obsolete))
        yield Severity.ERROR, "a handler's former queue is still bound: its jobs run twice", evidence, apply
    for name, wrong in drift.different.items():
        effect = "nothing is recorded" if name == patient.names.journal else "nobody can declare it"
        mending = f"drain and delete that queue; {apply} creates it again"
        yield Severity.ERROR, f"queue {name} is not what it should be: {effect}", wrong, mending


def consumers(patient: Patient) -> Found:
    """Every work queue has a consumer."""
    yield from patient.unseen(map(patient.names.queue, patient.by_queue()))
    for queue, handlers in sorted(patient.by_queue().items()):
        found = patient.facts.queues.get(patient.names.queue(queue))
        if found is not None and not found.consumers and queue not in patient.facts.paused:
            severity = Severity.ERROR if found.messages else Severity.WARNING
            evidence = f"jobs waiting in {patient.names.queue(queue)}: {found.messages:,}"
            mend = patient.command("worker" if patient.settings.plugins else f"worker --plugin {handlers[0].plugin}")
            yield severity, f"nobody consumes {queue!r}", evidence, mend


def paused(patient: Patient) -> Found:
    """No queue is paused."""
    for queue, word in sorted(patient.facts.paused.items()):
        found = patient.facts.queues.get(patient.names.queue(queue))
        until = f", until {word.until:%Y-%m-%d %H:%M:%S %Z}" if word.until else ""
        evidence = f"since {word.at:%Y-%m-%d %H:%M:%S %Z} {word}{until}" + (
            f"; jobs waiting: {found.messages:,}" if found else ""
        )
        yield Severity.WARNING, f"queue {queue!r} is paused", evidence, patient.command(f"queues resume {shlex.quote(queue)}")


def streams(patient: Patient) -> Found:
    """The journal and the control stream can be read."""
    for stream, why in patient.facts.deaf.items():
        is_control = stream == patient.names.control
        effect = "workers do not hear operators" if is_control else "nobody can say where a job is"
        yield Severity.ERROR, f"stream {stream} cannot be read: {effect}", why, patient.command("topology apply")


def processes(patient: Patient) -> Found:
    """No worker, scheduler or web server was lost lately, and web servers keep up with the journal."""
    reports = [of_beat(beat, patient.facts.at, patient.settings.beat_interval) for beat in patient.facts.beats.values()]
    lost = [f"{each['worker']}, last seen {each['seen_at'][:19]}" for each in reports if each.get("state") == "lost"]
    if lost:
        mend = "look at their logs; a supervisor should have started them again"
        yield Severity.WARNING, f"processes gave no more signs of life: {len(lost)}", _some(lost), mend
    for each in reports:
        if each.get("state") == "behind":
            evidence = f"{each['worker']}: {each.get('because')}"
            yield Severity.WARNING, "a web server is behind the journal: its lists are old", evidence, "look at its log"


def scheduler(patient: Patient) -> Found:
    """A scheduler is connected, or none was ever needed."""
    yield from patient.unseen([patient.names.scheduler])
    found = patient.facts.queues.get(patient.names.scheduler)
    if found is not None and found.messages and not found.consumers:
        evidence = f"{patient.names.scheduler} holds their state and has no consumer"
        yield Severity.ERROR, "schedules exist and no scheduler runs", evidence, patient.command("scheduler")


def dead_letters(patient: Patient) -> Found:
    """No dead letter waits for review."""
    yield from patient.unseen(patient.dead_queues().values())
    for queue, name in patient.dead_queues().items():
        found = patient.facts.queues.get(name)
        if found is not None and found.messages:
            summary = f"dead letters of {queue!r} wait for review: {found.messages:,}"
            yield Severity.WARNING, summary, f"queue {name}", "rmqjobs dlq list"
        if found is not None and found.consumers and not found.messages:
            yield Severity.NOTE, f"somebody holds the dead letters of {queue!r}", f"queue {name} has a consumer", ""


def unrouted(patient: Patient) -> Found:
    """No job waits for a worker that knows its type."""
    yield from patient.unseen([patient.names.unrouted])
    found = patient.facts.queues.get(patient.names.unrouted)
    if found is not None and found.messages:
        mend = "start a worker with the plugin that handles them; it claims them"
        yield Severity.WARNING, f"jobs of unknown types wait: {found.messages:,}", f"queue {patient.names.unrouted}", mend


def delay_ladder(patient: Patient) -> Found:
    """Nobody consumes from the delay ladder."""
    ladder = [patient.names.delay(level) for level in range(LADDER_LEVELS)]
    yield from patient.unseen(ladder)
    for name in ladder:
        found = patient.facts.queues.get(name)
        if found is not None and found.consumers:
            mend = "stop whoever consumes there; jobs that wait must be left alone"
            yield Severity.ERROR, "delayed jobs are taken early", f"consumers of {name}: {found.consumers}", mend


def orphaned_delays(patient: Patient) -> Found:
    """Every delayed job has a queue to come to."""
    api = patient.facts.management
    if api is None:
        return
    start = f"{patient.names.prefix}.delay."
    own = {patient.names.delay(level) for level in range(LADDER_LEVELS)}
    strange = [name for name in api.queues if name.startswith(start) and name not in own]
    if strange:
        yield Severity.WARNING, "queues look like levels of the delay ladder but are not", _some(strange), ""


def dead_lettering(patient: Patient) -> Found:
    """Dead-lettering by the broker is at least once."""
    api = patient.facts.management
    if api is not None and "stream_queue" in api.disabled_features:
        mend = "rabbitmqctl enable_feature_flag stream_queue"
        yield Severity.ERROR, "at-least-once dead-lettering is not enabled", "feature flag stream_queue is off", mend


def policies(patient: Patient) -> Found:
    """No policy takes jobs away."""
    api = patient.facts.management
    if api is None:
        return
    for harm in judge(api.queues, patient.names, api.operator_policies):
        severity = Severity.WARNING if harm.worst is Effect.REFUSES else Severity.ERROR
        mend = harm.mend(patient.settings.broker.vhost, patient.command("topology apply --shield"))
        yield severity, harm.summary, harm.evidence, mend


def consumer_timeout(patient: Patient) -> Found:
    """Every handler's max_runtime fits into the broker's patience."""
    for queue, handlers in sorted(patient.by_queue().items()):
        longest = max(handlers, key=lambda handler: handler.max_runtime)
        if patient.facts.release < CONSUMER_TIMEOUTS:
            limit = patient.settings.consumer_timeout
            if longest.max_runtime > limit:
                needed = milliseconds(longest.max_runtime + timedelta(minutes=5))
                mend = f"consumer_timeout = {needed} in rabbitmq.conf, and {needed / 1000:g}s in the setting consumer_timeout"
                evidence = f"{longest.job_type} may run {longest.max_runtime}, this RabbitMQ takes jobs back after {limit}"
                yield Severity.ERROR, f"jobs of {queue!r} can outlast the broker's patience", evidence, mend
        else:
            allowed = timedelta(milliseconds=consumer_arguments(handlers)["x-consumer-timeout"])
            yield Severity.OK, f"consumers of {queue!r} ask for {allowed}", f"max_runtime {longest.max_runtime}", ""


def replicas(patient: Patient) -> Found:
    """Every queue has all its replicas."""
    for name, queue in _ours(patient):
        members, online = queue.get("members") or [], queue.get("online") or []
        away = sorted(set(members) - set(online))
        if away:
            lost = len(online) * 2 <= len(members)
            severity = Severity.ERROR if lost else Severity.WARNING
            summary = "a queue has no majority: nothing moves in it" if lost else "a queue lacks a replica"
            yield severity, summary, f"{name}: {_some(away)} not online", "start these nodes"


def clock(patient: Patient) -> Found:
    """This machine's clock agrees with the broker's."""
    api = patient.facts.management
    if api is not None and abs(api.clock_difference) > MOST_SKEW:
        seconds = api.clock_difference.total_seconds()
        how = f"the broker's clock is {abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}"
        yield Severity.WARNING, "clocks differ: expiry and schedules are off by as much", how, "synchronise both with NTP"


def permissions(patient: Patient) -> Found:
    """The user has the permissions of some role."""
    api, user = patient.facts.management, patient.settings.broker.user
    if api is None or api.permissions is None:
        return
    able = {role.name: role.missing(*api.permissions) for role in roles(patient.handlers, patient.settings.prefix)}
    if all(able.values()):
        closest = min(able, key=lambda name: len(able[name]))
        evidence = f"as {closest} it lacks {_some(able[closest])}"
        yield Severity.ERROR, f"user {user!r} cannot take any role", evidence, patient.command("topology permissions")
        return
    yield Severity.OK, f"user {user!r} can be {', '.join(name for name, lacks in able.items() if not lacks)}", "", ""


CHECKS: tuple[Callable[[Patient], Found], ...] = (
    version, management, alarms, topology, streams, consumers, paused, processes, scheduler, dead_letters, unrouted,
    delay_ladder, orphaned_delays, dead_lettering, policies, consumer_timeout, replicas, clock, permissions,
)  # fmt: skip
BY_MANAGEMENT = (alarms, orphaned_delays, dead_lettering, policies, replicas, clock, permissions)


def _ours(patient: Patient) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Our queues as the management API shows them."""
    api = patient.facts.management
    ours = {queue.name for queue in patient.topology.queues} | {patient.names.scheduler}
    return [(name, queue) for name, queue in sorted(api.queues.items()) if name in ours] if api else []


def _route(binding: Binding) -> str:
    return f"{job_type_of_key(binding.key)} from {binding.source} to {binding.destination}"


def _some(names: Iterable[str], most: int = 3) -> str:
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
