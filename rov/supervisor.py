"""`rov run`: starts the processes, restarts the dead and the hung, passes signals on, relays the public side, feeds the
watchdog. A process is a row of a table; the supervisor knows nothing about what it does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from rov.bus import Pub, PublicPub, Sub, inbox
from rov.bus.keys import gate_of
from rov.config import Config
from rov.errors import UserError
from rov.messages import Event, Health, PilotStatus, Tuning
from rov.saved import Saved

STARTS_MAX, STARTS_S = 5, 60.0
"""A process that dies more often than this stays down: something is wrong that starting again does not mend."""
PATIENCE_S = 5.0
"""From SIGINT to SIGKILL."""
HUNG_S = 10.0
"""A process that has said for this long nothing of its health, which it does every second, hangs."""
PILOT_HUNG_S = 1.0
"""The same for the pilot, which says its status five times a second."""
PILOT_START_S = 3.0
"""A pilot that was started again may take so long to speak, its thrusters neutral by the board's own watchdog. It takes
0.6 s on a laptop, its files being in memory already; a small computer is some times slower. Meanwhile the watchdog is
fed for it, or systemd would end the recording and the warm network, too; afterwards systemd starts all of it again."""
PILOT_FIRST_S = 1.0
"""The others start when the pilot has spoken, or after this: five at once on a small computer make it twice as late."""
READY_S = 60.0
"""So long a process may take before it says anything: torch takes 10 s to load on a small computer."""
ASLEEP_S = 0.5
"""A loop that took longer was not running; what it missed is nobody else's silence."""
FEED_S = 0.25
"""The watchdog is fed this often: a quarter of what the unit allows."""
PREFIX = "rov-run-"


class Child(NamedTuple):
    """One process of the daemon."""

    name: str
    vital: bool
    """Whether the daemon is over when it stays down."""
    hung_s: float


CHILDREN = (
    Child("pilotd", True, PILOT_HUNG_S),
    Child("camerad", False, HUNG_S),
    Child("recorderd", False, HUNG_S),
    Child("perceptiond", False, HUNG_S),
    Child("machined", False, HUNG_S),
)
"""In the order they are started."""
LAST = "recorderd"
"""Stopped after the others, whose last words it records."""


class Running:
    """A child and its history."""

    def __init__(self, child: Child, arguments: list[str], peer: list[str] | None = None):
        """`peer`: a command that takes its place; it gets the same arguments, and speaks the same messages."""
        self.child = child
        self.command = [*(peer or [sys.executable, "-m", f"rov.{child.name}"]), *arguments]
        self.starts: deque[float] = deque(maxlen=STARTS_MAX)
        self.process: subprocess.Popen[bytes] | None = None
        self.given_up = False
        self.heard: float | None = None
        """When it last said that it is well; None: not since it was started."""

    def hear(self, t: int, now: float) -> None:
        """It said at `t` ns that it is well; what came late from the one before does not count."""
        if t > self.starts[-1] * 1e9:
            self.heard = now

    def start(self) -> None:
        self.starts.append(time.monotonic())
        self.heard = None
        self.process = subprocess.Popen(self.command, start_new_session=True)  # Ctrl-C is ours to pass on

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def worn_out(self) -> bool:
        return len(self.starts) == STARTS_MAX and time.monotonic() - self.starts[0] < STARTS_S

    def starting(self, now: float) -> bool:
        """Whether it was started a moment ago, and need not have spoken yet."""
        return self.alive and self.heard is None and now - self.starts[-1] < PILOT_START_S

    def silent(self, now: float) -> float:
        """For how many s it has owed us a sign of life."""
        if self.heard is None:
            return max(0.0, now - self.starts[-1] - READY_S + self.child.hung_s)
        return now - self.heard


