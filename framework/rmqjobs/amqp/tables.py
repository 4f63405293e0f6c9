"""Makes both client libraries read and write every value a header can have.

pika reads a float as an integer and cannot write one; both fail on a timestamp that no calendar has, pika by losing the whole
connection. A message of another program must do neither. Corrected in place, once, where each is used.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pika.data

_pika_decode_value = pika.data.decode_value
_pika_encode_value = pika.data.encode_value
_FLOATS = {b"f": struct.Struct(">f"), b"d": struct.Struct(">d")}
_SECONDS = struct.Struct(">Q")
_DOUBLE = struct.Struct(">cd")


def instant(seconds: int) -> datetime | int:
    """The time, or the bare number when no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return seconds


def _decode_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    kind = encoded[offset : offset + 1]
    if kind in _FLOATS:
        number = _FLOATS[kind]
        return number.unpack_from(encoded, offset + 1)[0], offset + 1 + number.size
    if kind == b"T":
        return instant(_SECONDS.unpack_from(encoded, offset + 1)[0]), offset + 1 + _SECONDS.size
    return _pika_decode_value(encoded, offset)  # type: ignore[no-any-return]


def _encode_value(pieces: list[bytes], value: Any) -> int:
    if isinstance(value, float):
        pieces.append(_DOUBLE.pack(b"d", value))
        return _DOUBLE.size
    return _pika_encode_value(pieces, value)  # type: ignore[no-any-return]


def _header_instant(value: bytes) -> tuple[int, Any]:
    return _SECONDS.size, instant(_SECONDS.unpack_from(value)[0])


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
