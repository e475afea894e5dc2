"""Random bytes at both doors, the serial port and the command endpoint. By default for seconds; in full with

ROV_FUZZ_BYTES=10000000 ROV_FUZZ_COMMANDS=1000000 python -m pytest -s tests/test_fuzz.py
"""

import math
import os
import random
import time

import numpy as np
from pymavlink.dialects.v20 import common

from rov.bus import Malformed, Operators, decode_command, encode
from rov.link.board import ThrusterLink
from rov.link.mavlink import MS, Packer, Parser
from rov.messages import Arm, Disarm, Heartbeat, Mode, SetMode, SetTarget, Sticks, Stop, TakeOver
from tests.world import CONFIG, TICK, World

BYTES = int(os.environ.get("ROV_FUZZ_BYTES", 300_000))
COMMANDS = int(os.environ.get("ROV_FUZZ_COMMANDS", 20_000))
CHUNK = 2000
LONGEST = 280 - 13
"""Bytes of the longest unsigned MAVLink 2 frame."""


def frames() -> list[bytes]:
    """What a board says, whole."""
    packer = Packer(1, 1)
    messages = [
        common.MAVLink_heartbeat_message(12, 8, 128, 0, 4, 3),
        common.MAVLink_attitude_message(1000, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0),
        common.MAVLink_scaled_pressure2_message(1000, 1500.0, 0.0, 1500),
        common.MAVLink_actuator_control_target_message(10, 0, [0.1] * 8),
        common.MAVLink_battery_status_message(0, 0, 0, 0, [16000] + [0xFFFF] * 9, -1, -1, -1, -1),
        common.MAVLink_named_value_int_message(1000, b"LEAK", 0),
        common.MAVLink_command_ack_message(400, 0),
    ]
    return [packer.pack(message) for message in messages]


def stream(noise: random.Random, whole: list[bytes]) -> bytes:
    """CHUNK bytes, half of them noise, half of them frames of which each has something wrong."""
    if noise.random() < 0.5:
        return noise.randbytes(CHUNK)
    out = bytearray()
    while len(out) < CHUNK:
        frame = bytearray(noise.choice(whole))
        match noise.randrange(4):
            case 0:
                frame[noise.randrange(len(frame))] ^= 1 << noise.randrange(8)
            case 1:
                del frame[noise.randrange(1, len(frame)) :]
            case 2:
                frame[noise.randrange(len(frame))] = noise.randrange(256)
                frame[noise.randrange(len(frame))] = noise.randrange(256)
            case _:
                frame[1] = noise.randrange(256)  # another length
        out += frame
    return bytes(out[:CHUNK])


class Cable:
    """A port from which these bytes come."""

    path, unsent, is_open = "fuzz", b"", True

    def __init__(self) -> None:
        self.coming = b""

    def read(self) -> bytes:
        data, self.coming = self.coming, b""
        return data

    def write(self, data: bytes) -> bool:
        return True

    def discard(self) -> None: ...


def test_the_link_takes_anything() -> None:
    """Never raises, never goes live by itself, keeps nothing that is not finite; and hears again what is whole."""
    noise, whole = random.Random(1), frames()
    parser, cable = Parser(), Cable()
    link = ThrusterLink("fuzz", 115200, 8)
    link.port = cable  # type: ignore[assignment]
    begin, fed, taken, t = time.monotonic(), 0, 0, 10**12
    while fed < BYTES:
        cable.coming = data = stream(noise, whole)
        fed += len(data)
        t += TICK
        taken += len(parser.feed(data))
        assert len(parser.buffer) <= LONGEST
        link.poll(t)
        link.send((1.0,) * 8, True, t)
        assert not link.live and not link.testing
        if link.state is not None:
            numbers = (link.state.roll, link.state.pitch, link.state.yaw, link.state.depth, *link.state.rates)
            assert all(map(math.isfinite, numbers))
    seconds = time.monotonic() - begin
    print(f"\n{fed} bytes twice in {seconds:.1f} s; {taken} frames found, {parser.broken} broken")
    assert parser.skipped > 0.5 * fed and parser.broken > 0
    parser.reset()
    assert len(parser.feed(b"".join(whole))) == len(whole)


def test_what_the_parser_finds_in_damaged_frames_is_what_was_sent() -> None:
    """A frame with one wrong bit is never taken: its checksum finds every single one."""
    noise, whole = random.Random(3), frames()
    parser = Parser()
    for _ in range(max(2000, BYTES // 1000)):
        frame = bytearray(noise.choice(whole))
        frame[noise.randrange(len(frame))] ^= 1 << noise.randrange(8)
        assert parser.feed(bytes(frame)) == []
        parser.reset()


def test_the_command_endpoint_takes_anything() -> None:
    """Decoded, judged and obeyed as `pilotd` does: never raises, and what leaves is finite and within the gain."""
    noise = random.Random(2)
    who = {"t": 10**12, "session": "bob"}
    seeds = [
        encode(kind(seq=10 + i, **who, **more))  # type: ignore[arg-type]
        for i, (kind, more) in enumerate(
            (
                (Sticks, {"surge": 0.5, "yaw": -1.0}),
                (SetMode, {"mode": Mode.HOLD}),
                (SetTarget, {"label": "buoy_red", "size": 0.3}),
                (TakeOver, {"displace": True}),
                (Heartbeat, {}),
                (Arm, {}),
                (Disarm, {}),
                (Stop, {}),
            )
        )
    ]
    world, operators = World(CONFIG), Operators(3.0)
    world.t = 10**12
    begin, understood, obeyed = time.monotonic(), 0, 0
    for i in range(COMMANDS):
        data = bytearray(noise.choice(seeds))
        match i % 4:
            case 0:
                data = bytearray(noise.randbytes(noise.randrange(64)))
            case 1:
                del data[noise.randrange(len(data)) :]
            case _:
                for _ in range(noise.randint(1, 4)):
                    data[noise.randrange(2, len(data))] = noise.randrange(256)
        world.t += MS
        try:
            command = decode_command(bytes(data))
        except Malformed:
            continue
        understood += 1
        assert decode_command(encode(command)) == command
        sent_t, reason = operators.judge(command, world.t)
        assert sent_t <= world.t
        if not reason:
            obeyed += not world.helm.obey(command, sent_t, world.t)
        if understood % 20 == 0:
            list(world.helm.act(operators.operator(world.t), world.t))
            sent = np.array(world.link.sent.pop())
            assert np.isfinite(sent).all() and np.abs(sent).max() <= 0.5
            world.link.sent.clear()
    print(f"\n{COMMANDS} commands in {time.monotonic() - begin:.1f} s; {understood} understood, {obeyed} obeyed")
    assert 0 < obeyed < understood < COMMANDS / 2
