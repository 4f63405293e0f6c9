"""A schedule's fields: what is taken, and what is said about the rest."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from rmqjobs import Payload, Plugin
from rmqjobs.errors import ScheduleError
from rmqjobs.schedule import Misfire, schedule_of, short


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cron": "0 0 32 2 *"}, ["0 0 32 2 *", "out of range"]),
        ({"cron": "0 3 * *"}, ["4 fields, not 5", "minute hour day"]),
        ({"cron": "0 0 3 * * *"}, ["6 fields, not 5", "seconds first, seconds last, or a year", 'every = "10s"']),
        ({"cron": "61 3 * * *"}, ["61", "out of range"]),
        ({"cron": "R 3 * * *"}, ["Use H"]),
        ({"cron": "0 0 1-5W * *"}, ["'1-5W' in the day of month", "15W"]),
        ({"cron": "0 0 * * L"}, ["'L' in the day of week", "5L"]),
        ({"cron": "0 0 * * 5#6"}, ["'5#6' in the day of week", "third Friday"]),
        ({"cron": "TZ=Mars/Olympus 0 3 * * *"}, ["Mars/Olympus", "not an IANA time zone"]),
        ({"cron": "TZ=Asia/Tokyo 0 3 * * *", "tz": "Europe/Berlin"}, ["'Europe/Berlin' is given", "says 'Asia/Tokyo'"]),
        ({"cron": "@every 1h", "every": "2h"}, ["every = '2h' is given", "says '1h'"]),
        ({"cron": "@every soon"}, ["every", "'soon'"]),
        ({"cron": "0 3 * * FUN"}, ["0 3 * * FUN"]),
        ({"cron": "0 3 * * $(x)"}, ["day of week '$(x)'"]),
        ({"cron": "@reboot"}, ["@daily"]),
        ({"cron": "1," * 5000 + "1 * * * *"}, ["10,009 characters", "256"]),
        ({"cron": "0 3 * * *", "tz": "Europe/Berln"}, ["Europe/Berln", "did you mean 'Europe/Berlin'"]),
        ({"cron": "0 3 * * *", "tz": "../etc/passwd"}, ["not an IANA time zone"]),
        ({}, ["exactly one of cron, every and at", "none"]),
        ({"cron": "0 3 * * *", "every": "1h"}, ["cron and every"]),
        ({"every": "0.5s"}, ["every", "0.5s"]),
        ({"every": "-3s"}, ["-3s"]),
        ({"every": "10s", "jitter": "10s"}, ["jitter of 10s", "10s"]),
        ({"every": "1h", "start": "2027-02-01", "end": "2027-01-01"}, ["is not before its end"]),
        ({"every": "1h", "misfire": "sometimes"}, ["misfire", "'skip', 'once' or 'all'"]),
        ({"every": "1h", "expires": "0s"}, ["expires"]),
        ({"every": "1h", "ping": "ftp://user:secret@host"}, ["ping = ***", "http"]),
        ({"every": "1h", "ping": "http://[abc/x"}, ["ping = ***", "http"]),
        ({"every": "1h", "ping": "http://user:secret@host/x"}, ["ping = ***", "secret path"]),
        ({"every": "1h", "ping": "http://host:port/x"}, ["ping = ***", "http"]),
        ({"every": "1h", "expires": "9999999d"}, ["expires", "3660d"]),
        ({"every": "1h", "expected_by": "9999999d"}, ["expected_by", "3660d"]),
        ({"cron": "0 3 * * *", "jitter": "900000d"}, ["jitter", "3660d"]),
        ({"every": "800000d"}, ["every", "3660d"]),
        ({"every": "1h", "misfire_grace": "0s"}, ["misfire_grace"]),
        ({"every": "1h", "start": "0001-01-01T00:00:00+14:00"}, ["start", "1971"]),
        ({"at": "9999-12-31T23:59:59-14:00"}, ["at", "8999"]),
        ({"every": "1h", "jiter": "1s"}, ["jiter", "did you mean 'jitter'"]),
        ({"every": "1h", "type": "Not A Type"}, ["type", "Not A Type"]),
        ({"every": "1h", "payload": [1]}, ["payload"]),
        ({"every": "1h", "name": "Ärger"}, ["name", "Ärger"]),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_place(fields: dict[str, object], said: list[str]) -> None:
    with pytest.raises(ScheduleError) as raised:
        schedule_of({"name": "x", "type": "demo.note", **fields}, where="rmqjobs.toml, line 7")
    assert "rmqjobs.toml, line 7" in str(raised.value)
    assert [text for text in said if text not in str(raised.value)] == []
    assert "user:secret" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_naive_instants_are_in_the_schedules_zone() -> None:
    schedule = schedule_of({"name": "x", "type": "demo.note", "at": "2027-07-01T09:00:00", "tz": "Europe/Berlin"})
    assert schedule.at == datetime(2027, 7, 1, 9, tzinfo=ZoneInfo("Europe/Berlin"))


def test_a_schedule_survives_its_json() -> None:
    fields = {
        "name": "x",
        "type": "demo.note",
        "every": "90s",
        "start": "2027-01-01T00:00:00",
        "tz": "Asia/Tokyo",
        "ping": "http://h/1",
    }
    schedule = schedule_of({**fields, "payload": {"text": "a"}, "misfire": "all", "expected_by": "2h"})
    assert schedule_of(schedule.model_dump(mode="json", exclude_defaults=True)) == schedule


def test_its_mark_survives_json_and_names_zones_by_their_instants() -> None:
    for fields in ({"at": "2027-01-01T09:00:00", "tz": "Asia/Tokyo"}, {"every": "5s", "start": "2027-01-01T09:00:00"}):
        schedule = schedule_of({"name": "x", "type": "demo.note", **fields})
        assert schedule_of(schedule.model_dump(mode="json", exclude_defaults=True)).timing == schedule.timing
    other = schedule_of({"name": "x", "type": "demo.note", "every": "6s", "start": "2027-01-01T09:00:00"})
    assert other.timing != schedule.timing


def test_a_plugin_names_its_schedules_and_the_line() -> None:
    class Clean(Payload, type="demo.clean"):
        older: timedelta

    plugin = Plugin("demo")
    schedule = plugin.schedule("nightly", cron="0 3 * * *", payload=Clean(older=timedelta(days=7)), misfire="skip")
    assert (schedule.name, schedule.type, schedule.payload) == ("demo.nightly", "demo.clean", {"older": "P7D"})
    assert schedule.misfire is Misfire.SKIP
    assert "test_schedule.py, line" in schedule.where
    assert plugin.rmqjobs_schedules() == (schedule,)
    with pytest.raises(ScheduleError, match=r"test_schedule.py, line \d+"):
        plugin.schedule("broken", cron="0 0 32 2 *", payload=Clean(older=timedelta(days=7)))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("@every 1h30m", {"every": "1h30m"}),
        ("TZ=Europe/Berlin 0 3 * * *", {"cron": "0 3 * * *", "tz": "Europe/Berlin"}),
        ("CRON_TZ=Asia/Tokyo @daily", {"cron": "@daily", "tz": "Asia/Tokyo"}),
    ],
)
def test_what_other_systems_write_in_front_is_said_in_our_fields(text: str, same: dict[str, str]) -> None:
    fields = {"name": "x", "type": "demo.note"}
    assert schedule_of({**fields, "cron": text}) == schedule_of({**fields, **same})
    assert schedule_of({**fields, "cron": text, "tz": "UTC"}) == schedule_of({**fields, **same})


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (2.5, "2.5s"), (90, "1m30s"), (86400 * 1.5, "1d12h"), (60, "1m")])
def test_durations_as_people_write_them(seconds: float, text: str) -> None:
    assert short(timedelta(seconds=seconds)) == text
