"""Makes both client libraries read and write every value a header can have.

pika reads a float as an integer, cannot write one, and forgets whether bytes were text in another encoding. Both libraries lose
the whole connection over a timestamp that no calendar has, and pamqp over text that is not UTF-8. No message of another program
may do any of this. Each library is corrected in place, once, where it is used.
"""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from typing import Any

import pika.data

_pika_decode_value = pika.data.decode_value
_pika_encode_value = pika.data.encode_value
_FLOATS = {b"f": struct.Struct(">f"), b"d": struct.Struct(">d")}
_SECONDS = struct.Struct(">Q")
_LENGTH = struct.Struct(">cI")
_TABLE_LENGTH = struct.Struct(">I")
_STRING = b"S"
_DOUBLE = struct.Struct(">cd")


def instant(seconds: int) -> datetime | int:
    """The time, or the bare number when no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return seconds


class ForeignText(bytes):
    """Text that is not UTF-8; it is written again as it came."""

    __slots__ = ()


def _decode_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    kind = encoded[offset : offset + 1]
    if kind in _FLOATS:
        number = _FLOATS[kind]
        return number.unpack_from(encoded, offset + 1)[0], offset + 1 + number.size
    if kind == b"T":
        return instant(_SECONDS.unpack_from(encoded, offset + 1)[0]), offset + 1 + _SECONDS.size
    value, end = _pika_decode_value(encoded, offset)
    return (ForeignText(value), end) if kind == _STRING and isinstance(value, bytes) else (value, end)


def _encode_value(pieces: list[bytes], value: Any) -> int:
    if isinstance(value, ForeignText):
        pieces += (_LENGTH.pack(_STRING, len(value)), value)
        return _LENGTH.size + len(value)
    if isinstance(value, float):
        if not math.isfinite(value):  # RabbitMQ answers these by closing the whole connection
            raise ValueError(f"{value} is not a number that AMQP can carry")
        pieces.append(_DOUBLE.pack(b"d", value))
        return _DOUBLE.size
    return _pika_encode_value(pieces, value)  # type: ignore[no-any-return]


def _header_instant(value: bytes) -> tuple[int, Any]:
    return _SECONDS.size, instant(_SECONDS.unpack_from(value)[0])


def _short_text(value: bytes) -> tuple[int, str]:
    length = value[0]
    return length + 1, value[1 : length + 1].decode(errors="backslashreplace")


def _table(value: bytes) -> tuple[int, dict[str, Any]]:
    import pamqp.decode  # noqa: PLC0415 - as in `correct_pamqp`

    (length,) = _TABLE_LENGTH.unpack_from(value)
    place, end, found = _TABLE_LENGTH.size, _TABLE_LENGTH.size + length, {}
    while place < end:
        used, name = _short_text(value[place:])
        place += used
        used, found[name] = pamqp.decode.embedded_value(value[place:])
        place += used
    return end, found


def _property_instant(value: bytes) -> tuple[int, datetime | None]:
    at = instant(_SECONDS.unpack_from(value)[0])
    return _SECONDS.size, at if isinstance(at, datetime) else None


def correct_pika() -> None:
    """Puts the corrections of pika in place."""
    pika.data.decode_value = _decode_value
    pika.data.encode_value = _encode_value


def correct_pamqp() -> None:
    """Puts the corrections of aio-pika's decoder in place."""
    import pamqp.decode  # noqa: PLC0415 - the hot path does without aio-pika

    pamqp.decode.TABLE_MAPPING[b"T"] = _header_instant
    pamqp.decode.METHODS["timestamp"] = _property_instant
    pamqp.decode.METHODS["shortstr"] = _short_text
    pamqp.decode.METHODS["table"] = pamqp.decode.TABLE_MAPPING[b"F"] = _table
