"""Worlds: the schema of `sim/worlds/*.toml`, and the one concrete world that a seed draws from it.

A number may be written as a distribution, from which each seed draws: `{uniform = [a, b]}`, `{log_uniform = [a, b]}`,
`{normal = [mean, deviation]}` or `{choice = [a, b, …]}`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from rov import toml
from rov.errors import UserError
from rov.messages import Task
from rov.optics.lens import Calibration
from rov.optics.lens import load as calibration
from rov.resources import checkout
from sim.scene.ground import FAR, depth
from sim.scene.lens import Lens
from sim.scene.scene import Ground, Light, Scene, Sensor
from sim.scene.shapes import Thing
from sim.scene.things import CATALOGUE
from sim.scene.water import IOP, water

NUMBER_MAX = 1e6
"""Largest number allowed in a world."""
THINGS_MAX = 1000

Random = np.random.Generator
Vector = tuple[float, float, float]


class WorldError(UserError):
    """A world that cannot be read or is invalid."""


class WorldTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of the file's tables: unknown keys are errors."""


class Spread(WorldTable, frozen=True):
    """A distribution; exactly one of its forms."""

    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    normal: tuple[float, float] | None = None
    choice: list[float] | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of uniform, log_uniform, normal, choice")
        if self.log_uniform and not 0 < self.log_uniform[0] <= self.log_uniform[1]:
            raise ValueError("log_uniform wants 0 < from <= to")
        if self.uniform and self.uniform[0] > self.uniform[1]:
            raise ValueError("uniform wants from <= to")
        if self.normal and self.normal[1] < 0:
            raise ValueError("normal wants a deviation >= 0")
        if self.choice is not None and not self.choice:
            raise ValueError("choice wants at least one")

    def draw(self, random: Random) -> float:
        if self.uniform:
            return float(random.uniform(*self.uniform))
        if self.log_uniform:
            low, high = self.log_uniform
            return math.exp(random.uniform(math.log(low), math.log(high)))
        if self.normal:
            return float(random.normal(*self.normal))
        assert self.choice
        return self.choice[int(random.integers(len(self.choice)))]


Number = float | Spread


class Colours(WorldTable, frozen=True):
    choice: list[Vector]


class WaterTable(WorldTable, frozen=True):
    """`type`: a Jerlov type of sim/scene/water.py, or several to choose from."""

    type: str | list[str] = "IB"
    turbidity: Number = 1.0
    """Factor on the type's scattering."""
    veil: Number = 0.3
    """Brightness of endless water in green, relative to a white target in the same light."""
    warm: Number = 0.0
    """Shift of the veil to yellow (dissolved matter), 0..1."""
    snow: Number = 0.0
    """Visible particles per m³."""
    density: Number = 1025.0
    """kg/m³."""

    def __post_init__(self) -> None:
        for each in [self.type] if isinstance(self.type, str) else self.type:
            if each not in IOP:
                raise ValueError(f"type {each!r} is not known; use one of {', '.join(IOP)}")


class CurrentTable(WorldTable, frozen=True):
    """Movement of the water: a steady current, and gusts as a first-order Gauss–Markov process around it."""

    speed: Number = 0.0
    """m/s."""
    towards_deg: Number = 0.0
    """Direction of the flow, degrees from north."""
    gust: Number = 0.0
    """Standard deviation of the gusts, m/s."""
    gust_s: Number = 10.0
    """Time constant of the gusts, s."""


class StartTable(WorldTable, frozen=True):
    """Start of the vehicle: m and degrees."""

    north: Number = 0.0
    east: Number = 0.0
    depth: Number = 1.0
    heading_deg: Number = 0.0


class LightTable(WorldTable, frozen=True):
    day: Number = 1.0
    sun: Number = 0.5
    elevation_deg: Number = 60.0
    """Of the sun's rays in the water."""
    azimuth_deg: Number = Spread(uniform=(0.0, 360.0))
    caustics: Number = 0.6
    lamps: Number = 0.0


class GroundTable(WorldTable, frozen=True):
    kind: Literal["tiles", "sand", "mud"] = "sand"
    depth: Number = 5.0
    """Depth of the bottom, m."""
    relief: Number = 0.0
    """Standard deviation of its height, m."""
    colour: Vector = (0.45, 0.4, 0.3)
    other: Vector = (0.3, 0.26, 0.18)
    walls: tuple[float, float, float, float] | None = None
    """Walls of a basin: north from, to, east from, to, m."""
    wall: Vector = (0.35, 0.45, 0.5)
    waves: Number = 0.08
    """Slope of the surface, rad."""


