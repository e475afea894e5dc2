"""The optional parts of the package: what is installed with `pip install 'rov-autopilot[vision]'`."""

from __future__ import annotations

DISTRIBUTION = "rov-autopilot"
"""The name that pip knows. On PyPI, `rov` is a program for another trade."""
EXTRAS = {
    "torch": "vision",
    "matplotlib": "report",
    "torchvision": "train",
    "sklearn": "train",
    "tensorboard": "train",
}
"""Module, and the extra that installs it."""


def explained(error: ModuleNotFoundError) -> str:
    """What to install when importing an optional module failed, as a sentence; "" for any other module."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return ""
    return f"this needs {module}, which is not installed here: pip install '{DISTRIBUTION}[{EXTRAS[module]}]'"
