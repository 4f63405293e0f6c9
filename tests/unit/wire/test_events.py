"""Journal batches: what goes in comes out, and what is not understood harms nothing."""

from datetime import UTC, datetime

from rmqjobs.events import Event, EventKind
from rmqjobs.topology import Names
from rmqjobs.wire import events

AT = datetime(2026, 1, 1, 12, 0, 0, 123000, tzinfo=UTC)


def test_a_batch_comes_back_as_it_was() -> None:
    batch = [
        Event(EventKind.SUCCEEDED, AT, "1", "mail.send", "mail", 2, {"seconds": 0.5}, "w@h:1"),
        Event(EventKind.LOST, AT, "", "", data={"records": 3}, source="w@h:1"),
    ]
    message = events.batch(Names(), map(events.encode, batch), source="w@h:1")
    assert (message.exchange, message.routing_key) == ("rmqjobs.events", "w@h:1")
    assert list(events.decode(message.body)) == batch


def test_lines_of_a_newer_version_are_left_out() -> None:
    known = events.encode(Event(EventKind.DEAD, AT, "1", "mail.send"))
    strange = b'not json\n{"kind":"teleported","at":"2026-01-01T00:00:00+00:00","job":"1","type":"x"}\n{"kind":"dead"}\n[]\n'
    assert [event.kind for event in events.decode(strange + known)] == [EventKind.DEAD]


def test_what_json_cannot_say_becomes_text() -> None:
    event = Event(EventKind.LOG, AT, "1", "mail.send", data={"odd": object()})  # type: ignore[dict-item]
    (back,) = events.decode(events.encode(event))
    assert "object" in str(back.data["odd"])


def test_half_characters_are_written_out() -> None:
    """Nobody behind the journal has to know of them: neither a terminal nor a database can take one."""
    event = Event(EventKind.LOG, AT, "1", "mail.send", data={"message": "half \udcff", "files": [{"caf\udce9": "\udce9"}]})
    whole = {"message": "half \\udcff", "files": [{"caf\\udce9": "\\udce9"}]}
    assert [found.data for found in events.decode(events.encode(event))] == [whole]
    former = b'{"kind": "log", "at": "2026-01-01T00:00:00Z", "job": "1", "type": "t", "data": {"message": "half \\uDCFF"}}'
    assert [found.data for found in events.decode(former)] == [{"message": "half \\udcff"}], "written by another version"


class Broken:
    def __repr__(self) -> str:
        raise KeyError("no words")


def test_no_record_harms_its_job() -> None:
    endless: dict[str, object] = {}
    endless["itself"] = endless
    for odd in (endless, {"thing": Broken()}):
        (back,) = events.decode(events.encode(Event(EventKind.LOG, AT, "1", "mail.send", data=odd)))  # type: ignore[arg-type]
        assert back.kind is EventKind.LOG
