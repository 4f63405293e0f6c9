"""Payloads as JSON: the handler gets exactly what was published, or publishing is refused. Floor 2: pure.

pydantic writes JSON for people: secrets become asterisks, NaN and Infinity become null, computed fields are added and excluded
ones are left out. The handler would get something other than was published, and nobody would notice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import JsonValue, Secret, SecretBytes, SecretStr
from pydantic_core import from_json, to_json

from rmqjobs.job import Payload, check_numbers

_HIDDEN = b'"**********"'  # how pydantic shows a secret
_SECRETS = (Secret, SecretStr, SecretBytes)
_HUGE = re.compile(rb"\d{300}|[eE]\+?\d{3}")  # the only numbers that Python may read as infinity
_NESTED = frozenset({"model", "dataclass", "typed-dict"})


def write(payload: Payload) -> bytes:
    """The JSON of a payload.

    Raises:
        ValueError: The handler would get something else; the message names the field.
    """
    kind = type(payload)
    if excluded := _excluded(kind):
        raise ValueError(f"{excluded} is declared with exclude=True: the handler would get the default. Remove that")
    body = payload.__pydantic_serializer__.to_json(payload, by_alias=True, round_trip=True, warnings="error")
    if _HIDDEN in body:
        body = _revealed(payload)
    check_numbers(body)
    if b"null" in body and _has_parts(kind):
        _check_parts(payload)
    return body


def write_json(data: JsonValue | bytes) -> bytes:
    """JSON bytes of JSON values, or of bytes that are JSON already.

    Raises:
        ValueError: The data is not JSON, or contains NaN or a number that is read as infinity.
    """
    if isinstance(data, (bytes, bytearray)):
        data = bytes(data)
        body, value = data, from_json(data, allow_inf_nan=False)
    else:
        body, value = to_json(data, inf_nan_mode="constants"), data
        check_numbers(body)
    if _HUGE.search(body) and (place := next(_not_finite(value), None)) is not None:
        raise ValueError(f"{place or 'it'} is a number beyond what Python and most other languages can hold")
    return body


def check_type(kind: type[Payload]) -> None:
    """Raises `ValueError` when payloads of a class could never be published whole; the message names the field."""
    if excluded := _excluded(kind):
        raise ValueError(f"{kind.__qualname__}.{excluded} is declared with exclude=True: a handler would get the default")


@lru_cache(1_000)
def _excluded(kind: type[Payload]) -> str:
    return next(
        (".".join(path) for path, node in _nodes(kind.__pydantic_core_schema__) if node.get("serialization_exclude")), ""
    )


@lru_cache(1_000)
def _has_parts(kind: type[Payload]) -> bool:
    """Whether it contains models with a configuration of their own, which may write NaN as null."""
    nodes = [node for _, node in _nodes(kind.__pydantic_core_schema__) if node.get("type") in _NESTED]
    return len(nodes) > 1


def _nodes(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The nodes of a core schema, with the names of the fields that lead there."""
    if isinstance(schema, dict):
        yield path, schema
        for name, inner in schema.items():
            if name == "fields" and isinstance(inner, dict):
                for field, node in inner.items():
                    yield from _nodes(node, (*path, field))
            elif name != "metadata":
                yield from _nodes(inner, path)
    elif isinstance(schema, (list, tuple)):
        for inner in schema:
            yield from _nodes(inner, path)


def _check_parts(payload: Payload) -> None:
    place = next(_not_finite(payload.model_dump(round_trip=True)), None)
    if place is not None:
        raise ValueError(f"{place} is not a finite number: JSON has no NaN and no Infinity, and it would arrive as null")


def _not_finite(value: object, place: str = "") -> Iterator[str]:
    """The places of floats that are NaN or infinite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for number, inner in enumerate(value):
            yield from _not_finite(inner, f"{place}[{number}]")


def _revealed(payload: Payload) -> bytes:
    """The JSON with its secrets in plain text: the handler they are meant for gets nothing but this JSON."""
    shown = payload.model_dump(mode="json", by_alias=True, round_trip=True)
    held = payload.model_dump(mode="python", by_alias=True, round_trip=True)
    return to_json(_with_secrets(shown, held, ""), inf_nan_mode="constants")


def _with_secrets(shown: Any, held: Any, place: str) -> Any:
    """`shown`, with its asterisks replaced by the secrets in `held`; both have the same shape except for their leaves."""
    if isinstance(held, _SECRETS):
        return held.get_secret_value()
    if isinstance(shown, dict) and isinstance(held, dict) and len(shown) == len(held):
        pairs = zip(shown.items(), held.values(), strict=True)
        return {name: _with_secrets(part, inner, f"{place}.{name}") for (name, part), inner in pairs}
    if isinstance(shown, list) and isinstance(held, (list, tuple, set, frozenset)) and len(shown) == len(held):
        return [_with_secrets(part, inner, f"{place}[]") for part, inner in zip(shown, held, strict=True)]
    if any(isinstance(leaf, _SECRETS) for leaf in _leaves(held)):
        raise ValueError(f"{place.lstrip('.')} holds a secret that its serializer hides: the handler would get asterisks")
    return shown


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
