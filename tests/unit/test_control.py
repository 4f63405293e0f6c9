"""What operators have said, in any order and more than once; and as messages."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.control import CANCEL_KEPT, Standing, Verb, Word
from rmqjobs.topology import Names
from rmqjobs.wire import control as wire

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
NAMES = Names()


def said(verb: str, subject: str, place: int, *, until: datetime | None = None, second: int = 0) -> Word:
    return Word(Verb(verb), subject, NOON + timedelta(seconds=second), "ann", "why", until, place)


def standing(*words: Word) -> Standing:
    found = Standing()
    for word in words:
        found.take(word)
    return found


def test_the_later_word_about_a_queue_counts_and_times_end() -> None:
    assert set(standing(said("pause", "video", 1), said("pause", "mail", 2), said("resume", "mail", 3)).paused(NOON)) == {
        "video"
    }
    assert set(standing(said("resume", "mail", 3), said("pause", "mail", 2)).paused(NOON)) == set()
    ends = standing(said("pause", "video", 1, until=NOON + timedelta(minutes=1)))
    assert ends.pause_of("video", NOON) is not None
    assert ends.pause_of("video", NOON + timedelta(minutes=1)) is None


def test_a_cancel_counts_until_the_job_is_replayed_or_it_is_forgotten() -> None:
    known = standing(said("cancel", "7", 1, until=NOON + timedelta(days=1)))
    assert known.cancel_of("8", NOON) is None
    assert str(known.cancel_of("7", NOON)) == "by ann, because: why"
    assert known.cancel_of("7", NOON, NOON - timedelta(seconds=1)) is not None
    assert known.cancel_of("7", NOON, NOON + timedelta(seconds=1)) is None
    known.take(said("cancel", "7", 2, second=5))  # once more
    assert known.cancel_of("7", NOON, NOON + timedelta(seconds=1)) is not None
    known = standing(said("cancel", "7", 1, until=NOON))
    known.forget(NOON)
    assert not known.cancels


WORDS = st.builds(
    said,
    st.sampled_from(["pause", "resume", "cancel"]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 99),
    second=st.integers(0, 9),
)


@given(st.lists(WORDS, unique_by=lambda word: word.place), st.data())
def test_any_order_and_any_repeats_say_the_same(words: list[Word], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(words + words[:3]))
    one, other = standing(*words), standing(*shuffled)
    assert one.paused(NOON) == other.paused(NOON)
    assert {word.at for word in one.cancels.values()} == {word.at for word in other.cancels.values()}


@given(st.lists(WORDS, unique_by=lambda word: word.place))
def test_what_is_repeated_says_the_same(words: list[Word]) -> None:
    known = standing(*words)
    repeated = standing(
        *(word for message in wire.messages(NAMES, known.words(NOON), start=0) for word in wire.decode(message.body, 500))
    )
    assert repeated.paused(NOON) == known.paused(NOON)
    assert {word.subject: word.at for word in repeated.cancels.values()} == {
        word.subject: word.at for word in known.cancels.values()
    }


def test_many_words_are_several_messages_and_only_the_last_one_moves_the_start() -> None:
    words = [said("cancel", str(number), number) for number in range(wire.AT_ONCE + 1)]
    found = wire.repetition(NAMES, words, start=3, new_start=9)
    assert [wire.start_of(message.headers) for message in found] == [3, 9]
    assert sum(1 for message in found for _ in wire.decode(message.body, 0)) == len(words)
    assert [wire.start_of(message.headers) for message in wire.repetition(NAMES, [], start=3, new_start=9)] == [9]


def test_what_another_program_writes_is_understood_and_nonsense_is_left_out() -> None:
    body = b"""{"verb": "pause", "subject": "video", "at": "2027-01-01T12:00:00Z"}
nonsense
{"verb": "explode", "subject": "video", "at": "2027-01-01T12:00:00Z"}
{"verb": "pause", "subject": "video", "at": "2027-01-01T12:00:00"}
{"verb": "cancel", "subjects": {"7": 1798804800000}}
{"verb": "cancel", "subjects": [7]}
[1]"""
    assert list(wire.decode(body, 4)) == [
        Word(Verb.PAUSE, "video", NOON, place=4),
        Word(Verb.CANCEL, "7", NOON, until=NOON + CANCEL_KEPT, place=4),
    ]
    assert wire.start_of(None) == wire.start_of({"rmqjobs-control-start": "x"}) == 0
