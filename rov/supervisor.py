"""`rov run`: starts the processes, restarts the dead and the hung, passes signals on, feeds the watchdog. A process is
a row of a table; the supervisor knows nothing about what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rov.bus import Publisher, Reader, Subscriber, inbox, prove
from rov.bus.keys import gate_of
from rov.config.schema import Config
from rov.config.watcher import ConfigWatcher
from rov.errors import UserError
from rov.messages import ActiveSettings, Event, Frame, Health, Message, PilotStatus
from rov.service import external_command
from rov.service.child_process import RETRY_S, STARTS_MAX, STARTS_S, ChildProcess, ChildSpec
from rov.service.process import raise_descriptor_limit
from rov.service.runtime_directory import home
from rov.service.systemd import Systemd
from rov.validate import load_checked

PATIENCE_S = 5.0
"""From the signal to end to SIGKILL."""
LAST_PATIENCE_S = 5.0
"""The same for the recorder, whose time begins when the others are gone. Both together are less than the unit's
TimeoutStopSec."""
GONE_S = 0.5
"""How long SIGKILL is waited for. What hangs in a driver is left to the kernel."""
STUCK_S = 2.0
"""What does not end within this after SIGKILL hangs in a driver."""
HUNG_S = 10.0
"""A process that has said for this long nothing of its health, which it does every second, hangs."""
PILOT_HUNG_S = 1.0
"""The same for the pilot, which says its status five times a second."""
FRONT_HUNG_S = 3.0
"""The same for those that strangers reach: nobody else lets an operator in."""
PILOT_FIRST_S = 1.0
"""The others start when the pilot has spoken, or after this: five at once on a small computer make it twice as late."""
ASLEEP_S = 0.5
"""A loop that took longer was not running; what it missed is nobody else's silence."""
FEED_S = 0.25
"""The watchdog is fed this often: a quarter of what the unit allows."""
MAIL_MAX = 64
"""Messages heard in one turn of the loop."""
PRINTED_PER_S = 20
"""Lines for who started us: a terminal may be slow, and we feed the watchdog."""
PUBLIC_PATIENCE_S = 1.0
"""From SIGINT to SIGKILL, of the public side."""

CHILDREN = (
    ChildSpec("pilotd", vital=True, hung_s=PILOT_HUNG_S),
    ChildSpec("commandd", vital=False, hung_s=FRONT_HUNG_S, endless=True),
    ChildSpec("publicd", vital=False, hung_s=FRONT_HUNG_S, endless=True),
    ChildSpec("camerad", vital=False, hung_s=HUNG_S),
    ChildSpec("recorderd", vital=False, hung_s=HUNG_S),
    ChildSpec("perceptiond", vital=False, hung_s=HUNG_S),
    ChildSpec("hostd", vital=False, hung_s=HUNG_S),
)
"""In the order they are started. `pilotd` comes first, alone, and it is for it that the watchdog is fed."""
LAST = ("recorderd", "publicd")
"""Stopped after the others, one by one: they record, and pass on, the last words of those."""
ALONGSIDE = ("commandd", "publicd")
"""Started together with the pilot: somebody may want to stop it."""


