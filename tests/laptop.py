"""A laptop without what Linux has: `python -m tests.laptop dive info dive.mcap` runs `rov` without the names that macOS
or Windows lack; several commands, with `:` between them, run one after another.
"""

import builtins
import io
import os
import select
import signal
import sys
import warnings
from typing import Any

MODULES = ("fcntl", "termios", "tty", "pty", "resource", "pwd", "grp")
NAMES: dict[Any, tuple[str, ...]] = {
    os: (
        "getuid", "geteuid", "sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "sched_getscheduler",
        "setpriority", "posix_fallocate", "sysconf", "killpg", "mkfifo", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY",
        "O_DIRECTORY", "O_NOFOLLOW",
    ),
    signal: ("SIGHUP", "SIGKILL", "SIGCONT"),
    select: ("epoll", "poll", "EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLHUP", "EPOLLERR", "EPOLLONESHOT"),
}  # fmt: skip
PLACES = ("/proc", "/dev/shm", "/sys")


def forget() -> None:
    """Take the names away from this process."""
    import selectors  # of Python itself; it chooses by what is there when it is imported
    import subprocess

    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[misc]
    assert subprocess.Popen  # Python's own modules keep what they need
    for module in MODULES:
        sys.modules[module] = None  # type: ignore[assignment]
    for where, names in NAMES.items():
        for name in names:
            if hasattr(where, name):
                delattr(where, name)
    for where, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "listdir"), (os, "scandir"),
                        (os, "access"), (os, "lstat"), (os, "readlink")):  # fmt: skip
        setattr(where, name, blind(getattr(where, name)))
    warnings.filterwarnings("ignore", category=EncodingWarning)
    warnings.filterwarnings("error", category=EncodingWarning, module=r"rov\b")  # its encoding would be the system's


def blind(function: Any) -> Any:
    """The same function, for which the places of Linux do not exist."""

    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(path, int) and os.fsdecode(path).startswith(PLACES):
            if function.__name__ == "access":
                return False
            raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))
        return function(path, *arguments, **options)

    return call


class Console:
    """The two functions of msvcrt that read a console's keys, for a standard input in raw mode."""

    @staticmethod
    def kbhit() -> bool:
        return bool(select.select([0], [], [], 0)[0])

    @staticmethod
    def getwch() -> str:
        return os.read(0, 1).decode("latin-1")


if __name__ == "__main__":
    forget()
    sys.modules["msvcrt"] = Console  # type: ignore[assignment]
    from rov.__main__ import main

    for words in " ".join(sys.argv[1:]).split(" : "):
        sys.argv[1:] = words.split()
        try:
            main()
        except SystemExit as end:
            print(f"exit {end.code}: {words}", flush=True)
    sys.exit(0)
