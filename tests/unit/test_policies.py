"""What a policy does to which queue, judged from what the management API tells of it."""

import re
from typing import Any

import pytest

from rmqjobs.policies import Effect, Harm, Role, hidden, judge, role_of, shield
from rmqjobs.topology import Names, build, scheduling
from tests.helpers import Stage

NAMES = Names()
TOPOLOGY = build(Stage().registry.handlers.values()) + scheduling()
QUEUES: dict[str, dict[str, Any]] = {queue.name: {"arguments": dict(queue.arguments)} for queue in TOPOLOGY.queues}
WORK = sum(role_of(name, facts, NAMES) is Role.WORK for name, facts in QUEUES.items())


def under(definition: dict[str, Any], *, names: tuple[str, ...] = (), **facts: Any) -> list[Harm]:
    """The queues under a policy that reaches those of these names, or all of them."""
    reached = {"policy": "all", "effective_policy_definition": definition, **facts}
    return judge({name: {**queue, **(reached if not names or name in names else {})} for name, queue in QUEUES.items()}, NAMES)


def test_every_queue_of_ours_has_a_role() -> None:
    roles = {name: role_of(name, facts, NAMES) for name, facts in QUEUES.items()}
    assert None not in roles.values()
    assert (roles["rmqjobs.demo"], roles["rmqjobs.demo.dead"]) == (Role.WORK, Role.DEAD)
    assert (roles["rmqjobs.journal"], roles["rmqjobs.delay.27"]) == (Role.JOURNAL, Role.LADDER)
    assert role_of("rmqjobs2.demo", {}, NAMES) is None
    assert role_of("rmqjobs.claim.x", {}, NAMES) is None


@pytest.mark.parametrize(
    ("definition", "effects"),
    [
        ({"max-length": 20, "overflow": "drop-head"}, {Effect.LOSES, Effect.BURIES, Effect.HURRIES}),
        ({"max-length-bytes": 20_000, "overflow": "drop-head"}, {Effect.LOSES, Effect.BURIES, Effect.HURRIES}),
        ({"max-length": 20, "overflow": "reject-publish"}, {Effect.REFUSES}),
        ({"max-length": 20}, {Effect.LOSES, Effect.REFUSES}),  # a dead-letter queue drops by itself
        ({"overflow": "drop-head"}, {Effect.LOSES}),
        ({"overflow": "reject-publish"}, set()),
        ({"message-ttl": 60_000}, {Effect.LOSES, Effect.BURIES, Effect.HURRIES}),
        ({"message-ttl": 0}, {Effect.LOSES, Effect.BURIES, Effect.HURRIES}),
        ({"expires": 1000}, {Effect.LOSES}),
        ({"delivery-limit": 3}, {Effect.LOSES, Effect.BURIES}),
        ({"delivery-limit": -1}, set()),
        ({"delivery-limit": 2_000_000_001}, set()),
        ({"dead-letter-exchange": "elsewhere", "dead-letter-strategy": "at-most-once"}, set()),  # our arguments win
        ({"queue-leader-locator": "balanced", "target-group-size": 3, "max-age": "1h"}, set()),
    ],
)
def test_a_policy_is_judged_by_what_it_does(definition: dict[str, Any], effects: set[Effect]) -> None:
    assert {effect for harm in under(definition) for effect in harm.effects} == effects


def test_one_policy_is_one_finding_with_its_queues_counted() -> None:
    (harm,) = under({"max-length": 20, "overflow": "drop-head"})
    assert harm.worst is Effect.LOSES
    says = "policy 'all' loses confirmed jobs, turns jobs that never ran into dead letters and releases delayed jobs early"
    assert harm.summary == says
    most = f"{WORK} work queues, 28 levels of the delay ladder, {WORK} dead-letter queues, unrouted jobs, dropped dead letters"
    rest = "the scheduler's state and the control stream"
    assert harm.evidence == f"max-length = 20 with overflow = drop-head on {most}, {rest}"
    assert harm.mend("/") == "rmqjobs topology apply --shield"


def test_a_time_to_live_beyond_the_queues_own_changes_nothing() -> None:
    assert under({"message-ttl": 5_000}, names=("rmqjobs.delay.02",)) == []  # 4 seconds of its own
    assert [harm.worst for harm in under({"message-ttl": 5_000}, names=("rmqjobs.delay.03",))] == [Effect.HURRIES]


def test_the_journal_may_be_shortened() -> None:
    assert under({"max-length-bytes": 1000, "max-age": "1D"}, names=("rmqjobs.journal",)) == []


def test_an_operator_policy_is_told_apart() -> None:
    facts = {"policy": "mild", "operator_policy": "ops", "effective_policy_definition": {"delivery-limit": 3, "max-length": 9}}
    queues = {"rmqjobs.demo": {**QUEUES["rmqjobs.demo"], **facts}}
    harms = judge(queues, NAMES, [{"name": "ops", "definition": {"delivery-limit": 3}}])
    assert [(harm.policy, harm.by_operator, harm.worst) for harm in harms] == [
        ("ops", True, Effect.BURIES),
        ("mild", False, Effect.REFUSES),
    ]
    assert harms[0].mend("my vhost") == "rabbitmqctl clear_operator_policy -p 'my vhost' ops"
    alone = {"rmqjobs.demo": {**QUEUES["rmqjobs.demo"], **facts, "policy": None}}
    assert all(harm.by_operator for harm in judge(alone, NAMES))  # who may not see their definitions can still tell


def test_the_shield_is_above_all_others_and_of_its_prefix_alone() -> None:
    others = [{"name": "a", "priority": 7_000}, {"name": "shop.eu-shield", "priority": 9_000_000}, {"name": "b"}]
    shielding = shield("shop.eu", others)
    assert (shielding.name, shielding.priority) == ("shop.eu-shield", 7_001)
    assert re.search(shielding.pattern, "shop.eu.video")
    assert not re.search(shielding.pattern, "shopXeu.video")
    assert not re.search(shielding.pattern, "my.shop.eu.video")
    assert "'^shop\\.eu\\.'" in shielding.command("/")
    assert under(dict(shielding.policy["definition"])) == []


def test_what_a_shield_hides_is_counted() -> None:
    queues = {name: {**facts, "policy": "all"} for name, facts in QUEUES.items()} | {"other": {"policy": "all"}}
    queues["rmqjobs.demo"]["policy"] = "rmqjobs-shield"
    assert hidden(queues, NAMES)["all"][Role.WORK] == WORK - 1
    assert set(hidden(queues, NAMES)) == {"all"}
