"""Every finding of the doctor, from facts alone: what is seen, how bad it is, what mends it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rmqjobs import Settings
from rmqjobs.control import Verb, Word
from rmqjobs.doctor.checks import Finding, Patient, Severity, examine
from rmqjobs.doctor.facts import Facts, ManagementFacts, QueueFacts
from rmqjobs.events import Event, EventKind
from rmqjobs.topology import Names, build
from tests.helpers import Stage

NAMES = Names()
HANDLERS = tuple(Stage().registry.handlers.values())
TOPOLOGY = build(HANDLERS)
WORK = [NAMES.queue(queue) for queue in sorted({handler.queue for handler in HANDLERS})]
HEALTHY = {queue.name: QueueFacts(0, 1 if queue.name in WORK else 0) for queue in TOPOLOGY.queues}
API = ManagementFacts(
    alarms=False,
    queues={
        queue.name: {"arguments": dict(queue.arguments), "type": queue.arguments["x-queue-type"]} for queue in TOPOLOGY.queues
    },
    policies=(),
    operator_policies=(),
    bindings=frozenset((each.source, each.destination, each.key) for each in TOPOLOGY.bindings),
    permissions=(".*", ".*", ".*"),
    disabled_features=(),
    clock_difference=timedelta(seconds=0.4),
)
FACTS = Facts("4.3.6", (4, 3), HEALTHY, (), management=API)


def findings(facts: Facts, **settings: Any) -> list[Finding]:
    return examine(Patient(facts, Settings(**settings), HANDLERS, TOPOLOGY))


def wrong(facts: Facts, **settings: Any) -> list[tuple[str, Severity]]:
    return [(each.check, each.severity) for each in findings(facts, **settings) if each.severity in ("warning", "error")]


def with_queue(name: str, messages: int, consumers: int) -> Facts:
    return replace(FACTS, queues={**HEALTHY, name: QueueFacts(messages, consumers)})


def with_api(**changes: Any) -> Facts:
    return replace(FACTS, management=replace(API, **changes))


def with_details(name: str, **details: Any) -> Facts:
    return with_api(queues={**API.queues, name: {**API.queues[name], **details}})


def without(*names: str) -> Facts:
    return replace(FACTS, queues={name: found for name, found in HEALTHY.items() if name not in names})


def test_a_healthy_broker_gives_no_reason_to_act() -> None:
    assert wrong(FACTS) == []
    assert {each.check for each in findings(FACTS)} >= {"alarms", "topology", "consumers", "policies", "clock", "permissions"}


def test_what_could_not_be_looked_at_is_not_called_good() -> None:
    blind = replace(FACTS, management=None, management_problem="management_url is not set")
    checks = {each.check: each for each in findings(blind)}
    assert checks["management"].severity is Severity.NOTE
    assert not {"alarms", "policies", "clock", "permissions", "replicas"} & set(checks)


E, W = Severity.ERROR, Severity.WARNING
CASES: list[tuple[str, Facts, str, Severity, str]] = [
    ("an old broker", replace(FACTS, version="3.9.1", release=(3, 9)), "version", E, "upgrade"),
    ("an alarm", with_api(alarms=True), "alarms", E, "rabbitmq-diagnostics alarms"),
    ("a missing queue", without("rmqjobs.demo"), "topology", E, "topology apply"),
    ("a missing exchange", replace(FACTS, missing_exchanges=("rmqjobs.due",)), "topology", E, "topology apply"),
    ("missing bindings", with_api(bindings=frozenset()), "topology", E, "topology apply"),
    (
        "a former queue that is still bound",
        with_api(bindings=API.bindings | {(each.source, each.destination, each.key) for each in TOPOLOGY.obsolete[:1]}),
        "topology", E, "topology apply",
    ),
    ("no consumer", with_queue("rmqjobs.demo", 0, 0), "consumers", W, "rmqjobs worker --plugin demo"),
    ("no consumer and jobs", with_queue("rmqjobs.demo", 5, 0), "consumers", E, "rmqjobs worker --plugin demo"),
    ("nobody ticks", with_queue("rmqjobs.scheduler", 1, 0), "scheduler", E, "rmqjobs scheduler"),
    ("dead letters", with_queue("rmqjobs.demo.dead", 2, 0), "dead-letters", W, "rmqjobs dlq list"),
    ("unrouted jobs", with_queue("rmqjobs.unrouted", 9, 0), "unrouted", W, "plugin"),
    ("a consumer on the ladder", with_queue("rmqjobs.delay.03", 1, 1), "delay-ladder", E, "stop whoever"),
    ("a strange level", with_api(queues={**API.queues, "rmqjobs.delay.99": {}}), "orphaned-delays", W, ""),
    (
        "a queue with other arguments",
        with_details("rmqjobs.demo", arguments={"x-dead-letter-exchange": "rmqjobs.dead"}),
        "topology", E, "topology apply",
    ),
    ("a feature flag", with_api(disabled_features=("stream_queue",)), "dead-lettering", E, "enable_feature_flag stream_queue"),
    (
        "a harmful policy",
        with_details("rmqjobs.demo", policy="short", effective_policy_definition={"message-ttl": 1000}),
        "policies", E, "rmqjobs topology apply --shield",
    ),
    ("a journal that is no stream", with_details("rmqjobs.journal", type="quorum", arguments={}), "topology", E, "drain"),
    (
        "an operator policy",
        with_details("rmqjobs.demo", operator_policy="ops", effective_policy_definition={"delivery-limit": 3}),
        "policies", E, "clear_operator_policy -p / ops",
    ),
    ("a management API that is not there", replace(FACTS, management=None, management_problem="-"), "management", E, "correct"),
    ("a replica away", with_details("rmqjobs.demo", members=["a", "b", "c"], online=["a", "b"]), "replicas", W, "start"),
    ("no majority", with_details("rmqjobs.demo", members=["a", "b", "c"], online=["a"]), "replicas", E, "start"),
    ("clocks", with_api(clock_difference=timedelta(seconds=-8)), "clock", W, "NTP"),
    ("no permissions", with_api(permissions=("^$", "^x$", "^$")), "permissions", E, "topology permissions"),
    ("empty permissions", with_api(permissions=("", "", "")), "permissions", E, "topology permissions"),
    ("odd permissions", with_api(permissions=("^$", "x(?i)", "^$")), "permissions", E, "topology permissions"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "check", "severity", "mend"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_it_finds(facts: Facts, check: str, severity: Severity, mend: str) -> None:
    settings = {"management_url": "http://h:15672"} if check == "management" else {}
    assert wrong(facts, **settings) == [(check, severity)]
    (finding,) = (each for each in findings(facts, **settings) if each.severity is severity)
    assert mend in finding.mend
    assert finding.summary


def test_an_old_brokers_patience_is_held_against_max_runtime() -> None:
    old = replace(FACTS, version="3.10.8", release=(3, 10))
    assert wrong(old) == []
    impatient = [each for each in findings(old, consumer_timeout="10m") if each.severity is E]
    assert {each.check for each in impatient} == {"consumer-timeout"}
    assert any("consumer_timeout = 1800000 in rabbitmq.conf" in each.mend for each in impatient)


def test_roles_a_user_can_take_are_named() -> None:
    read = with_api(permissions=("^$", r"^rmqjobs\.(jobs|events|delay\.\d\d)$", "^$"))
    assert [each.summary for each in findings(read) if each.check == "permissions"] == ["user 'guest' can be publisher"]


def test_what_a_user_may_not_look_at_is_not_called_good() -> None:
    hidden = ("rmqjobs.demo", "rmqjobs.demo.dead", "rmqjobs.unrouted")
    seen = {name: found for name, found in HEALTHY.items() if name not in hidden}
    checks = {each.check: each for each in findings(replace(FACTS, queues=seen, unseen=hidden))}
    for check in ("consumers", "dead-letters", "unrouted", "topology"):
        assert (checks[check].severity, checks[check].summary) == (Severity.NOTE, "not looked at")
    assert checks["scheduler"].severity is Severity.OK


def test_mending_commands_say_where() -> None:
    patient = Patient(without("rmqjobs.demo"), Settings(), HANDLERS, TOPOLOGY, "--prefix other")
    (finding,) = (each for each in examine(patient) if each.severity is E)
    assert finding.mend == "rmqjobs topology apply --prefix other"


def test_a_paused_queue_is_told_with_who_and_why_and_needs_no_consumer() -> None:
    said = Word(Verb.PAUSE, "demo", datetime(2027, 1, 1, tzinfo=UTC), "ann", "disk full")
    facts = replace(with_queue(NAMES.queue("demo"), 7, 0), paused={"demo": said})
    assert wrong(facts) == [("paused", Severity.WARNING)]
    (found,) = [each for each in findings(facts) if each.check == "paused"]
    assert "by ann, because: disk full; jobs waiting: 7" in found.evidence
    assert found.mend == "rmqjobs queues resume demo"


def test_streams_that_cannot_be_read() -> None:
    facts = replace(FACTS, deaf={NAMES.control: "it does not answer", NAMES.journal: "gone"})
    assert wrong(facts) == [("streams", Severity.ERROR)] * 2
    assert "workers do not hear operators" in findings(facts)[4].summary


def test_lost_processes_and_web_servers_that_are_behind() -> None:
    def beat(kind: str, seconds: float, **data: str) -> Event:
        return Event(EventKind(kind), FACTS.at - timedelta(seconds=seconds), "", "", data=data, source=f"{kind}@a:1")  # type: ignore[arg-type]

    well = {"a": beat("worker", 3, state="ready"), "b": beat("scheduler", 500, state="stopped")}
    assert wrong(replace(FACTS, beats=well)) == []
    ill = {"a": beat("worker", 60, state="ready"), "b": beat("web", 2, state="behind", because="the disk is full")}
    assert wrong(replace(FACTS, beats=ill)) == [("processes", Severity.WARNING)] * 2
    found = [each.evidence for each in findings(replace(FACTS, beats=ill)) if each.check == "processes"]
    assert found[0].startswith("worker@a:1, last seen ")
    assert found[1] == "web@a:1: the disk is full"
