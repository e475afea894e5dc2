"""`python -m rov` is `rov`. Ctrl-C is quiet while it imports, which takes half of a second."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rov.cli.app import main as app

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
