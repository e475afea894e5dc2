"""Finds the project's own files: in the checkout first, else in the installed package."""

from __future__ import annotations

import logging
from pathlib import Path

from rov.errors import UserError

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent


class ResourceError(UserError):
    """A file of the project was not found anywhere."""


def checkout() -> Path:
    """Root of the checkout this code runs from (without a checkout: the folder above the package)."""
    return PACKAGE.parent


def find_resource(name: str, beside: Path | None = None) -> Path:
    """The file `name`, relative to the folder `beside`, else to the checkout, else in the package. Raises
    ResourceError."""
    places = [place / name for place in (beside, checkout(), PACKAGE / "assets") if place is not None]
    for path in places:
        if path.is_file():
            log.debug("%s is %s", name, path)
            return path
    raise ResourceError(f"{name}: not found; looked for {' and '.join(str(path) for path in places)}")
