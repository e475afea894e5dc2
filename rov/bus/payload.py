"""Encodes and decodes payloads: one msgpack object per message, `[SCHEMA_VERSION, {field: value, …}]`."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from rov.messages import COMMAND_VERSIONS, SCHEMA_VERSION, TOPICS, AnyCommand, Message, Reply, Stop

COMMAND_BYTES = 4096
"""Largest command; a peer that sends more is disconnected."""
TEXT_MAX = 64
"""Longest session or label in a command."""


def _head(version: int) -> bytes:
    """The first bytes of a payload in msgpack: an array of two, the version first."""
    return bytes((0x92, version))


_HEAD = _head(SCHEMA_VERSION)
_COMMAND_HEADS = tuple(map(_head, COMMAND_VERSIONS))
_ENCODE = msgspec.msgpack.Encoder().encode
_TYPES: dict[str, Any] = {name: topic.type for name, topic in TOPICS.items()} | {"commands": AnyCommand}
_DECODE = {name: msgspec.msgpack.Decoder(kind).decode for name, kind in _TYPES.items()}
_DECODE_REPLY = msgspec.msgpack.Decoder(Reply).decode


class Malformed(Exception):
    """A payload that cannot be decoded; the text says why."""


def encode(message: Message) -> bytes:
    """The payload of a message."""
    return _HEAD + _ENCODE(message)


def decode(topic: str, payload: bytes) -> Message:
    """The message in a payload of that topic. Raises Malformed."""
    if topic not in _DECODE:
        raise Malformed(f"there is no topic {topic[:TEXT_MAX]!r}")
    message: Message = _decoded(_DECODE[topic], payload)
    return message


def decode_command(payload: bytes) -> AnyCommand:
    """The command in a payload, with finite numbers and short texts. Raises Malformed."""
    if len(payload) > COMMAND_BYTES:
        raise Malformed(f"larger than {COMMAND_BYTES} bytes")
    try:
        return _checked(_decoded(_DECODE["commands"], payload, _COMMAND_HEADS))
    except Malformed:
        if (stop := _stop(payload)) is not None:
            return stop
        raise


def _checked(command: AnyCommand) -> AnyCommand:
    for name, value in zip(command.__struct_fields__, msgspec.structs.astuple(command), strict=True):
        if isinstance(value, float) and not math.isfinite(value):
            raise Malformed(f"{name} is not finite")
        if isinstance(value, str) and not (0 < len(value) <= TEXT_MAX and value.isprintable()):
            raise Malformed(f"{name} is not 1 to {TEXT_MAX} printable characters")
    return command


def _stop(payload: bytes) -> Stop | None:
    """The stop in a payload of another version, or with other errors: a message that clearly asks to stop the vehicle
    must stop it."""
    try:
        match msgspec.msgpack.decode(payload):
            case [int(), {"verb": "stop", **rest}, *_]:
                t, seq = (value if type(value) is int else -1 for value in (rest.get("t"), rest.get("seq")))
                return Stop(t=t, session="unknown", seq=seq)
    except (ValueError, RecursionError):  # not msgpack at all
        pass
    return None


def decode_reply(payload: bytes) -> Reply:
    """The reply in a payload. Raises Malformed."""
    reply: Reply = _decoded(_DECODE_REPLY, payload)
    return reply


def _decoded(decoder: Any, payload: bytes, heads: tuple[bytes, ...] = (_HEAD,)) -> Any:
    if payload[:2] not in heads:
        raise Malformed(f"not [{SCHEMA_VERSION}, {{…}}] in msgpack")
    try:
        return decoder(memoryview(payload)[2:])
    except (ValueError, RecursionError) as error:  # msgspec's errors and bad UTF-8 are ValueErrors
        raise Malformed(str(error)) from None
