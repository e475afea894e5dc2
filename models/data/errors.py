"""What is wrong with a data set: errors that stop, and findings that are told together."""

from __future__ import annotations

from collections import Counter

from rov.errors import UserError

SHOWN = 20
"""Most wrong entries listed in one error."""


class DataError(UserError):
    """A data set is missing, has no complete card, or contradicts its card."""


class Findings:
    """What a reader met in the files of others. `wrong`: sentences on what cannot be read; `notes`: what was put right
    or left out, and how often."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.notes: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def note(self, what: str, where: object = "") -> None:
        """Count something that was put right; the first place is told."""
        self.notes[what] += 1
        self._first.setdefault(what, str(where))

    def sentences(self) -> list[str]:
        """One for each kind of note."""
        return [
            f"{count} × {what}" + (f" (first: {self._first[what]})" if self._first[what] else "")
            for what, count in self.notes.most_common()
        ]

    def must_be_right(self, source: object, advice: str = "put it right") -> None:
        """Raises DataError with all that is wrong, a line each."""
        if not self.wrong:
            return
        more = len(self.wrong) - SHOWN
        lines = [*self.wrong[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
        count = "1 entry" if len(self.wrong) == 1 else f"{len(self.wrong)} entries"
        raise DataError("\n".join([*lines, f"{source}: {count} cannot be read: {advice}"]))
