"""The policy from frame to frame: its cards, its memory, its messages, and when it lets go."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tomli_w
import torch

from rov import toml
from rov.config.schema import Config, SteeringConfig
from rov.messages import (
    ConsumedInput,
    Detection,
    Frame,
    Mode,
    PilotStatus,
    PolicyInput,
    Setpoint,
    Track,
    Tracks,
    VehicleState,
)  # fmt: skip
from rov.perception import Perception, PerceptionOutput
from rov.steering.disengagement import Checkup
from rov.steering.policy import TYPICAL_HEIGHT_M, goal_of, pose_at, target_height, track_rows
from rov.steering.policy_card import load_cards, rate_doubt, refusals
from rov.steering.policy_input import FEATURES, KEY_S
from rov.steering.policy_model import PolicyModel
from rov.types import Image
from rov.vision.model_card import ModelError
from tests.policies import with_policy, write_policy
from tests.world import CONFIG

S = 1_000_000_000
AGE_NS = 60_000_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def model(files: tuple[Path, Path]) -> PolicyModel:
    torch.set_num_threads(1)
    return PolicyModel(*files)


class Rover:
    """Perception on frames of a bottom that drifts by."""

    def __init__(self, model: PolicyModel, every_s: float = 0.1, **task: object):
        self.every = round(every_s * S)
        self.config: Config = with_policy(CONFIG, (Path("p"), Path("e")), **task)
        self.perception = Perception(self.config, model)
        self.t = 100 * S
        self.number = 0
        random = np.random.default_rng(1)
        self.bottom = random.integers(0, 255, (60, 400), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        self.random = np.random.default_rng(2)
        self.vehicle: VehicleState | None = VehicleState(t=0, battery_v=15.2, yaw=0.5, rates=(0.0, 0.0, 0.1))

    def picture(self) -> Image:
        grey = self.bottom[:, self.number % 200 : self.number % 200 + 320]
        noisy = grey + self.random.normal(0, 2, grey.shape)
        return np.repeat(noisy.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2)

    def see(self, image: Image | None = None, found: tuple[Detection, ...] = ()) -> PerceptionOutput:
        self.t, self.number = self.t + self.every, self.number + 1
        if self.vehicle is not None:
            state = msgspec.structs.replace(
                self.vehicle, t=self.t, attitude_t=self.t - AGE_NS, depth_t=self.t - AGE_NS, depth=3.0
            )
            self.perception.receive_state(state)
        frame = Frame(t=self.t, frame_id=self.number, frame_t=self.t - AGE_NS, width=320, height=240)
        return self.perception.step(frame, found, self.t, image=self.picture() if image is None else image)

    def pilot(self, mode: Mode, armed: bool = True) -> list[ConsumedInput]:
        return self.perception.receive_status(PilotStatus(t=self.t, armed=armed, mode=mode), self.t)


def both(seen: PerceptionOutput) -> tuple[PolicyInput, Setpoint]:
    assert seen.policy_input is not None and seen.setpoint is not None
    return seen.policy_input, seen.setpoint


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_policy_is_refused_with_the_reason(tmp_path: Path) -> None:
    policy, encoder = write_policy(tmp_path, tasks=("transit",))
    steering = SteeringConfig(policy=str(policy), encoder=str(encoder))
    assert refusals(steering)["transit"] == ""
    assert refusals(steering)["station"] == "the policy was not evaluated on station, only on transit"
    assert "not found" in refusals(SteeringConfig(policy="models/nothing.safetensors"))["follow"]
    card = toml.parse(policy.with_suffix(".toml").read_text())
    for change, why in (
        ({"results": {"transit": {"success": 1.3, "episodes": 10}}}, "results.transit"),
        ({"encoder_sha256": "0"}, "was not trained with encoder.safetensors"),
        ({"version": 1}, "version = 1"),
        ({"weights_sha256": "0"}, "is not the file its card describes"),
    ):
        policy.with_suffix(".toml").write_text(tomli_w.dumps(card | change))
        assert why in refusals(steering)["transit"], why
        with pytest.raises(ModelError, match=why):
            PolicyModel(policy, encoder)
    policy.with_suffix(".toml").write_text(tomli_w.dumps(card | {"results": {}}))
    assert refusals(steering)["transit"] == "the policy was not evaluated on transit"
    PolicyModel(policy, encoder)  # it can be evaluated
    policy.with_suffix(".toml").write_text(tomli_w.dumps(card))
    encoder.with_suffix(".toml").unlink()
    assert "has no card" in refusals(steering)["transit"]


def test_a_rate_outside_the_trained_ones_is_doubted(files: tuple[Path, Path]) -> None:
    card = load_cards(*files).policy
    assert rate_doubt(card, 15.0) == ""
    assert "trained at 8 to 16 pictures per second" in rate_doubt(card, 25.0)


def test_tracks_have_a_place_a_height_and_an_aspect() -> None:
    """160×120 px through a lens that shows 90°: the followed diver comes first, then the largest in sight."""
    boxes = ((75.0, 55.0, 85.0, 65.0), (60.0, 45.0, 100.0, 75.0), (0.0, 50.0, 30.0, 70.0), (40.0, 40.0, 50.0, 45.0))
    items = tuple(Track(i, "diver", 0.8, box, hidden_s=0.5 * (i == 2)) for i, box in enumerate(boxes))
    seen = Tracks(t=0, frame_id=0, frame_t=0, width=160, height=120, items=(*items, Track(9, "fish", 0.9, boxes[0])))
    followed, largest, third = track_rows(seen, "diver", 2, 90.0, None)
    assert followed == pytest.approx((1.0, math.atan(-65 / 80), 0.0, 20 / 120, 0.5, 0.8, 1.5))
    assert largest == pytest.approx((1.0, 0.0, 0.0, 30 / 120, 0.0, 0.8, 40 / 30))
    assert third[3:] == pytest.approx((10 / 120, 0.0, 0.8, 1.0))
    assert track_rows(seen, "fish", None, 90.0, None)[1:] == ((0.0,) * 7,) * 2


# ---- from frame to frame --------------------------------------------------------------------------------------------


def test_one_source_gives_one_setpoint_per_frame(model: PolicyModel) -> None:
    servo, task = Rover(model, name="none").see(), Rover(model, name="transit").see()
    assert servo.setpoint is not None and servo.setpoint.source == "steer" and servo.policy_input is None
    given, setpoint = both(task)
    assert setpoint.source == "policy" and setpoint.frame_id == given.frame_id == task.tracks.frame_id
    assert len(given.features) == FEATURES and given.task == "transit"
    assert [type(each).__name__ for each in task.messages][-2:] == ["PolicyInput", "Setpoint"]


def test_without_policy_or_state_there_is_no_setpoint(model: PolicyModel) -> None:
    without = Rover(model, name="transit")
    without.perception = Perception(without.config, None)
    assert without.see().setpoint is None
    lost = Rover(model, name="transit")
    lost.vehicle = None
    assert lost.see().setpoint is None and len(lost.see().messages) == 3


def test_the_setpoint_is_repeated_from_the_messages_alone(model: PolicyModel) -> None:
    rover = Rover(model, name="follow")
    memory = torch.full((1, 128), 9.0)  # the reset in the first message must replace it
    for i in range(12):
        if i == 6:
            rover.pilot(Mode.POLICY)
        given, setpoint = both(rover.see())
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(given), type=PolicyInput)
        answer, _, memory = model.answer(sent, memory)
        assert answer[0].tolist() == pytest.approx(
            [setpoint.surge, setpoint.sway, setpoint.heave, setpoint.yaw], abs=1e-6
        )


def test_memory_starts_with_the_task_at_engagement_and_after_a_gap(model: PolicyModel) -> None:
    rover = Rover(model, name="transit")
    resets = [both(rover.see())[0].reset for _ in range(3)]
    changes = rover.pilot(Mode.POLICY)
    assert [(each.what, each.mode) for each in changes] == [("mode", Mode.POLICY), ("arm", None)]
    assert rover.pilot(Mode.POLICY) == []
    resets += [both(rover.see())[0].reset for _ in range(2)]
    rover.t += 2 * S
    resets.append(both(rover.see())[0].reset)
    assert resets == [True, False, False, True, False, True]
    rover.perception.apply_config(with_policy(rover.config, (Path("p"), Path("e")), name="follow"))
    assert both(rover.see())[0].reset and not both(rover.see())[0].reset


def test_the_previous_setpoint_is_shown_only_while_it_moves_the_vehicle(model: PolicyModel) -> None:
    rover = Rover(model, name="transit")
    rover.see()
    assert math.isnan(both(rover.see())[0].previous[0])
    rover.pilot(Mode.POLICY)
    first, moved = both(rover.see())
    second, _ = both(rover.see())
    assert math.isnan(first.previous[0])
    assert second.previous == (moved.surge, moved.sway, moved.heave, moved.yaw)


def test_a_station_takes_its_key_frame_once_it_has_turned(model: PolicyModel) -> None:
    rover, frames = Rover(model, KEY_S / 10, name="station"), 13
    rover.pilot(Mode.POLICY)
    given = [both(rover.see())[0] for _ in range(frames)]
    assert [i for i, each in enumerate(given) if each.key] == [10]
    assert given[-1].keyed[4] > 0.3 and given[5].keyed[4] == 0 and given[5].moved[4] > 0.3
    travelling = Rover(model, KEY_S / 10, name="transit")
    assert not any(both(travelling.see())[0].key for _ in range(frames))


def test_displacement_has_the_sign_of_what_is_seen(model: PolicyModel) -> None:
    rover = Rover(model, name="transit")  # the bottom drifts to the left by a pixel of 320 in each frame
    rover.vehicle = VehicleState(t=0)
    rover.see()
    assert both(rover.see())[0].moved[0] == pytest.approx(-1 / 320, abs=5e-4)


def test_goals_belong_to_their_tasks() -> None:
    task = CONFIG.task.model_copy(update={"heading_deg": 90.0, "depth": 4.0, "distance": 3.0, "height": 1.5})
    given = {
        name: [not math.isnan(each) for each in goal_of(task.model_copy(update={"name": name}))]
        for name in ("transit", "follow", "inspect", "station")
    }
    assert given == {
        "transit": [True, True, False, False],
        "follow": [False, False, True, False],
        "inspect": [True, False, False, True],
        "station": [False, False, False, False],
    }
    assert goal_of(task.model_copy(update={"name": "transit"}))[0] == pytest.approx(math.pi / 2)


def test_a_followed_thing_is_as_high_as_it_is_said_to_be_or_as_usual() -> None:
    follow = CONFIG.task.model_copy(update={"name": "follow"})
    assert target_height(follow, "diver") == TYPICAL_HEIGHT_M["diver"]
    assert math.isnan(target_height(follow, "buoy_red"))
    assert target_height(follow.model_copy(update={"target_height": 0.9}), "diver") == 0.9
    assert math.isnan(target_height(follow.model_copy(update={"name": "transit"}), "diver"))


def test_the_attitude_is_that_of_the_frame() -> None:
    state = VehicleState(t=S, attitude_t=S, yaw=1.0, rates=(0.0, 0.0, 0.5), depth_t=S, depth=2.0)
    pose = pose_at(state, S - 100_000_000)
    assert pose is not None and pose.attitude[2] == pytest.approx(0.95)
    assert pose_at(state, S + S) is None and pose_at(msgspec.structs.replace(state, depth_t=None), S) is None
    assert pose_at(msgspec.structs.replace(state, yaw=math.nan), S) is None


# ---- disengagement ---------------------------------------------------------------------------------------------------


def test_pictures_that_show_nothing_make_it_unfit(tmp_path: Path) -> None:
    limits = {"mean": [0.05, 0.9], "contrast": 0.02, "gradient": 0.004, "saturated": 0.5}
    model = PolicyModel(*write_policy(tmp_path, **limits))
    noise = np.random.default_rng(3)

    def covered(level: float) -> Image:
        return noise.normal(level, 1.5, (240, 320, 3)).clip(0, 255).astype(np.uint8)

    for level, why in ((3, "too dark"), (250, "too bright"), (120, "shows nothing")):
        rover = Rover(model, name="transit")
        assert [both(rover.see())[1].unfit for _ in range(4)] == [""] * 4
        unfit = [both(rover.see(covered(level)))[1].unfit for _ in range(5)]
        assert unfit[:4] == [""] * 4 and why in unfit[4] and "5 of the last 8" in unfit[4]
        again = [both(rover.see())[1].unfit for _ in range(4)]
        assert again[-1] == ""


def test_a_frozen_picture_makes_it_unfit(model: PolicyModel) -> None:
    rover = Rover(model, name="transit")
    rover.see()
    still = rover.picture()
    unfit = [both(rover.see(still))[1].unfit for _ in range(6)]
    assert unfit[4] == "" and "frozen" in unfit[5]


def test_unlike_pictures_and_an_unsure_policy_make_it_unfit(tmp_path: Path) -> None:
    for thresholds, why in (({"unlike": 1e-6}, "unlike those of the training"), ({"log_variance": -20.0}, "unsure")):
        rover = Rover(PolicyModel(*write_policy(tmp_path, **thresholds)), name="transit")
        unfit = [both(rover.see())[1].unfit for _ in range(6)]
        assert unfit[3] == "" and why in unfit[5]


def test_a_target_of_unknown_height_makes_it_unfit(model: PolicyModel) -> None:
    """How far it is cannot be known then."""
    for height, unfit in ((0.0, "nobody says how high"), (0.3, "")):
        rover = Rover(model, name="follow", target_height=height)
        assert rover.config.steering.target not in TYPICAL_HEIGHT_M
        assert unfit in [both(rover.see())[1].unfit for _ in range(6)][-1]


def test_a_lost_key_frame_makes_it_unfit(model: PolicyModel) -> None:
    rover = Rover(model, KEY_S / 10, name="station")
    rover.pilot(Mode.POLICY)
    unfit = [both(rover.see())[1].unfit for _ in range(15)]
    assert set(unfit) == {""}
    rover.bottom = np.random.default_rng(9).integers(0, 255, (60, 400), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    unfit = [both(rover.see())[1].unfit for _ in range(8)]
    assert "the place of the key frame is not seen any more" in unfit[-1]


def test_a_key_frame_may_be_out_of_sight_for_a_moment() -> None:
    """For two seconds, at eight frames a second 16; the next one is a symptom, and seeing it once forgives all."""
    checkup = Checkup()
    assert [checkup.lost(0.0, 0.125) for _ in range(16)] == [""] * 16
    assert "not seen any more" in checkup.lost(0.0, 0.125)
    assert checkup.lost(0.5, 0.125) == "" == checkup.lost(0.0, 0.125)
