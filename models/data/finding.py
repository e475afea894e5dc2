"""Finds the picture that a label file names: labels come from other machines, other folders and web tools."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from models.data.errors import DataError
from rov.media.files import images_in

UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded picture."""


class PictureFinder:
    """The pictures below a folder, by the end of their path."""

    def __init__(self, root: Path):
        """Raises DataError when the folder holds no pictures."""
        self.root = root
        self._by_name: defaultdict[str, list[Path]] = defaultdict(list)
        for path in images_in(root):
            for key in {_key(path.name), _key(path.stem)}:
                self._by_name[key].append(path)
        if not self._by_name:
            raise DataError(f"{root}: holds no pictures; --images names the folder that does")

    def find(self, name: str) -> Path:
        """The picture of this name, which may be a path or address of elsewhere: the one that shares the longest end of
        its path. Raises DataError when there is none, or several."""
        parts = _parts(name)
        if not parts:
            raise DataError(f"{name!r} is no name of a picture")
        direct = self.root.joinpath(*parts)
        if direct.is_file():
            return direct
        last = _key(parts[-1])
        tries = (last, UPLOAD.sub("", last), PurePosixPath(last).stem)
        candidates = next((self._by_name[each] for each in tries if each in self._by_name), [])
        if not candidates:
            raise DataError(f"{name}: no such picture below {self.root}")
        shares = {path: _shared(path.parts[:-1], parts[:-1]) for path in candidates}
        best = [path for path in candidates if shares[path] == max(shares.values())]
        if len(best) > 1:
            there = ", ".join(str(path.relative_to(self.root)) for path in best[:3])
            raise DataError(f"{name}: several pictures have this name: {there}")
        return best[0]

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _key(name: str) -> str:
    """One spelling of a name: letters with accents are stored in two ways."""
    return unicodedata.normalize("NFC", name).lower()


def _parts(name: str) -> tuple[str, ...]:
    """The folders and name of a path in any notation, or of an address."""
    if "://" in name or "?d=" in name:
        address = urlsplit(name)
        name = address.query.removeprefix("d=") if address.query.startswith("d=") else address.path
        name = unquote(name)
    path = PurePosixPath(name.strip().replace("\\", "/"))
    return tuple(part for part in path.parts if part not in ("/", ".", "..") and not part.endswith(":"))


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x.lower() != y.lower():
            break
        count += 1
    return count
