"""Messages in dives: whatever the numbers are, they come back; and old dives are read as they were meant."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from rov import json_messages
from rov.dives.dive import TYPES, Dive, DiveWriter
from rov.messages import ConsumedInput, Event, Mode, Setpoint, Sticks, ThrusterCommand, VehicleState
from rov.offline.diff import numbers_differ
from tests.test_pilot import CONFIG, CURVE, Pilot

NUMBERS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.1, -0.0, 1e308, 5e-324])


def made(info: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value of a type, its numbers whatever they like."""
    match info:
        case inspect.FloatType():
            return NUMBERS
        case inspect.IntType():
            return st.integers(-(2**62), 2**62)
        case inspect.StrType():
            return st.sampled_from(["", "NaN", "Infinity", "null", "fish"])
        case inspect.BytesType():
            return st.binary(max_size=8)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.UnionType():
            return st.one_of(*map(made, info.types))
        case inspect.TupleType():
            return st.tuples(*map(made, info.item_types))
        case inspect.VarTupleType():
            return st.lists(made(info.item_type), max_size=3).map(tuple)
        case inspect.StructType():
            return st.builds(info.cls, **{field.name: made(field.type) for field in info.fields})
    raise AssertionError(info)


@pytest.mark.parametrize("topic", TYPES)
def test_every_number_of_every_topic_comes_back(topic: str) -> None:
    read = json_messages.decoder(TYPES[topic])

    @settings(max_examples=25)
    @given(made(inspect.type_info(TYPES[topic])))
    def comes_back(message: Any) -> None:
        data = json_messages.encode(message)
        json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert repr(read(data)) == repr(message)  # NaN is not equal to itself

    comes_back()


def test_what_is_finite_is_as_it_always_was() -> None:
    """Byte for byte: dives of before and after are compared by their hashes."""
    state = VehicleState(t=1, depth=1.5, battery_v=None)
    assert json_messages.encode(state) == msgspec.json.encode(state)
    assert b'"surge":"NaN","sway":"Infinity","heave":"-Infinity"' in json_messages.encode(
        Sticks(t=1, session="a", seq=1, surge=math.nan, sway=math.inf, heave=-math.inf)
    )


def test_old_dives_have_null_where_a_number_must_be() -> None:
    old = b'{"t":1,"frame_id":2,"frame_t":3,"source":"steer","surge":null,"sway":0.25}'
    setpoint = json_messages.decoder(Setpoint)(old)
    assert math.isnan(setpoint.surge) and (setpoint.sway, setpoint.heave) == (0.25, 0.0), "and absent is the default"
    heard = json_messages.decoder(ConsumedInput)(
        b'{"t":1,"by":"pilotd","what":"setpoint","mode":null,"setpoint":' + old + b"}"
    )
    assert math.isnan(heard.setpoint.surge) and heard.mode is None
    state = json_messages.decoder(VehicleState)(
        b'{"t":1,"depth":null,"battery_v":null,"rates":[0,null,1],"depth_t":null}'
    )
    assert math.isnan(state.depth) and math.isnan(state.rates[1]) and state.battery_v is None and state.depth_t is None
    command = b'{"t":1,"frame_id":2,"frame_t":3,"armed":true,"mode":"hold","values":[null,0.5]}'
    values = json_messages.decoder(ThrusterCommand)(command).values
    assert math.isnan(values[0]) and values[1] == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"t":null,"frame_id":2,"frame_t":3,"source":"steer"}',
        b'{"t":1,"frame_id":2,"frame_t":3,"source":"steer","surge":"fast"}',
        b'{"t":1,"frame_id":2,"frame_t":3,"source":null}',
        b'{"t":"NaN","frame_id":2,"frame_t":3,"source":"steer"}',
        b"[]",
        b"null",
        b'{"t":1',
    ],
)
def test_what_is_wrong_otherwise_is_still_wrong(wrong: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        json_messages.decoder(Setpoint)(wrong)


def test_the_evidence_is_in_the_dive_and_the_pilot_says_the_same_of_it(tmp_path: Path) -> None:
    bad = Setpoint(t=20, frame_id=2, frame_t=10, source="steer", surge=math.nan, heave=-math.inf)
    heard = ConsumedInput(t=20, by="pilotd", what="setpoint", asked_t=20, setpoint=bad)
    with DiveWriter(tmp_path / "a.mcap", {}) as writer:
        writer.write("setpoint", bad)
        writer.write("inputs", heard)
        writer.write("events", Event(t=21, level="info", source="x", code="NaN", text="NaN"))
    with Dive(tmp_path / "a.mcap") as dive:
        found = {record.topic: record.data for record in dive.messages()}
        assert not dive.dropped
    again = found["setpoint"]
    assert isinstance(again, Setpoint) and math.isnan(again.surge) and again.heave == -math.inf
    assert numbers_differ(again, bad) == (0.0, ""), "the same as it was"
    assert numbers_differ(again, msgspec.structs.replace(bad, surge=0.5))[1].startswith("surge")
    assert numbers_differ(again, msgspec.structs.replace(bad, heave=math.inf))[1].startswith("heave")
    said = []
    for message in (heard, found["inputs"]):
        assert isinstance(message, ConsumedInput)
        pilot = Pilot(CONFIG, CURVE)
        pilot.mode = Mode.FOLLOW
        pilot.apply(message)
        said.append(pilot.setpoint_faults)
    assert said[0] == said[1] == {"steer": "setpoint_bad"}
