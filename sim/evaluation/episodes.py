"""What is kept of an episode: a line of JSON, appended as soon as it ends. A torn last line is an episode not done."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rov.errors import UserError

TRACKED = 40
"""Episodes of a row whose track is kept for the page."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One episode of one row."""

    row: str
    episode: int
    world: str = ""
    success: bool
    failed: bool
    timed_out: bool
    touched: bool
    """Something was bumped into."""
    disengaged: bool = False
    """The policy let go, and the episode ended there without success."""
    seconds: float
    joules: float
    """From the battery, the hotel load included."""
    distance: float
    """m over ground."""
    night: bool = False
    ours: bool = True
    """Under our inner loops; else ArduSub's."""
    target: str = ""
    """Class of what is followed; "" where nothing is, and in older lines."""
    stand_off: float | None = None
    """Distance to what is followed over the goal's, the mean once settled; None where nothing is, and in tier 3."""
    track: list[tuple[float, float]] = []
    """m along and across the course, at about 1 Hz; of the first episodes only."""

    @property
    def watts(self) -> float:
        return self.joules / max(self.seconds, 1e-9)


def read(path: Path) -> list[Episode]:
    """All whole lines. Raises UserError for a line in the middle that cannot be read."""
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=Episode))
        except msgspec.MsgspecError as error:
            if number == len(lines):  # torn: the run was killed while it was written
                continue
            raise UserError(f"{path}: line {number} is no episode: {error}; remove the line, or the folder") from None
    return found


def append(path: Path, episodes: list[Episode]) -> None:
    """Add episodes; a torn last line is cut off first. Raises UserError."""
    try:
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            file.write(b"".join(msgspec.json.encode(each) + b"\n" for each in episodes))
            file.flush()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
