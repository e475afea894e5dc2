"""Water: attenuation of light with depth and along a ray, and backscatter.

Colours are taken at 620, 530 and 450 nm, the order R, G, B.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rov.types import Floats

IOP: dict[str, tuple[tuple[float, float, float], ...]] = {
    "pool": ((0.06, 0.06, 0.06), (0.336, 0.104, 0.069), (0.29, 0.06, 0.025)),
    "IB": ((0.116, 0.124, 0.135), (0.400, 0.177, 0.175), (0.301, 0.058, 0.036)),
    "II": ((0.167, 0.180, 0.195), (0.454, 0.242, 0.258), (0.320, 0.079, 0.068)),
    "III": ((0.275, 0.291, 0.309), (0.574, 0.374, 0.421), (0.359, 0.117, 0.136)),
    "1C": ((0.411, 0.432, 0.455), (0.717, 0.529, 0.604), (0.356, 0.128, 0.253)),
    "3C": ((0.621, 0.652, 0.686), (0.948, 0.782, 0.888), (0.386, 0.198, 0.394)),
    "5C": ((1.151, 1.207, 1.270), (1.499, 1.378, 1.587), (0.464, 0.308, 0.568)),
}
"""By Jerlov type: scattering b, beam attenuation c, diffuse attenuation Kd, 1/m. Measured by Williamson & Hollins 2022
(doi 10.1364/AO.470464). `pool`: absorption of pure water (Pope & Fry 1997), with a chosen scattering."""
BACK = 0.02
"""Share of backscatter in scattering; it raises the diffuse attenuation of added turbidity (judgement)."""
WIDE = 0.08
"""Weight of scattering against absorption in what the veil loses (judgement; sets how colourful the veil is)."""


@dataclass(frozen=True)
class Water:
    """Coefficients (3,) in 1/m, and the veil: radiance of endless water relative to a white target's."""

    beam: Floats
    scatter: Floats
    diffuse: Floats
    veil: Floats
    forward: float = 0.6
    """Share of the scattered light that stays close to its ray: it blurs the picture instead of being lost."""
    back: float = 0.6
    """The same for light from the water itself: backscatter has its own coefficient."""
    snow: float = 0.0
    """Visible particles per m³."""

    @property
    def blurred(self) -> Floats:
        """Attenuation of light that is only blurred, not lost."""
        return self.beam - self.forward * self.scatter

    @property
    def veiling(self) -> Floats:
        """Coefficient of backscatter, Akkaynak and Treibitz's beta_B."""
        return self.beam - self.back * self.scatter


def water(kind: str, turbidity: float, veil: float, tint: Floats | None = None, **more: float) -> Water:
    """Water of a Jerlov type with `turbidity` times its scattering; `veil` is in green, relative to a white target."""
    scatter, beam, diffuse = (np.array(each) for each in IOP[kind])
    absorb = beam - scatter
    thicker = scatter * turbidity
    colour = thicker / (absorb + WIDE * thicker)
    colour = colour / colour[1] * veil * (np.ones(3) if tint is None else tint)
    down = diffuse + BACK * np.maximum(thicker - scatter, 0)
    return Water(absorb + thicker, thicker, down, colour, **more)