def run(config_path: Path, config: Config, tell: Callable[[str], None]) -> int:
    """Run until a signal or until a vital process stays down; returns the exit code. Raises UserError where another
    daemon has the endpoints."""
    stopped, asked = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    at_terminal = os.isatty(0)
    # SIGHUP asks to read the configuration again, unless it says that the terminal we were started from is gone.
    signal.signal(signal.SIGHUP, lambda *_: (stopped if at_terminal and not os.isatty(0) else asked).set())
    peers = {"camerad": peer_of(config.camera.source)}
    refuse_taken(config.bus.public)
    refuse_taken(config.bus.commands)
    gate = gate_of(config.bus.keys)
    public = PublicPub(config.bus.public, gate)
    with home() as root:
        mail, pub, pilot = inbox("public", root), Pub("supervisor", root), Sub(PilotStatus, root)
        saved, tunings = Saved(config_path, config, root), Sub(Tuning, root)
        arguments = [str(saved.running_path), str(root), str(os.getpid())]
        children = {child.name: Running(child, arguments, peers.get(child.name)) for child in CHILDREN}
        failed = False

        def say(level: Literal["info", "warning", "alarm"], code: str, text: str) -> None:
            pub.send(Event(t=time.monotonic_ns(), level=level, source="supervisor", code=code, text=text))

        def relay(limit: int = 256) -> None:
            """What was said inside goes out; alarms and the like also to who started us."""
            for entry in mail.read(limit):
                public.forward(entry.topic, entry.payload)
                if isinstance(entry.message, Event):
                    tell(f"{entry.message.level}: {entry.message.text}")
                elif isinstance(entry.message, Health) and entry.message.process != "pilotd":
                    children[entry.message.process].hear(entry.message.t, time.monotonic())

        children["pilotd"].start()
        tell(f"starting; listen at {config.bus.public}, command at {config.bus.commands}")
        ready, status, fed, began = False, "", 0.0, time.monotonic()
        turn = began
        while not stopped.is_set() and not failed:
            mail.wait(20)
            relay()
            again = asked.is_set()
            asked.clear()
            for message in saved.update(time.monotonic_ns(), asked=again):
                pub.send(message)
            if tunings.update(time.monotonic_ns()) and tunings.msg is not None:
                saved.hold(tunings.msg.settings)
            now = time.monotonic()
            if pilot.update(time.monotonic_ns()) and pilot.msg is not None:
                children["pilotd"].hear(pilot.msg.t, now)
            if now - turn > ASLEEP_S:
                for each in children.values():
                    each.heard = now if each.heard else None
            turn = now
            if pilot.msg is not None or now - began > PILOT_FIRST_S:
                for each in children.values():
                    if each.process is None:
                        each.start()
            for name, each in children.items():
                if each.given_up or each.process is None:
                    continue
                if each.alive and each.silent(now) > each.child.hung_s:
                    say("warning", "hung", f"{name} has said nothing for {each.silent(now):.1f} s: killed")
                    each.process.kill()
                    each.process.wait()
                if each.alive:
                    continue
                why = _why(each.process.returncode)
                if each.worn_out:
                    each.given_up, failed = True, failed or each.child.vital
                    text = f"{name} {why}, {STARTS_MAX} times within {STARTS_S:g} s: it stays down"
                    say("alarm", "gave_up", text)
                else:
                    say("warning", "restarted", f"{name} {why}: started again")
                    each.start()
            if ready and now - fed > FEED_S and children["pilotd"].starting(now):
                fed = now
                notify("WATCHDOG=1")
            if not pilot.fresh(time.monotonic_ns()) or pilot.msg is None:
                continue
            if not ready:
                ready = True
                notify("READY=1")
                tell("ready")
            if now - fed > FEED_S:
                fed = now
                notify("WATCHDOG=1")
            down = "".join(f", {name} is down" for name, each in children.items() if each.given_up)
            armed = "armed" if pilot.msg.armed else "disarmed"
            text = f"{armed} in {pilot.msg.mode.value}, operator: {pilot.msg.operator or 'none'}{down}"
            if text != status:
                status = text
                notify(f"STATUS={text}")
        notify("STOPPING=1")
        _stop(children, relay)
        relay(10_000)
        public.close()
        if gate:
            gate.close()
        mail.close()
        pub.close()
        pilot.close()
        tunings.close()
    return 1 if failed else 0


def peer_of(source: str) -> list[str] | None:
    """The command of a camera source `process:COMMAND`, which takes camerad's place; None for the sources it reads.
    Raises UserError."""
    if not source.startswith("process:"):
        return None
    try:
        return shlex.split(source.removeprefix("process:"))
    except ValueError as error:
        raise UserError(f"camera.source = {source}: the command cannot be split into words: {error}") from None


def _stop(children: dict[str, Running], relay: Callable[[], None]) -> None:
    """SIGINT to all, then to the recorder; SIGKILL to those that do not go."""
    end = time.monotonic() + PATIENCE_S
    for names in ([name for name in children if name != LAST], [LAST]):
        alive = [each.process for name in names if (each := children[name]).process and each.alive]
        for process in alive:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGCONT)  # one that was stopped must hear it too
        while time.monotonic() < end and any(process.poll() is None for process in alive):
            relay()
            notify("WATCHDOG=1")  # or it would kill the recorder while it closes the dive; TimeoutStopSec watches now
            time.sleep(0.01)
        for process in alive:
            process.kill()
            process.wait()


def _why(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


# ---- where it lives --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """A directory for the endpoints and the frame ring, in memory, ours as long as it is locked; what others left
    unlocked is removed. Raises UserError where none can be made."""
    parent = Path(os.environ.get("RUNTIME_DIRECTORY") or "/dev/shm")
    _clean(parent)
    while True:
        try:
            root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise UserError(f"{parent}: frames travel through it, and {error.strerror}; mount a tmpfs there") from None
        lock = _locked(root)
        if lock is not None and root.is_dir():  # not taken for an orphan before it was locked
            break
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def _clean(parent: Path) -> None:
    """Remove directories whose supervisor is gone: it was killed, or the power was cut."""
    for root in parent.glob(f"{PREFIX}*"):
        if root.is_dir() and root.stat().st_uid == os.getuid() and (lock := _locked(root)) is not None:
            shutil.rmtree(root, ignore_errors=True)
            os.close(lock)


def _locked(root: Path) -> int | None:
    """Lock a directory; None when another has it, or it is gone."""
    try:
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def refuse_taken(endpoint: str) -> None:
    """Raises UserError where somebody listens at an endpoint already. Binding would say so for TCP only: ZeroMQ takes
    an ipc endpoint away from whoever has it."""
    scheme, _, place = endpoint.partition("://")
    if scheme == "ipc":
        family, address = socket.AF_UNIX, place
    else:
        parts = urlsplit(f"//{place}")
        host = parts.hostname or ""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = ("127.0.0.1" if host in ("*", "0.0.0.0") else host, parts.port or 0)  # type: ignore[assignment]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address)
        except OSError:
            return
    raise UserError(f"{endpoint}: is taken; is another `rov run` going? Stop it, or change [bus] in the configuration")


def notify(state: str) -> None:
    """Tell systemd, where it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address[0] == "@" else address)
            channel.send(state.encode())