def run(config_path: Path, config: Config, tell: Callable[[str], None], overrides: Sequence[str] = ()) -> int:
    """Run until a signal or until a vital process stays down; returns the exit code. `overrides`: `section.key=value`
    settings that are in `config` already, and hold over each edit, too. Raises UserError where another daemon has the
    endpoints."""
    signals = Signals()
    raise_descriptor_limit()
    keep_descriptors()
    peers = {"camerad": peer_of(config.camera.source)}
    gate = gate_of(config.bus.keys)
    for endpoint in (config.bus.public, config.bus.commands):
        refuse_taken(endpoint)
        prove(endpoint, gate)
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(home())
        saved = ConfigWatcher(config_path, config, root, partial(load_checked, overrides=overrides))
        supervisor = stack.enter_context(contextlib.closing(Supervisor(saved, root, peers, signals, tell)))
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
        saved: ConfigWatcher,
        root: Path,
        peers: dict[str, list[str] | None],
        signals: Signals,
        tell: Callable[[str], None],
    ):
        """`root`: the directory of the endpoints. `peers`: commands that take a child's place. `tell`: says a line to
        who started us."""
        self.config_watcher, self.signals, self.print_line = saved, signals, tell
        self.systemd = Systemd()
        self.mail: Reader = inbox("supervisor", root)
        self.pub, self.pilot, self.settings = (
            Publisher("supervisor", root),
            Subscriber(PilotStatus, root),
            Subscriber(ActiveSettings, root),
        )
        arguments = [str(saved.running_path), str(root)]
        self.children = {child.name: ChildProcess(child, arguments, peers.get(child.name)) for child in CHILDREN}
        self.failed, self.ready, self.status = False, False, ""
        self.dive: Path | None = None
        """What the recorder last said that it writes, and when."""
        self.dive_t = 0.0
        self.began = self.loop_t = time.monotonic()
        self.fed = self.printed_t = 0.0
        self.printed = 0
        """Lines of the second that began at `told_t`."""

    def run(self) -> int:
        """Until a signal, or until a vital process stays down; returns the exit code."""
        self.begin()
        while not self.signals.stopped.is_set() and not self.failed:
            self.mail.wait(20)
            self.receive()
            self.watch_config()
            now = time.monotonic()
            self.receive_pilot(now)
            self.forgive_sleep(now)
            self.start_due(now)
            self.kill_hung(now)
            self.reap(now)
            self.feed_watchdog(now)
            self.report_status()
        self.systemd.notify("STOPPING=1")
        self.stop()
        self.print_line(self.summary())
        return 1 if self.failed else 0

    def begin(self) -> None:
        for name in ("pilotd", *ALONGSIDE):
            self.children[name].start(time.monotonic())
        bus = self.config_watcher.config.bus
        self.print_line(f"starting; listen at {bus.public}, command at {bus.commands}")
        if not bus.keys:
            self.print_line("without keys, every user of this machine may command; `rov keys` makes them, for bus.keys")

    def receive(self, limit: int = MAIL_MAX) -> None:
        """What was said to us."""
        for entry in self.mail.receive(limit):
            self.handle(entry.message)

    def handle(self, message: Message) -> None:
        """Alarms and the like go also to who started us; who is well does not hang."""
        if isinstance(message, Event):
            self.print_event(f"{message.level} {message.code}: {message.text} ({message.source})")
            if message.code == "recording":
                self.dive, self.dive_t = Path(message.text.removeprefix("recording to ")), time.monotonic()
        elif isinstance(message, Frame):
            self.children["camerad"].receive_health(
                message.t, time.monotonic()
            )  # a command in its place may say nothing else
        elif isinstance(message, Health) and message.process != "pilotd":
            for each in self.senders(message.process):
                each.receive_health(message.t, time.monotonic())

    def senders(self, name: str) -> Iterable[ChildProcess]:
        """Who is it that calls itself so? A command in a child's place may have a name of its own."""
        if name in self.children:
            return [self.children[name]]
        return [each for each in self.children.values() if each.foreign]

    def print_event(self, text: str) -> None:
        """So many lines a second; of the others their number."""
        now = time.monotonic()
        if now - self.printed_t > 1.0:
            untold, self.printed_t, self.printed = self.printed - PRINTED_PER_S, now, 0
            if untold > 0:
                self.print_line(f"… and {untold} more events")
        self.printed += 1
        if self.printed <= PRINTED_PER_S:
            self.print_line(text)

    def watch_config(self) -> None:
        """Say what is saved in the configuration, and take note of what holds."""
        for message in self.config_watcher.poll(time.monotonic_ns(), asked=self.signals.reload()):
            self.pub.publish(message)
        if self.settings.receive(time.monotonic_ns()) and self.settings.message is not None:
            self.config_watcher.keep_active(self.settings.message.settings)

    def receive_pilot(self, now: float) -> None:
        if self.pilot.receive(time.monotonic_ns()) and self.pilot.message is not None:
            self.children["pilotd"].receive_health(self.pilot.message.t, now)

    def forgive_sleep(self, now: float) -> None:
        """When it was us who did not run, nobody was silent."""
        if now - self.loop_t > ASLEEP_S:
            for each in self.children.values():
                each.heard = now if each.heard else None
        self.loop_t = now

    def start_due(self, now: float) -> None:
        """Start the others once the pilot has spoken."""
        if self.pilot.message is not None or now - self.began > PILOT_FIRST_S:
            for each in self.children.values():
                if not each.started:
                    each.start(now)
                elif each.due is not None and now >= each.due:
                    self.restart(each, now)

    def kill_hung(self, now: float) -> None:
        for name, each in self.children.items():
            if each.hung(now):
                self.publish_event("warning", "hung", f"{name} has said nothing for {each.silent(now):.1f} s: killed")
                each.kill(now)
            if each.alive and each.killed and now - each.killed > STUCK_S and not each.stuck:
                each.stuck = True
                self.publish_event(
                    "alarm", "stuck", f"{name} was killed and does not end: it hangs in a driver or on a disk"
                )

    def reap(self, now: float) -> None:
        """What died is started again: at once, or after a rest when it dies too often."""
        for each in self.children.values():
            if each.started and each.due is None and not each.alive:
                self.handle_exit(each, now)
            elif each.given_up and each.heard is not None:
                each.given_up = False
                self.publish_event("info", "gave_up_over", f"{each.child.name} runs again")

    def handle_exit(self, each: ChildProcess, now: float) -> None:
        name, pause = each.child.name, each.pause(now)
        if each.given_up:
            each.due = now + RETRY_S  # as it was said
        elif each.worn_out(now):
            each.given_up, self.failed = True, self.failed or each.child.vital
            each.due = now + RETRY_S
            then = "it stays down" if each.child.vital else f"it is tried again every {RETRY_S:g} s"
            self.publish_event(
                "alarm", "gave_up", f"{name} {each.why}, {STARTS_MAX} times within {STARTS_S:g} s: {then}"
            )
        elif pause:
            each.due = now + pause
        else:
            self.restart(each, now)

    def restart(self, each: ChildProcess, now: float) -> None:
        if not each.given_up:  # that was said, and that it is tried again and again
            self.publish_event("warning", "restarted", f"{each.child.name} {each.why}: started again")
        each.start(now)

    def feed_watchdog(self, now: float) -> None:
        """Only while the pilot proves that it is alive, or is given a moment to start again."""
        fresh = self.pilot.fresh(time.monotonic_ns())
        if fresh and not self.ready:
            self.ready = self.systemd.notify("READY=1")
            if self.ready:
                self.print_line("ready")
        if now - self.fed > FEED_S and (fresh or (self.ready and self.children["pilotd"].starting(now))):
            self.fed = now
            self.systemd.notify("WATCHDOG=1")

    def report_status(self) -> None:
        """One line for `systemctl status`."""
        pilot = self.pilot.message
        if pilot is None or not self.pilot.fresh(time.monotonic_ns()):
            return
        down = "".join(f", {name} is down" for name, each in self.children.items() if each.given_up)
        armed = "armed" if pilot.armed else "disarmed"
        text = f"{armed} in {pilot.mode.value}, operator: {pilot.operator or 'none'}{down}"
        if text != self.status and self.systemd.notify(f"STATUS={text}"):
            self.status = text

    def stop(self) -> None:
        """End all, and then the recorder and the public side, each with a time of its own."""
        self.end([each for name, each in self.children.items() if name not in LAST], PATIENCE_S)
        for name, patience_s in zip(LAST, (LAST_PATIENCE_S, PUBLIC_PATIENCE_S), strict=True):
            self.end([self.children[name]], patience_s)
        self.receive(10_000)

    def end(self, running: list[ChildProcess], patience_s: float) -> None:
        """Ask them to end; SIGKILL to those that do not go."""
        for each in running:
            each.end()
        self.wait_for(running, patience_s)
        for each in running:
            each.kill(time.monotonic())
        self.wait_for(running, GONE_S)

    def wait_for(self, running: list[ChildProcess], seconds: float) -> None:
        """Until they are gone, at most for so long. What they say meanwhile is passed on."""
        end = time.monotonic() + seconds
        while any(each.alive for each in running) and time.monotonic() < end:
            self.receive()
            self.systemd.notify("WATCHDOG=1")  # or it would kill the recorder while it closes the dive
            time.sleep(0.01)

    def summary(self) -> str:
        if self.dive is None or not self.dive.is_file():
            return "stopped"
        seconds, megabytes = time.monotonic() - self.dive_t, self.dive.stat().st_size / 1e6
        return f"stopped; {self.dive}, {seconds:.0f} s, {megabytes:.1f} MB"

    def publish_event(self, level: Literal["info", "warning", "alarm"], code: str, text: str) -> None:
        self.pub.publish(Event(t=time.monotonic_ns(), level=level, source="supervisor", code=code, text=text))

    def close(self) -> None:
        for each in (self.mail, self.pub, self.pilot, self.settings, self.systemd):
            each.close()


def peer_of(source: str) -> list[str] | None:
    """The command of a camera source `process:COMMAND`, which takes camerad's place; None for the sources it reads.
    Raises UserError."""
    if not source.startswith("process:"):
        return None
    return external_command.split(f"camera.source = {source}", source.removeprefix("process:"))


def keep_descriptors() -> None:
    """What we were given stays ours: children inherit standard input, output and error."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            os.set_inheritable(int(name), int(name) < 3)


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
