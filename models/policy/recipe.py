"""The recipe: every setting of every stage, read from one TOML file; the cards repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from models.recipe import apply
from rov import toml
from rov.errors import UserError
from rov.steering.policy_input import TASKS


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of the recipe's tables: unknown keys are errors."""


class EncoderRecipe(Settings, frozen=True):
    """Small pictures rendered with their range and pipeline, and how the encoder learns from them."""

    worlds: tuple[str, ...] = ("pool", "pond", "reef", "pipeline_night", "transit:pond", "transit:reef", "follow:reef",
                               "inspect:pipeline_night", "inspect:reef", "station:pond")  # fmt: skip
    """Worlds of sim/worlds, and tasks in them."""
    waters: tuple[str, ...] = ("pool", "IB", "III", "3C")
    """Types of sim/scene/water.py that replace the worlds' own."""
    test_worlds: tuple[str, ...] = ("harbour", "transit:harbour", "follow:harbour", "inspect:harbour", "pond", "reef")
    test_waters: tuple[str, ...] = ("II", "1C")
    """Seen in no training."""
    scenes: int = 1200
    views: int = 32
    """Pictures of each scene."""
    test_scenes: int = 60
    usual_scenes: int = 168
    """Of the worlds as they are: these say what a usual picture looks like, half as many others how far from it usual
    ones lie."""
    epochs: int = 8
    batch: int = 128
    rate: float = 2e-3
    """Peak learning rate of AdamW; warm-up, then a cosine to 1 %."""
    night: float = 0.25
    """Share of scenes by lamps alone."""
    seed: int = 1


class NoiseRecipe(Settings, frozen=True):
    """Rendered pictures on which the sea's noise is fitted."""

    tasks: tuple[str, ...] = ("transit", "follow", "inspect")
    worlds: tuple[str, ...] = (
        "pond",
        "reef",
        "pipeline_night",
        "models/worlds/fjord.toml",
        "models/worlds/lagoon.toml",
    )
    """The last two for nothing else: how wrong the encoder is of water like that of its training says too little."""
    seeds: int = 4
    vehicles: int = 2
    """In each world, of each task and seed."""
    decisions: int = 50
    follow_seeds: int = 12
    """Of `follow` by day, for the tracks alone: four courses hold two fish, and tracks of nothing are rare."""
    turbidity: tuple[float, float] = (1.5, 6.0)
    """Of other water in the same worlds by day, in which tracks alone are watched: the teacher stays near what it
    follows, and no world is as turbid as the sea at its hard level."""


class TuningRecipe(Settings, frozen=True):
    """The search for the numbers of teacher and PID: the same budget for both."""

    tasks: tuple[str, ...] = TASKS
    level: Literal["easy", "nominal", "hard"] = "nominal"
    population: int = 16
    episodes: int = 32
    """Of each candidate, in each generation others."""
    generations: int = 20
    seed: int = 1


class SeaRecipe(Settings, frozen=True):
    """The vehicles in the sea that a student learns from."""

    tasks: tuple[str, ...] = TASKS
    levels: tuple[Literal["easy", "nominal", "hard"], ...] = ("nominal", "hard")
    """The vehicles of each task are divided among these."""
    vehicles: int = 512
    """Of each task."""
    share: dict[str, float] = {}
    """By task: how many of these it has, 1 where it is not named."""
    dead_thruster: float = 0.05
    """Share of the vehicles of which one horizontal thruster is dead."""
    seed: int = 1


class DaggerRecipe(SeaRecipe, frozen=True):
    """How the student learns from the teacher on the abstraction."""

    teacher: dict[str, dict[str, float]] = {}
    """By task: the teacher's numbers that replace the starts of its search. The tuned ones are for the rows of an
    evaluation: what is best for one who knows the truth is too soft for a student who sees it through noise and
    therefore does half of what it should."""
    window: int = 64
    """Decisions of a round, and of a training sequence."""
    burn_in: int = 16
    rounds: int = 80
    updates: int = 30
    """Of a round."""
    batch: int = 128
    """Windows."""
    keep: int = 8
    """Rounds whose windows are kept."""
    rate: float = 1e-3
    decay: float = 1e-4
    average: float = 0.1
    """What steers and ships is a mean of the weights over about this share of all updates so far, the last ones."""
    weight: dict[str, float] = {}
    """By task: how much its decisions count, 1 where it is not named. A squared loss sees most where the labels spread
    farthest: surge has a standard deviation of 0.37 in `follow`, of 0.13 in `transit`."""
    near: float = 3.0
    """Weight, on top of 1, of a decision with a thing at the skin."""
    smooth: float = 0.5
    """Weight of the ripple beyond the teacher's."""
    shake: float = 0.1
    """Standard deviation of the noise on the setpoints of rows that are not measured."""
    teaching_first: float = 1.0
    teaching_last: float = 0.1
    """Share of the time that the teacher steers the rows that are not measured, at first and from a third on."""


