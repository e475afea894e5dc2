"""Whether what was read is worth anything: a run that saw nothing must not end as a success.

Black and frozen pictures are told from dark and still ones by noise: a sensor in the darkest night has some, and two
pictures of a tripod's camera differ by it. What a broken decoder, a lens cap or a hung recorder gives has none.
"""

from __future__ import annotations

import numpy as np

from rov.errors import UserError
from rov.types import Image

MANY = 10
"""So many pictures are much: fewer say nothing about the rest, and a handful of odd ones is no fault."""
SHARE_MIN = 0.5
"""With less than this share readable, what was made of it is of another dive than the one that was promised."""
BLACK_MAX = 3
"""The brightest level (0..255) of a picture that is black. One level of sensor noise is 2 to 5 at night, and somewhere
in a picture it is four times that; video compression leaves 1 to 3 of pure black."""
FROZEN = 20
"""So many pictures, all the same bit by bit, are one. Test cards and stills put together have fewer; in a film of a
resting camera, key frames alone make a difference long before."""


class WorthlessError(UserError):
    """All was read that could be, and it says nothing. What was made of it may be kept, but is no success."""


class ContentCheck:
    """Looks at every picture of a run; cheap after the first two that differ and are not black."""

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
        """All of `what` was read. Raises WorthlessError."""
        if sentence := self.sentence(what, promised):
            raise WorthlessError(sentence)

    def sentence(self, what: str, promised: int) -> str:
        """The same without raising; "" when there is nothing to say."""
        fault = self.fault(promised)
        return f"{what}: {fault}" if fault else ""

    def fault(self, promised: int) -> str:
        """Why this is no success, as the rest of a sentence; "" when it is one. `promised`: pictures that there were
        to be, as far as the files count them, else those that were tried."""
        promised = max(promised, self.seen)
        if promised >= MANY and self.seen < SHARE_MIN * promised:
            return f"only {self.seen} of the {promised} pictures can be read"
        if self.seen >= MANY and self.black:
            return f"all {self.seen} pictures are black"
        if self.seen >= FROZEN and self.same:
            return f"all {self.seen} pictures are the same, bit by bit"
        return ""


def _equal(one: Image, other: Image) -> bool:
    """A few pixels tell most pictures apart; only what is the same there is compared whole."""
    if one.shape != other.shape:
        return False
    return np.array_equal(one[::16, ::16], other[::16, ::16]) and np.array_equal(one, other)
