"""`rov run`: starts the processes, restarts the dead and the hung, passes signals on, feeds the watchdog. A process is
a row of a table; the supervisor knows nothing about what it does."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rov.bus import Pub, Reader, Sub, inbox, prove
from rov.bus.keys import gate_of
from rov.child import STARTS_MAX, STARTS_S, Child, Running
from rov.config import Config
from rov.errors import UserError
from rov.home import home
from rov.messages import Event, Health, Message, PilotStatus, Tuning
from rov.saved import Saved
from rov.systemd import notify

PATIENCE_S = 5.0
"""From SIGINT to SIGKILL."""
HUNG_S = 10.0
"""A process that has said for this long nothing of its health, which it does every second, hangs."""
PILOT_HUNG_S = 1.0
"""The same for the pilot, which says its status five times a second."""
FRONT_HUNG_S = 2.0
"""The same for those that strangers reach: nobody else lets an operator in."""
PILOT_FIRST_S = 1.0
"""The others start when the pilot has spoken, or after this: five at once on a small computer make it twice as late."""
ASLEEP_S = 0.5
"""A loop that took longer was not running; what it missed is nobody else's silence."""
FEED_S = 0.25
"""The watchdog is fed this often: a quarter of what the unit allows."""
MAIL_MAX = 64
"""Messages heard in one turn of the loop."""
TOLD_PER_S = 20
"""Lines for who started us: a terminal may be slow, and we feed the watchdog."""

CHILDREN = (
    Child("pilotd", vital=True, hung_s=PILOT_HUNG_S),
    Child("commandd", vital=False, hung_s=FRONT_HUNG_S, endless=True),
    Child("publicd", vital=False, hung_s=FRONT_HUNG_S, endless=True),
    Child("camerad", vital=False, hung_s=HUNG_S),
    Child("recorderd", vital=False, hung_s=HUNG_S),
    Child("perceptiond", vital=False, hung_s=HUNG_S),
    Child("machined", vital=False, hung_s=HUNG_S),
)
"""In the order they are started. `pilotd` comes first, alone, and it is for it that the watchdog is fed."""
LAST = ("recorderd", "publicd")
"""Stopped after the others, one by one: they record, and pass on, the last words of those."""
ALONGSIDE = ("commandd", "publicd")
"""Started together with the pilot: somebody may want to stop it."""


def run(config_path: Path, config: Config, tell: Callable[[str], None]) -> int:
    """Run until a signal or until a vital process stays down; returns the exit code. Raises UserError where another
    daemon has the endpoints."""
    signals = Signals()
    peers = {"camerad": peer_of(config.camera.source)}
    gate = gate_of(config.bus.keys)
    for endpoint in (config.bus.public, config.bus.commands):
        refuse_taken(endpoint)
        prove(endpoint, gate)
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(home())
        supervisor = stack.enter_context(
            contextlib.closing(Supervisor(config_path, config, root, peers, signals, tell))
        )
        return supervisor.run()


class Signals:
    """What was asked of us by signals: to stop, or to read the configuration again."""

    def __init__(self) -> None:
        self.stopped, self.asked = threading.Event(), threading.Event()
        at_terminal = os.isatty(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopped.set())
        # SIGHUP asks to read the configuration again, unless it says that the terminal we were started from is gone.
        signal.signal(
            signal.SIGHUP, lambda *_: (self.stopped if at_terminal and not os.isatty(0) else self.asked).set()
        )

    def reload(self) -> bool:
        """Was it asked for since the last call?"""
        asked = self.asked.is_set()
        self.asked.clear()
        return asked