class ReinforceRecipe(SeaRecipe, frozen=True):
    """How the student learns from what it tries."""

    window: int = 64
    """Decisions of a round."""
    rounds: int = 200
    epochs: int = 3
    """How often each try is learned from."""
    batch: int = 96
    """Vehicles."""
    rate: float = 2.5e-4
    """Of the policy; it falls to a thirtieth."""
    critic_rate: float = 1e-3
    warm: int = 6
    """Rounds in which the critic alone learns."""
    discount: float = 0.999
    """Of what comes a decision later. At 0.995 the end of an episode is out of sight for half a minute before it, and
    the student waits before what is hard until its time is up."""
    trace: float = 0.97
    """How far an advantage looks ahead before it trusts the critic, per decision."""
    clip: float = 0.2
    """A try that has become more or less likely by more than this teaches no more in this round."""
    reach: float = 0.04
    """A policy that has moved by more than this divergence learns no more in this round."""
    shake: float = 0.1
    """Standard deviation of the noise on the setpoints."""
    keep: float = 0.8
    """Share of the noise that is left at the next decision."""
    outside_w: float = 500.0
    """What a second outside of a task's band costs."""
    touch_j: float = 15_000.0
    """What an episode in which something is touched costs, beside its failure."""
    teacher: float = 0.1
    """Weight of the distance from the teacher's setpoints."""
    where: float = 1.0
    """Weight of knowing where it is."""
    average: float = 0.03
    """Share of the newest weights in those that ship, each round."""
    snapshot: int = 10
    """Rounds between weights that are kept for the judging."""
    judged: int = 3
    """Snapshots that are judged, the last ones."""
    judging: int = 256
    """Episodes of each task."""
    limiting: int = 768
    """Episodes of each task by which the limit of being unsure is set."""


class CloneRecipe(Settings, frozen=True):
    """How a person's dives change the policy."""

    length: int = 64
    """Frames of a window."""
    burn_in: int = 16
    updates: int = 300
    batch: int = 16
    rate: float = 2e-4
    smooth: float = 0.5
    share: float = 0.5
    """How far to go from the trunk's weights to those that the dives alone would make. Dives in which all goes well do
    not show how to come back: all the way, a clone of 30 good dives succeeds less than its trunk."""
    seed: int = 1


class Recipe(Settings, frozen=True):
    """The whole training."""

    encoder: EncoderRecipe = EncoderRecipe()
    noise: NoiseRecipe = NoiseRecipe()
    tuning: TuningRecipe = TuningRecipe()
    dagger: DaggerRecipe = DaggerRecipe()
    reinforce: ReinforceRecipe = ReinforceRecipe()
    clone: CloneRecipe = CloneRecipe()

    def miniature(self) -> Recipe:
        """A run of the same stages that takes a minute and learns nothing."""
        change = msgspec.structs.replace
        tasks = ("follow",)
        encoder = change(self.encoder, scenes=8, views=8, test_scenes=8, usual_scenes=8, epochs=2, batch=16)
        noise = change(self.noise, tasks=tasks, worlds=("reef",), seeds=1, follow_seeds=1, vehicles=1, decisions=4)
        tuning = change(self.tuning, tasks=tasks, population=4, episodes=2, generations=1)
        dagger = change(
            self.dagger, tasks=tasks, levels=("easy",), vehicles=16, window=24, burn_in=4, rounds=3, updates=2, batch=8
        )
        reinforce = change(
            self.reinforce, tasks=tasks, levels=("easy",), vehicles=16, window=24, rounds=3, warm=1, batch=8,
            snapshot=2, judged=1, judging=4, limiting=4,
        )  # fmt: skip
        return change(self, encoder=encoder, noise=noise, tuning=tuning, dagger=dagger, reinforce=reinforce)


def claim(folder: Path, recipe: Settings) -> None:
    """Make the folder of a stage, for this recipe. Raises RecipeError when what is in it follows another one."""
    mine, note = msgspec.to_builtins(recipe), folder / "recipe.json"
    folder.mkdir(parents=True, exist_ok=True)
    if note.exists() and msgspec.json.decode(note.read_bytes()) != msgspec.json.decode(msgspec.json.encode(mine)):
        raise RecipeError(f"{folder}: follows another recipe; name another --out, or --from-stage {folder.name}")
    note.write_bytes(msgspec.json.encode(mine))


class RecipeError(UserError):
    """A recipe that cannot be read, or cannot be trained."""


def load(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with `section.key=value` settings applied. Raises UserError, which names file and key."""
    try:
        tables: dict[str, Any] = toml.parse(toml.read_text(path))
        for setting in settings:
            apply(tables, setting)
        return toml.convert(tables, Recipe)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}; name a recipe with --recipe") from None
    except toml.TomlError as error:
        raise RecipeError(f"{path}: {error}") from None
