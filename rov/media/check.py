"""Checks that the pictures of a run show something: a run that read only black or frozen ones must not succeed.

Noise tells black and frozen pictures from dark and still ones: a sensor has some even in the darkest night, and two
pictures of a camera on a tripod differ by it. A broken decoder, a lens cap or a hung recorder gives none.
"""

from __future__ import annotations

import numpy as np

from rov.errors import UserError
from rov.types import Image

ENOUGH = 10
"""Runs of fewer pictures are not judged black or incomplete: a handful of odd ones is no fault."""
SHARE_MIN = 0.5
"""If less than this share can be read, the result does not describe the dive."""
BLACK_MAX = 3
"""The brightest level (0..255) of a picture that is black. One level of sensor noise is 2 to 5 at night, and somewhere
in a picture it is four times that; video compression leaves 1 to 3 of pure black."""
FROZEN_MIN = 20
"""This many bit-identical pictures mean a frozen source. Test cards and joined stills have fewer; in a video of a
resting camera, key frames alone make a difference long before."""


class WorthlessError(UserError):
    """Everything readable was read, and it shows nothing. The results may be kept, but the run has failed."""


class ContentCheck:
    """Checks every picture of a run; cheap after the first two that differ and are not black."""

    def __init__(self) -> None:
        self.seen = 0
        self.black = self.same = True
        self.first: Image | None = None

    def add(self, image: Image) -> None:
        self.seen += 1
        if self.black:
            self.black = bool(image[::16, ::16].max(initial=0) <= BLACK_MAX and image.max(initial=0) <= BLACK_MAX)
        if self.first is None:
            self.first = image
        elif self.same:
            self.same = _equal(image, self.first)

    def finish(self, what: str, promised: int) -> None:
        """Call when all of `what` was read. Raises WorthlessError if it shows nothing."""
        if sentence := self.sentence(what, promised):
            raise WorthlessError(sentence)

    def sentence(self, what: str, promised: int) -> str:
        """The error message of `finish`, without raising; "" when all is well."""
        fault = self.fault(promised)
        return f"{what}: {fault}" if fault else ""

    def fault(self, promised: int) -> str:
        """What is wrong, as the rest of a sentence; "" when all is well. `promised`: how many pictures the files say
        they hold, or how many were tried."""
        promised = max(promised, self.seen)
        if promised >= ENOUGH and self.seen < SHARE_MIN * promised:
            return f"only {self.seen} of the {promised} pictures can be read"
        if self.seen >= ENOUGH and self.black:
            return f"all {self.seen} pictures are black"
        if self.seen >= FROZEN_MIN and self.same:
            return f"all {self.seen} pictures are the same, bit by bit"
        return ""


def _equal(one: Image, other: Image) -> bool:
    """Compares every 16th pixel first: most pictures differ there already."""
    if one.shape != other.shape:
        return False
    return np.array_equal(one[::16, ::16], other[::16, ::16]) and np.array_equal(one, other)
