"""Messages as JSON, as dives store them and `rov listen` prints them.

JSON has no NaN and no infinities, but they matter when a dive is searched for a fault: we write them as protobuf's JSON
does, "NaN", "Infinity" and "-Infinity". Older dives have null in place of the number; that is read as NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from rov.messages import Message

NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ENCODE = msgspec.json.Encoder().encode


def encode(message: Message) -> bytes:
    """The JSON of a message."""
    data = _ENCODE(message)
    return _ENCODE(_named(msgspec.to_builtins(message))) if b"null" in data else data


def decoder(kind: Any) -> Callable[[bytes], Any]:
    """A function that decodes messages of a type, or of a union of tagged types. It raises msgspec.DecodeError and
    UnicodeDecodeError."""
    decode = msgspec.json.Decoder(kind).decode

    def read(data: bytes) -> Any:
        try:
            return decode(data)
        except msgspec.ValidationError:  # valid JSON with a name or null in place of a number
            return msgspec.convert(_restored(_type_info(kind), msgspec.json.decode(data)), kind)

    return read


def _named(value: Any) -> Any:
    """The value with non-finite numbers replaced by their names."""
    match value:
        case float() if not math.isfinite(value):
            return next(name for name, each in NAMES.items() if each == value or each != each and value != value)
        case dict():
            return {key: _named(each) for key, each in value.items()}
        case list() | tuple():
            return [_named(each) for each in value]
    return value


def _restored(info: inspect.Type, value: Any) -> Any:
    """The value with names and null replaced by numbers where the type is a number."""
    match info:
        case inspect.FloatType():
            return math.nan if value is None else _number(value)
        case inspect.UnionType() if isinstance(value, dict):
            structs = [each for each in info.types if isinstance(each, inspect.StructType)]
            fitting = [each for each in structs if each.tag_field is None or value.get(each.tag_field) == each.tag]
            return _restored(fitting[0], value) if fitting else value
        case inspect.UnionType() if any(isinstance(each, inspect.FloatType) for each in info.types):
            return _number(value)  # an optional number: null means "not known"
        case inspect.StructType() if isinstance(value, dict):
            types = {field.encode_name: field.type for field in info.fields}
            return {key: _restored(types[key], each) if key in types else each for key, each in value.items()}
        case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
            return [_restored(info.item_type, each) for each in value]
        case inspect.TupleType() if isinstance(value, list) and len(value) == len(info.item_types):
            return [_restored(kind, each) for kind, each in zip(info.item_types, value, strict=True)]
    return value


def _number(value: Any) -> Any:
    return NAMES.get(value, value) if isinstance(value, str) else value


@cache
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)