class CameraTable(WorldTable, frozen=True):
    """The camera; distributions are drawn once per seed."""

    hfov_deg: Number = 80.0
    distortion: tuple[float, float, float, float, float] = (-0.12, 0.02, 0.0, 0.0, 0.0)
    """k1 k2 p1 p2 k3 of ROS plumb_bob."""
    calibration: str = ""
    """A ROS camera_info file as `rov calibrate camera` writes it, relative to the world's file; replaces the lens."""
    brightness: Number = 0.45
    gain_max: Number = 8.0
    white: Number = 0.3
    saturation: Number = 1.15
    contrast: Number = 0.2
    noise: Number = 1.5
    soft: Number = 0.7
    vignette: Number = 0.15
    shutter: Number = 0.01
    jpeg: Number = 85.0
    """Quality of the pictures of a data set."""


class ThingTable(WorldTable, frozen=True):
    """`count` things of a kind, each at its own drawn place."""

    kind: str
    count: Number = 1.0
    north: Number = 0.0
    east: Number = 0.0
    above: Number = 0.0
    """Height above the bottom, m; things that lie, stand or grow on the bottom need none."""
    scale: Number = 1.0

    def __post_init__(self) -> None:
        if self.kind not in CATALOGUE:
            raise ValueError(f"kind {self.kind!r} is not known; use one of {', '.join(CATALOGUE)}")


class Step(WorldTable, frozen=True):
    """One leg of a course. `follow` turns to search for its target, and ends early when it is reached. `policy` gives
    the policy a task, holds until its setpoints have come for long enough, and engages it."""

    mode: Literal["hold", "follow", "policy", "surface"]
    seconds: float = 20.0
    """Longest duration, s."""
    target: str = ""
    """Class to follow."""
    task: Task = "none"
    """Of `policy`."""
    heading_deg: float | None = None
    """Of the tasks that have one; else the vehicle's own. So with the next."""
    depth: float | None = None
    """m."""
    distance: float | None = None
    """m from the target."""
    height: float | None = None
    """m over the pipeline."""
    target_height: float | None = None
    """m: of what is followed by the policy; else as usual for its class."""
    size: float = 0.25
    """Apparent height at which the target is reached, share of the image height."""
    turn: float = 1.0
    """Direction of the search: 1 clockwise, −1 anticlockwise."""
    surge: float = 0.0
    """Sticks of `hold`, −1..1."""
    sway: float = 0.0
    heave: float = 0.0
    yaw: float = 0.0

    def __post_init__(self) -> None:
        if self.mode == "follow" and not self.target:
            raise ValueError("follow needs a target")
        if (self.mode == "policy") != (self.task != "none"):
            raise ValueError("policy needs a task, and only policy has one")


class World(WorldTable, frozen=True):
    """A whole file."""

    about: str
    water: WaterTable = WaterTable()
    current: CurrentTable = CurrentTable()
    start: StartTable = StartTable()
    light: LightTable = LightTable()
    ground: GroundTable = GroundTable()
    camera: CameraTable = CameraTable()
    things: list[ThingTable] = []
    course: list[Step] = []
    name: str = ""
    """The file's name without suffix; not a key of the file."""


@dataclass(frozen=True)
class RealisedWorld:
    """One concrete world: the water that moves the vehicle, and the scene that its camera sees."""

    name: str
    seed: int
    density: float
    """kg/m³."""
    current: Vector
    """NED, m/s."""
    gust: float
    """m/s, standard deviation."""
    gust_s: float
    bottom: float
    """Depth, m."""
    walls: tuple[float, float, float, float]
    """North from, to, east from, to, m; far away in open water."""
    start: Vector
    """NED, m."""
    heading: float
    """rad."""
    scene: Scene
    hfov_deg: float
    distortion: tuple[float, float, float, float, float]
    jpeg: int
    course: tuple[Step, ...] = ()
    calibration: Calibration | None = None
    """A measured lens, which replaces the drawn one."""

    def lens(self, width: int, height: int) -> Lens:
        """The lens for pictures of this size. Raises WorldError where a measured lens has another aspect ratio."""
        if self.calibration is None:
            return Lens.wide(width, height, self.hfov_deg, self.distortion)
        c = self.calibration
        if width * c.height != height * c.width:
            raise WorldError(
                f"the calibration {c.name} is of pictures of {c.width}×{c.height}; {width}×{height} has another shape:"
                f" use --size {c.width}x{c.height}"
            )
        return Lens.of(c).scaled(width, height)