class Supervisor:
    """The processes and what is said of them."""

    def __init__(
        self,
        config_path: Path,
        config: Config,
        root: Path,
        peers: dict[str, list[str] | None],
        signals: Signals,
        tell: Callable[[str], None],
    ):
        """`root`: the directory of the endpoints. `peers`: commands that take a child's place. `tell`: says a line to
        who started us."""
        self.config, self.signals, self.tell = config, signals, tell
        self.mail: Reader = inbox("supervisor", root)
        self.pub, self.pilot, self.tunings = Pub("supervisor", root), Sub(PilotStatus, root), Sub(Tuning, root)
        self.saved = Saved(config_path, config, root)
        arguments = [str(self.saved.running_path), str(root), str(os.getpid())]
        self.children = {child.name: Running(child, arguments, peers.get(child.name)) for child in CHILDREN}
        self.failed, self.ready, self.status = False, False, ""
        self.began = self.turn = time.monotonic()
        self.fed = self.told_t = 0.0
        self.told = 0
        """Lines of the second that began at `told_t`."""

    def run(self) -> int:
        """Until a signal, or until a vital process stays down; returns the exit code."""
        self.begin()
        while not self.signals.stopped.is_set() and not self.failed:
            self.mail.wait(20)
            self.hear_all()
            self.watch_config()
            now = time.monotonic()
            self.hear_pilot(now)
            self.forgive_sleep(now)
            self.start_due(now)
            self.kill_hung(now)
            self.reap()
            self.feed_watchdog(now)
            self.report_status()
        notify("STOPPING=1")
        self.stop()
        return 1 if self.failed else 0

    def begin(self) -> None:
        for name in ("pilotd", *ALONGSIDE):
            self.children[name].start()
        self.tell(f"starting; listen at {self.config.bus.public}, command at {self.config.bus.commands}")

    def hear_all(self, limit: int = MAIL_MAX) -> None:
        """What was said to us."""
        for entry in self.mail.read(limit):
            self.hear(entry.message)

    def hear(self, message: Message) -> None:
        """Alarms and the like go also to who started us; who is well does not hang."""
        if isinstance(message, Event):
            self.pass_on(f"{message.level}: {message.text}")
        elif isinstance(message, Health) and message.process != "pilotd":
            self.children[message.process].hear(message.t, time.monotonic())

    def pass_on(self, text: str) -> None:
        """So many lines a second; of the others their number."""
        now = time.monotonic()
        if now - self.told_t > 1.0:
            untold, self.told_t, self.told = self.told - TOLD_PER_S, now, 0
            if untold > 0:
                self.tell(f"… and {untold} more events")
        self.told += 1
        if self.told <= TOLD_PER_S:
            self.tell(text)

    def watch_config(self) -> None:
        """Say what is saved in the configuration, and take note of what holds."""
        for message in self.saved.update(time.monotonic_ns(), asked=self.signals.reload()):
            self.pub.send(message)
        if self.tunings.update(time.monotonic_ns()) and self.tunings.msg is not None:
            self.saved.hold(self.tunings.msg.settings)

    def hear_pilot(self, now: float) -> None:
        if self.pilot.update(time.monotonic_ns()) and self.pilot.msg is not None:
            self.children["pilotd"].hear(self.pilot.msg.t, now)

    def forgive_sleep(self, now: float) -> None:
        """When it was us who did not run, nobody was silent."""
        if now - self.turn > ASLEEP_S:
            for each in self.children.values():
                each.heard = now if each.heard else None
        self.turn = now

    def start_due(self, now: float) -> None:
        """Start the others once the pilot has spoken."""
        if self.pilot.msg is not None or now - self.began > PILOT_FIRST_S:
            for each in self.children.values():
                if each.process is None:
                    each.start()

    def kill_hung(self, now: float) -> None:
        for name, each in self.children.items():
            if not each.given_up and each.hung(now):
                self.say("warning", "hung", f"{name} has said nothing for {each.silent(now):.1f} s: killed")
                each.kill()

    def reap(self) -> None:
        """Start the dead again, unless they die too often."""
        for name, each in self.children.items():
            if each.given_up or each.process is None or each.alive:
                continue
            if each.worn_out and each.child.endless:
                if each.pausing(time.monotonic()):
                    continue
                each.start()  # said often enough
            elif each.worn_out:
                each.given_up, self.failed = True, self.failed or each.child.vital
                text = f"{name} {each.why}, {STARTS_MAX} times within {STARTS_S:g} s: it stays down"
                self.say("alarm", "gave_up", text)
            else:
                self.say("warning", "restarted", f"{name} {each.why}: started again")
                each.start()

    def feed_watchdog(self, now: float) -> None:
        """Only while the pilot proves that it is alive, or is given a moment to start again."""
        fresh = self.pilot.fresh(time.monotonic_ns())
        if fresh and not self.ready:
            self.ready = True
            notify("READY=1")
            self.tell("ready")
        if now - self.fed > FEED_S and (fresh or (self.ready and self.children["pilotd"].starting(now))):
            self.fed = now
            notify("WATCHDOG=1")

    def report_status(self) -> None:
        """One line for `systemctl status`."""
        pilot = self.pilot.msg
        if pilot is None or not self.pilot.fresh(time.monotonic_ns()):
            return
        down = "".join(f", {name} is down" for name, each in self.children.items() if each.given_up)
        armed = "armed" if pilot.armed else "disarmed"
        text = f"{armed} in {pilot.mode.value}, operator: {pilot.operator or 'none'}{down}"
        if text != self.status:
            self.status = text
            notify(f"STATUS={text}")

    def stop(self) -> None:
        """SIGINT to all, then to the recorder; SIGKILL to those that do not go."""
        end = time.monotonic() + PATIENCE_S
        for names in ([name for name in self.children if name not in LAST], *([name] for name in LAST)):
            alive = [each.process for name in names if (each := self.children[name]).process and each.alive]
            for process in alive:
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGCONT)  # one that was stopped must hear it too
            while time.monotonic() < end and any(process.poll() is None for process in alive):
                self.hear_all()
                notify("WATCHDOG=1")  # or it would kill the recorder while it closes the dive; TimeoutStopSec watches
                time.sleep(0.01)
            for process in alive:
                process.kill()
                process.wait()
        self.hear_all(10_000)

    def say(self, level: Literal["info", "warning", "alarm"], code: str, text: str) -> None:
        self.pub.send(Event(t=time.monotonic_ns(), level=level, source="supervisor", code=code, text=text))

    def close(self) -> None:
        for socket_ in (self.mail, self.pub, self.pilot, self.tunings):
            socket_.close()


def peer_of(source: str) -> list[str] | None:
    """The command of a camera source `process:COMMAND`, which takes camerad's place; None for the sources it reads.
    Raises UserError."""
    if not source.startswith("process:"):
        return None
    try:
        return shlex.split(source.removeprefix("process:"))
    except ValueError as error:
        raise UserError(f"camera.source = {source}: the command cannot be split into words: {error}") from None


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
