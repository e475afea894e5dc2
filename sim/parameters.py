"""The parameters of a simulated vehicle, read from `sim/vehicles/*.toml`, and the tensors made of them.

Body axes are forward, starboard, down; world axes north, east, down; SI units. Positive damping and added mass resist.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from rov import toml
from rov.errors import UserError
from rov.motion.allocation import FACTORS

FOLDER = Path(__file__).parent / "vehicles"

Three = tuple[float, float, float]
Six = tuple[float, float, float, float, float, float]


class ParameterError(UserError):
    """The parameters of a vehicle cannot be used."""


class Hull(msgspec.Struct, frozen=True, kw_only=True):
    """A rigid body in water. Lists of six are surge, sway, heave, roll, pitch, yaw, at the body's origin."""

    mass: float
    """kg."""
    weight_n: float
    buoyancy_n: float
    """When fully submerged, N."""
    r_g: Three
    """Centre of gravity from the origin, m."""
    r_b: Three
    """Centre of buoyancy from the origin, m."""
    inertia: Three
    """Ix, Iy, Iz about the centre of gravity, kg m²."""
    added_mass: Six
    """Diagonal, kg and kg m²."""
    linear_damping: Six
    """N s/m and N m s."""
    quadratic_damping: Six
    """N s²/m² and N m s²."""

    def check(self, where: Path) -> None:
        """Raises ParameterError for the first invalid number."""
        for name in ("mass", "weight_n", "buoyancy_n", *_LISTS):
            value = getattr(self, name)
            if not all(math.isfinite(number) for number in (value if isinstance(value, tuple) else (value,))):
                raise ParameterError(f"{where}: {name} must be finite")
        for name in ("inertia", "added_mass", "linear_damping", "quadratic_damping"):
            if min(getattr(self, name)) < 0:
                raise ParameterError(f"{where}: {name} must not be negative; positive numbers resist")
        if self.mass <= 0 or min(self.inertia) <= 0:
            raise ParameterError(f"{where}: mass and inertia must be above 0")


_LISTS = ("r_g", "r_b", "inertia", "added_mass", "linear_damping", "quadratic_damping")


class Thruster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Position of a motor (m from the origin), and direction of the force at a positive output."""

    position: Three
    direction: Three


class StickLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The largest surge, sway and heave sticks at which this model stays within 30° of upright, per set of inner loops.
    Beyond them the model tumbles, by the moment of potential flow on an inclined body (Munk moment). Its parameters do
    not say whether a real hull does."""

    rov: float = 1.0
    ardusub: float = 1.0


class Parameters(Hull, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A vehicle: a file of `sim/vehicles`, or one written by `sim fit`."""

    source: str
    frame: str
    """ArduSub frame: the order and the signs of the motors."""
    thruster: tuple[Thruster, ...]
    """Motor 1 first."""
    height_m: float
    """Height of the vehicle: over this length it surfaces; half of it lies below the origin."""
    thrust_scale: float = 1.0
    """Factor on the thruster curve."""
    thrust_delay_s: float = 0.029
    """Time constant of the thrust, equal to its mean delay after the command."""
    stick_limit: StickLimit = StickLimit()


def load(name: str | Path) -> Parameters:
    """A parameter set by name (heavy, wu, standard) or file. Raises ParameterError with what is wrong."""
    path = FOLDER / f"{name}.toml" if (FOLDER / f"{name}.toml").is_file() else Path(name)
    try:
        parameters = toml.load(path, Parameters)
    except OSError:
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.toml")))
        raise ParameterError(f"{name}: no such vehicle; name one of {known}, or a file") from None
    except toml.TomlError as error:
        raise ParameterError(str(error)) from None
    parameters.check(path)
    if parameters.frame not in FACTORS or len(parameters.thruster) != len(FACTORS[parameters.frame]):
        raise ParameterError(f"{path}: frame must be one of {', '.join(FACTORS)}, with a [[thruster]] for each motor")
    if min(parameters.height_m, parameters.thrust_scale, parameters.thrust_delay_s) <= 0:
        raise ParameterError(f"{path}: height_m, thrust_scale and thrust_delay_s must be above 0")
    return parameters


class Body(NamedTuple):
    """The tensors of a hull in the equations of motion. Each may have one more last dimension, N: one per vehicle."""

    mass: Tensor
    """(6, 6) rigid body and added mass, at the origin."""
    inverse: Tensor
    linear: Tensor
    """(6, 1)."""
    quadratic: Tensor
    """(6, 1)."""
    weight: Tensor
    """(6, 3) maps the unit vector down, in body axes, to force and moment of the weight."""
    buoyancy: Tensor
    """(6, 3) the same for the buoyancy, which points up."""


def body(hull: Hull, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Body:
    """The tensors of a hull."""

    def tensor(value: float | tuple[float, ...]) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    made = assemble(
        tensor(hull.mass),
        tensor(hull.weight_n),
        tensor(hull.buoyancy_n),
        tensor(hull.r_g),
        tensor(hull.r_b),
        tensor(hull.inertia),
        tensor(hull.added_mass),
        tensor(hull.linear_damping),
        tensor(hull.quadratic_damping),
    )
    return Body(*(each.to(device, dtype) for each in made))


def assemble(
    mass: Tensor,
    weight: Tensor,
    buoyancy: Tensor,
    r_g: Tensor,
    r_b: Tensor,
    inertia: Tensor,
    added_mass: Tensor,
    linear: Tensor,
    quadratic: Tensor,
) -> Body:
    """A body from scalars, (3,) and (6,) tensors, as named in `Hull`; differentiable in all of them.

    The rigid body's mass matrix is Fossen (2011) eq. 3.44, its inertia moved from the centre of gravity to the origin.
    """
    unit = torch.eye(3, dtype=mass.dtype, device=mass.device)
    lever = skew(r_g)
    top = torch.cat([mass * unit, -mass * lever], dim=1)
    bottom = torch.cat([mass * lever, torch.diag(inertia) - mass * lever @ lever], dim=1)
    total = torch.cat([top, bottom]) + torch.diag(added_mass)
    down = torch.cat([weight * unit, weight * lever])
    up = -torch.cat([buoyancy * unit, buoyancy * skew(r_b)])
    return Body(total, torch.linalg.inv(total), linear[:, None], quadratic[:, None], down, up)


def skew(vector: Tensor) -> Tensor:
    """(3,) -> (3, 3): the matrix of the cross product `vector ×`."""
    x, y, z = vector.unbind()
    none = torch.zeros_like(x)
    return torch.stack([none, -z, y, z, none, -x, -y, x, none]).reshape(3, 3)