def folder() -> Path:
    return checkout() / "sim" / "worlds"


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name: str) -> World:
    """A world by its name in `sim/worlds`, or by its path. Raises WorldError."""
    path = Path(name) if name.endswith(".toml") else folder() / f"{name}.toml"
    try:
        text = toml.read_text(path).encode()
    except OSError as error:
        known = "" if name.endswith(".toml") else f"; there are {', '.join(names())}, or give a path to a .toml"
        raise WorldError(f"{path}: cannot be read: {error.strerror}{known}") from None
    except toml.TomlError as error:
        raise WorldError(str(error)) from None
    return parse(text, path)


def parse(text: bytes, path: Path) -> World:
    """The world in a TOML text. Raises WorldError, which names file and key."""
    try:
        world = toml.convert(toml.parse(text.decode()), World, strict=False)
    except toml.TomlError as error:
        raise WorldError(f"{path}: {error}".replace("`$.", "`").replace("Object contains unknown", "unknown")) from None
    world = msgspec.structs.replace(world, name=path.stem)
    return through(world, path.parent / world.camera.calibration) if world.camera.calibration else world


def through(world: World, calibration: Path | None) -> World:
    """The world seen through a measured lens; None leaves it as it is."""
    if calibration is None:
        return world
    camera = msgspec.structs.replace(world.camera, calibration=str(calibration.absolute()))
    return msgspec.structs.replace(world, camera=camera)


def realise(world: World, seed: int) -> RealisedWorld:
    """The concrete world of a seed, the same on every machine (PCG64, one stream per table and thing)."""

    def stream(*key: int) -> Random:
        return np.random.Generator(np.random.PCG64([seed, *key]))

    def drawn(table: WorldTable, key: int) -> dict[str, Any]:
        random, where = stream(key), type(table).__name__.removesuffix("Table").lower()
        return {name: _draw(getattr(table, name), random, f"{where}.{name}") for name in table.__struct_fields__}

    w, c, start, light, g, camera = (
        drawn(table, key)
        for key, table in enumerate((world.water, world.current, world.start, world.light, world.ground, world.camera))
    )
    kind = w["type"] if isinstance(w["type"], str) else w["type"][int(stream(10).integers(len(w["type"])))]
    flow = math.radians(c["towards_deg"])
    tint = np.array((1 + 0.6 * w["warm"], 1.0, 1 - 0.7 * w["warm"]))
    walls = g["walls"] or (-FAR, FAR, -FAR, FAR)
    lens = {name: camera.pop(name) for name in ("hfov_deg", "distortion", "jpeg", "calibration")}
    measured = calibration(Path(lens["calibration"])) if lens["calibration"] else None
    bottom = Ground(
        g["kind"], g["depth"], g["colour"], g["other"], max(0.0, g["relief"]), g["walls"], g["wall"], g["waves"], seed
    )
    scene = Scene(
        tuple(thing for key, table in enumerate(world.things) for thing in _things(table, stream(100, key), bottom)),
        bottom,
        Light(
            light["sun"], math.radians(light["elevation_deg"]), math.radians(light["azimuth_deg"]), light["day"],
            light["caustics"], light["lamps"],
        ),
        water(kind, w["turbidity"], w["veil"], tint, snow=w["snow"]),
        Sensor(**camera),
        seed,
    )  # fmt: skip
    return RealisedWorld(
        world.name,
        seed,
        w["density"],
        (c["speed"] * math.cos(flow), c["speed"] * math.sin(flow), 0.0),
        c["gust"],
        c["gust_s"],
        g["depth"],
        walls,
        (start["north"], start["east"], start["depth"]),
        math.radians(start["heading_deg"]),
        scene,
        measured.hfov_deg if measured else lens["hfov_deg"],
        lens["distortion"],
        round(lens["jpeg"]),
        tuple(world.course),
        measured,
    )


def _draw(value: Any, random: Random, where: str) -> Any:
    """The value, drawn if it is a distribution. Raises WorldError where it is out of range."""
    drawn = value.draw(random) if isinstance(value, Spread) else value
    if isinstance(drawn, float) and not abs(drawn) <= NUMBER_MAX:
        raise WorldError(f"{where} = {drawn}: is no number of a world")
    return drawn


def _things(table: ThingTable, random: Random, ground: Ground) -> list[Thing]:
    made: list[Thing] = []
    count = round(_draw(table.count, random, "things.count"))
    if count > THINGS_MAX:
        raise WorldError(f"things.count = {count}: {THINGS_MAX} of a kind are the most")
    for _ in range(count):
        north, east, above, scale = (
            _draw(getattr(table, each), random, f"things.{each}") for each in ("north", "east", "above", "scale")
        )
        bottom = depth(ground, north, east)
        made += CATALOGUE[table.kind](random, (north, east, bottom - above), bottom, scale)
    return made
