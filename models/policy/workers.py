"""Worker processes of the stages."""

from __future__ import annotations

import signal

import torch


def quiet() -> None:
    """Set up a worker: one thread; only the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
