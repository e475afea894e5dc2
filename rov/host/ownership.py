"""Whether the package `rov` is ours alone. On PyPI, the distribution `rov` is another trade's program, with a package
and a command of the same names: where both are installed, an upgrade or removal of one breaks the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata

from rov.errors import UserError
from rov.extras import DISTRIBUTION

ADVICE = f"pip uninstall rov, then pip install --force-reinstall --no-deps {DISTRIBUTION} (from your checkout)"


def strangers(path: Sequence[str] | None = None) -> list[str]:
    """Other distributions with a package `rov`, as "rov 0.6.0". `path`: where to look, by default all of Python's
    folders. Reads only the lists of installed files."""
    found = []
    for each in metadata.distributions() if path is None else metadata.distributions(path=list(path)):
        files = each.read_text("RECORD") or each.read_text("installed-files.txt") or ""
        if re.search(r"^(?:\.\./)*rov/__init__\.py\b", files, re.MULTILINE):
            name = each.metadata["Name"] or "nameless"
            if re.sub(r"[-_.]+", "-", name).lower() != DISTRIBUTION:
                found.append(f"{name} {each.version}")
    return sorted(set(found))


def must_be_ours() -> None:
    """Raises UserError where another distribution owns the package `rov`, too."""
    if found := strangers():
        raise UserError(f"{', '.join(found)} has a package rov, too, and may replace this one: {ADVICE}")
