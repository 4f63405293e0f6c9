"""Which dead letters an operator means."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rmqjobs.deadletters.selection import Selection
from rmqjobs.wire import deadletters
from tests.unit.wire.test_deadletters import dead
from tests.unit.wire.test_jobs import NOW

LETTER = replace(deadletters.read(dead(), "mail"), id="0192-abc", fingerprint="f00d", error_message="user 7 is gone")
LATER = NOW + timedelta(hours=2)


@pytest.mark.parametrize(
    ("selection", "meant"),
    [
        (Selection(), True),
        (Selection(ids=("0192",)), True),
        (Selection(ids=("0193", "0192-abc")), True),
        (Selection(ids=("192",)), False),
        (Selection(types=("mail.send", "other")), True),
        (Selection(types=("other",)), False),
        (Selection(error="GONE"), True),
        (Selection(error="valueerror"), True),
        (Selection(error="KeyError"), False),
        (Selection(reason="Attempts exhausted"), True),
        (Selection(reason="attempts"), False),
        (Selection(fingerprint="f00d"), True),
        (Selection(fingerprint="beef"), False),
        (Selection(older_than=timedelta(hours=1)), True),
        (Selection(older_than=timedelta(hours=3)), False),
        (Selection(newer_than=timedelta(hours=3)), True),
        (Selection(newer_than=timedelta(hours=1)), False),
        (Selection(types=("mail.send",), error="gone", older_than=timedelta(hours=1)), True),
        (Selection(types=("mail.send",), error="here"), False),
    ],
)
def test_matches(selection: Selection, meant: bool) -> None:
    assert selection.matches(LETTER, LATER) is meant


def test_an_unknown_age_is_neither_old_nor_new() -> None:
    ageless = replace(LETTER, failed_at=None)
    assert not Selection(older_than=timedelta(0)).matches(ageless, LATER)
    assert not Selection(newer_than=timedelta(days=99)).matches(ageless, LATER)
    assert Selection().matches(ageless, LATER)


def test_a_selection_describes_itself() -> None:
    assert Selection().describe() == "all of them"
    assert Selection(ids=("7",), error="x").describe() == "id 7, error containing 'x'"


def test_an_id_that_begins_another_one_means_itself() -> None:
    found = [replace(LETTER, id=each) for each in ("order-1", "order-10", "mine-7")]
    selection = Selection(ids=("order-1", "mine"))
    assert selection.ambiguous(found) == []
    meant = selection.of(found)
    assert [letter.id for letter in found if meant.matches(letter, LATER)] == ["order-1", "mine-7"]
    assert Selection(ids=("order",)).ambiguous(found) == ["order"]
    assert Selection(types=("mail.send",)).of(found) == Selection(types=("mail.send",))
