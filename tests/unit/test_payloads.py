"""A handler gets what was published, or publishing is refused."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, Json, JsonValue, Secret, SecretBytes, SecretStr, computed_field

from rmqjobs import payloads
from rmqjobs.errors import MalformedMessage
from rmqjobs.job import Handler, Payload, Pool


class Login(BaseModel):
    user: str
    password: SecretStr


class Secrets(Payload, type="test.secrets"):
    token: SecretStr
    key: SecretBytes = SecretBytes(b"k")
    pin: Secret[int] = Secret(7)
    logins: list[Login] = Field(default_factory=list)
    by_name: dict[str, SecretStr | None] = Field(default_factory=dict)
    starred: str = "**********"


class Derived(Payload, type="test.derived", extra="forbid"):
    numbers: Json[list[int]]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return sum(self.numbers)


class Part(BaseModel):
    at: float | None = None
    more: Any = None


class Loose(Payload, type="test.loose"):
    anything: dict[str, Any] = Field(default_factory=dict)
    part: Part = Part()


class Colour(Enum):
    RED = "red"


class Plain(Payload, type="test.plain"):
    text: str
    number: float
    at: datetime
    span: timedelta
    amount: Decimal
    colour: Colour
    uuid: UUID
    many: tuple[int, ...] = ()
    maybe: str | None = None


def arrived(payload: Payload) -> Payload:
    return Handler(print, type(payload), Pool.ASYNC, "test").validate(payloads.write(payload))


def test_secrets_arrive_in_clear() -> None:
    sent = Secrets(
        token=SecretStr("s3cr3t"),
        key=SecretBytes(b"bytes"),
        pin=Secret(1234),
        logins=[Login(user="ada", password=SecretStr("pw"))],
        by_name={"a": SecretStr("x"), "b": None},
    )
    got = arrived(sent)
    assert got == sent
    assert isinstance(got, Secrets)
    assert got.logins[0].password.get_secret_value() == "pw"
    assert b"s3cr3t" in payloads.write(sent)


def test_what_is_derived_stays_here() -> None:
    sent = Derived(numbers="[1, 2]")  # type: ignore[arg-type] # as Json is given
    assert arrived(sent) == sent
    assert b"total" not in payloads.write(sent)


@given(
    st.builds(
        Plain,
        text=st.text(st.characters(codec="utf-8")),
        number=st.floats(allow_nan=False, allow_infinity=False),
        at=st.datetimes(timezones=st.just(UTC)),
        span=st.timedeltas(),
        amount=st.decimals(allow_nan=False, allow_infinity=False, places=3),
        colour=st.sampled_from(Colour),
        uuid=st.uuids(),
        many=st.lists(st.integers()).map(tuple),
        maybe=st.none() | st.text(st.characters(codec="utf-8")),
    )
)
def test_whatever_is_published_arrives(sent: Plain) -> None:
    assert arrived(sent) == sent


@pytest.mark.parametrize(
    "payload",
    [
        Loose(anything={"n": float("nan")}),
        Loose(anything={"deep": [{"n": float("-inf")}]}),
        Loose(part=Part(at=float("nan"))),
        Loose(part=Part(more={"x": [float("inf")]})),
    ],
)
def test_what_is_no_number_is_refused(payload: Payload) -> None:
    with pytest.raises(ValueError, match="NaN"):
        payloads.write(payload)


def test_the_words_nan_and_infinity_are_texts_like_any_other() -> None:
    sent = Loose(anything={"NaN": "Infinity", "n": None})
    assert arrived(sent) == sent


def test_an_excluded_field_is_refused() -> None:
    class Inner(BaseModel):
        note: str = Field("default", exclude=True)

    class Hiding(Payload, type="test.hiding"):
        inner: list[Inner] = Field(default_factory=list)

    with pytest.raises(ValueError, match=r"inner\.note is declared with exclude=True"):
        payloads.write(Hiding(inner=[Inner(note="mine")]))
    with pytest.raises(ValueError, match=r"Hiding\.inner\.note"):
        payloads.check_type(Hiding)


def test_a_value_of_another_type_is_refused() -> None:
    class Count(Payload, type="test.count"):
        n: int

    with pytest.raises(ValueError, match="Expected `int`"):
        payloads.write(Count(n=1).model_copy(update={"n": "many"}))


@pytest.mark.parametrize(
    "data",
    [{"n": float("nan")}, [float("inf")], b'{"n": NaN}', b"[-Infinity]", b'{"n": 1e400}', b"{", b"\xff", {"x": object()}],
)
def test_what_is_no_json_is_refused(data: JsonValue | bytes) -> None:
    with pytest.raises(ValueError, match=r"NaN|no number|a number beyond|EOF|expected|control|serialize|invalid"):
        payloads.write_json(data)


@pytest.mark.parametrize("data", [b'{"n": 1e300}', b'{"NaN": "Infinity"}', b'{"id": ' + b"9" * 400 + b"}", b'"1e400"'])
def test_bytes_that_are_json_pass_as_they_are(data: bytes) -> None:
    assert payloads.write_json(data) == data


@pytest.mark.parametrize("body", [b'{"anything": {"n": NaN}}', b'{"anything": {"n": -Infinity}}'])
def test_a_received_body_with_what_is_no_number_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage, match="JSON has no NaN"):
        Handler(print, Loose, Pool.ASYNC, "test").validate(body)
