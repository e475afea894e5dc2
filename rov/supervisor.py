"""`rov run`: starts the processes, restarts dead and hung ones, passes signals on, feeds the watchdog. Each process is
a row of a table; the supervisor knows nothing about its work."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rov.bus import Publisher, Reader, Subscriber, inbox
from rov.bus.keys import gate_of
from rov.bus.public_server import prove
from rov.config.schema import Config
from rov.config.watcher import ConfigWatcher
from rov.errors import UserError
from rov.messages import ActiveSettings, Event, Frame, Health, Message, PilotStatus
from rov.service import external_command
from rov.service.child_process import RETRY_S, STARTS_MAX, STARTS_S, ChildProcess, ChildSpec
from rov.service.log import report
from rov.service.process import Flag, raise_descriptor_limit
from rov.service.runtime_directory import home
from rov.service.systemd import Systemd
from rov.validate import load_checked

log = logging.getLogger(__name__)

NAME = "supervisor"
"""Source of our own lines and events."""
PATIENCE_S = 5.0
"""Time between the signal to end and SIGKILL."""
LAST_PATIENCE_S = 5.0
"""The same for the recorder, counted from the end of the others. Both together are less than the unit's
TimeoutStopSec."""
GONE_S = 0.5
"""How long we wait after SIGKILL. A process that hangs in a driver is left to the kernel."""
STUCK_S = 2.0
"""A process that still exists this long after SIGKILL hangs in a driver."""
HUNG_S = 10.0
"""A process hangs when it has not published Health, which it does every second, for this long."""
PILOT_HUNG_S = 1.0
"""The same for the pilot, which publishes its status five times a second."""
FRONT_HUNG_S = 3.0
"""The same for the processes that strangers reach: operators can enter only through them."""
PILOT_FIRST_S = 1.0
"""The others start after the pilot's first status, or after this: on a small computer, starting five processes at once
doubles the pilot's start-up time."""
ASLEEP_S = 0.5
"""If one loop took longer than this, we were suspended: restart the hang timers instead of killing children."""
FEED_S = 0.25
"""How often the watchdog is fed: a quarter of the unit's limit."""
MAIL_MAX = 64
"""Messages received in one pass of the loop."""
PRINTED_PER_S = 20
"""Lines printed per second: a terminal may be slow, and this loop feeds the watchdog."""
PUBLIC_PATIENCE_S = 1.0
"""Time between SIGTERM and SIGKILL for publicd."""

CHILDREN = (
    ChildSpec("pilotd", vital=True, hung_s=PILOT_HUNG_S),
    ChildSpec("commandd", vital=False, hung_s=FRONT_HUNG_S, endless=True),
    ChildSpec("publicd", vital=False, hung_s=FRONT_HUNG_S, endless=True),
    ChildSpec("camerad", vital=False, hung_s=HUNG_S),
    ChildSpec("recorderd", vital=False, hung_s=HUNG_S),
    ChildSpec("perceptiond", vital=False, hung_s=HUNG_S),
    ChildSpec("hostd", vital=False, hung_s=HUNG_S),
)
"""In the order they are started. `pilotd` comes first; we feed the watchdog while it is alive."""
LAST = ("recorderd", "publicd")
"""Stopped after the others, one by one, to record and pass on the last messages of those."""
ALONGSIDE = ("commandd", "publicd")
"""Started together with the pilot: somebody may want to stop it at once."""


def run(config_path: Path, config: Config, overrides: Sequence[str] = ()) -> int:
    """Run until a signal, or until a vital process is given up; returns the exit code. `overrides`: `section.key=value`
    settings, already part of `config`, that also win over each later edit. Raises UserError when another daemon has the
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
        watcher = ConfigWatcher(config_path, config, root, partial(load_checked, overrides=overrides))
        supervisor = stack.enter_context(contextlib.closing(Supervisor(watcher, root, peers, signals)))
        return supervisor.run()


class Signals:
    """Requests that came as signals: to stop, or to read the configuration again."""

    def __init__(self) -> None:
        self.stopped, self.asked = Flag(), Flag()
        at_terminal = os.isatty(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopped.set())
        # SIGHUP asks to read the configuration again, unless the terminal we were started from has closed.
        signal.signal(
            signal.SIGHUP, lambda *_: (self.stopped if at_terminal and not os.isatty(0) else self.asked).set()
        )

    def reload(self) -> bool:
        """Was a reload requested since the last call?"""
        asked = self.asked.is_set()
        self.asked.clear()
        return asked


class Supervisor:
    """The child processes and their state."""

    def __init__(
        self,
        watcher: ConfigWatcher,
        root: Path,
        peers: dict[str, list[str] | None],
        signals: Signals,
    ):
        """`root`: the directory of the endpoints. `peers`: commands that replace a child, by its name."""
        self.config_watcher, self.signals = watcher, signals
        self.systemd = Systemd()
        self.mail: Reader = inbox("supervisor", root)
        self.pub, self.pilot, self.settings = (
            Publisher("supervisor", root),
            Subscriber(PilotStatus, root),
            Subscriber(ActiveSettings, root),
        )
        arguments = [str(watcher.running_path), str(root)]
        self.children = {child.name: ChildProcess(child, arguments, peers.get(child.name)) for child in CHILDREN}
        self.failed, self.ready, self.status = False, False, ""
        self.dive: Path | None = None
        """The dive that the recorder last reported to write."""
        self.dive_t = 0.0
        """When it reported that, s."""
        self.began = self.loop_t = time.monotonic()
        self.fed = self.printed_t = 0.0
        self.printed = 0
        """Lines of the second that began at `printed_t`."""

    def run(self) -> int:
        """Run until a signal, or until a vital process is given up; returns the exit code."""
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
        self.report("info", "ended", self.summary())
        return 1 if self.failed else 0

    def begin(self) -> None:
        """Start the pilot and the public processes."""
        for name in ("pilotd", *ALONGSIDE):
            self.children[name].start(time.monotonic())
        bus = self.config_watcher.config.bus
        self.report("info", "starting", f"listen at {bus.public}, command at {bus.commands}")
        if not bus.keys:
            self.report("info", "no_keys", "every user of this machine may command; `rov keys` makes keys for bus.keys")

    def receive(self, limit: int = MAIL_MAX) -> None:
        """Handle the messages in our inbox."""
        for entry in self.mail.receive(limit):
            self.handle(entry.message)

    def handle(self, message: Message) -> None:
        """Print an event; note a sign of life of the process that sent it."""
        if isinstance(message, Event):
            self.print_event(message)
            if message.code == "recording":
                self.dive, self.dive_t = Path(message.text.removeprefix("recording to ")), time.monotonic()
        elif isinstance(message, Frame):
            # A command that replaces camerad may publish nothing else.
            self.children["camerad"].receive_health(message.t, time.monotonic())
        elif isinstance(message, Health):
            log.debug("%s: %.1f Hz, %.1f ms", message.process, message.rate_hz, message.latency_ms)
            if message.process != "pilotd":  # its status, five times a second, counts instead
                for each in self.senders(message.process):
                    each.receive_health(message.t, time.monotonic())

    def senders(self, name: str) -> Iterable[ChildProcess]:
        """The processes that a Health message of this name may come from: a command that replaces a child may use
        another name."""
        if name in self.children:
            return [self.children[name]]
        return [each for each in self.children.values() if each.foreign]

    def print_event(self, event: Event) -> None:
        """Print an event, at most PRINTED_PER_S a second; of the others print the number."""
        now = time.monotonic()
        if now - self.printed_t > 1.0:
            skipped, self.printed_t, self.printed = self.printed - PRINTED_PER_S, now, 0
            if skipped > 0:
                self.report("info", "more_events", f"… and {skipped} more events")
        self.printed += 1
        if self.printed <= PRINTED_PER_S:
            report(event.level, event.source, event.code, event.text)

    def watch_config(self) -> None:
        """Publish the saved configuration, and note the settings in force."""
        for message in self.config_watcher.poll(time.monotonic_ns(), asked=self.signals.reload()):
            self.pub.publish(message)
        if self.settings.receive(time.monotonic_ns()) and self.settings.message is not None:
            self.config_watcher.keep_active(self.settings.message.settings)

    def receive_pilot(self, now: float) -> None:
        if self.pilot.receive(time.monotonic_ns()) and self.pilot.message is not None:
            self.children["pilotd"].receive_health(self.pilot.message.t, now)

    def forgive_sleep(self, now: float) -> None:
        """After a suspension of this process, restart the hang timers of all children."""
        if now - self.loop_t > ASLEEP_S:
            for each in self.children.values():
                each.health_t = now if each.health_t else None
        self.loop_t = now

    def start_due(self, now: float) -> None:
        """Start the others once the pilot has published its status, and restart those whose pause is over."""
        if self.pilot.message is not None or now - self.began > PILOT_FIRST_S:
            for each in self.children.values():
                if not each.started:
                    each.start(now)
                elif each.due is not None and now >= each.due:
                    self.restart(each, now)

    def kill_hung(self, now: float) -> None:
        """Kill processes that hang; report those that SIGKILL does not end."""
        for name, each in self.children.items():
            if each.hung(now):
                self.publish_event("warning", "hung", f"{name} has been silent for {each.silent(now):.1f} s: killed")
                each.kill(now)
            if each.alive and each.killed and now - each.killed > STUCK_S and not each.stuck:
                each.stuck = True
                self.publish_event(
                    "alarm", "stuck", f"{name} was killed but does not end: it hangs in a driver or on a disk"
                )

    def reap(self, now: float) -> None:
        """Restart dead processes: at once, or after a pause when they die too often."""
        for each in self.children.values():
            if each.started and each.due is None and not each.alive:
                self.handle_exit(each, now)
            elif each.given_up and each.health_t is not None:
                each.given_up = False
                self.publish_event("info", "gave_up_over", f"{each.child.name} runs again")

    def handle_exit(self, each: ChildProcess, now: float) -> None:
        """Decide whether a dead process is restarted now, later, or given up."""
        name, pause = each.child.name, each.pause(now)
        if each.given_up:
            each.due = now + RETRY_S
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
        if not each.given_up:  # the event `gave_up` has announced these attempts
            self.publish_event("warning", "restarted", f"{each.child.name} {each.why}: started again")
        each.start(now)

    def feed_watchdog(self, now: float) -> None:
        """Feed it only while the pilot's status is fresh, or while the pilot is starting again."""
        fresh = self.pilot.fresh(time.monotonic_ns())
        if fresh and not self.ready:
            self.ready = self.systemd.notify("READY=1")
            if self.ready:
                self.report("info", "ready", "the pilot runs")
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
        """End all processes: the recorder and publicd last, each with its own time limit."""
        self.end([each for name, each in self.children.items() if name not in LAST], PATIENCE_S)
        for name, patience_s in zip(LAST, (LAST_PATIENCE_S, PUBLIC_PATIENCE_S), strict=True):
            self.end([self.children[name]], patience_s)
        self.receive(10_000)

    def end(self, running: list[ChildProcess], patience_s: float) -> None:
        """Ask these processes to end; kill those that do not."""
        for each in running:
            each.end()
        self.wait_for(running, patience_s)
        for each in running:
            each.kill(time.monotonic())
        self.wait_for(running, GONE_S)

    def wait_for(self, running: list[ChildProcess], seconds: float) -> None:
        """Wait until they have ended, at most this many seconds, and handle their messages meanwhile."""
        end = time.monotonic() + seconds
        while any(each.alive for each in running) and time.monotonic() < end:
            self.receive()
            self.systemd.notify("WATCHDOG=1")  # otherwise systemd would kill the recorder while it closes the dive
            time.sleep(0.01)

    def summary(self) -> str:
        """The last line: the dive, its duration and size."""
        if self.dive is None or not self.dive.is_file():
            return "stopped"
        seconds, megabytes = time.monotonic() - self.dive_t, self.dive.stat().st_size / 1e6
        return f"stopped; {self.dive}, {seconds:.0f} s, {megabytes:.1f} MB"

    def report(self, level: str, code: str, text: str) -> None:
        """Print a line of our own."""
        report(level, NAME, code, text)

    def publish_event(self, level: Literal["info", "warning", "alarm"], code: str, text: str) -> None:
        self.pub.publish(Event(t=time.monotonic_ns(), level=level, source=NAME, code=code, text=text))

    def close(self) -> None:
        for each in (self.mail, self.pub, self.pilot, self.settings, self.systemd):
            each.close()


def peer_of(source: str) -> list[str] | None:
    """The command of a camera source `process:COMMAND`, which replaces camerad; None for other sources. Raises
    UserError."""
    if not source.startswith("process:"):
        return None
    return external_command.split(f"camera.source = {source}", source.removeprefix("process:"))


def keep_descriptors() -> None:
    """Keep inherited descriptors to ourselves: children inherit only standard input, output and error."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            os.set_inheritable(int(name), int(name) < 3)


def refuse_taken(endpoint: str) -> None:
    """Raises UserError when somebody already listens at an endpoint. Binding would fail for TCP only: ZeroMQ takes an
    ipc endpoint away from its owner."""
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
    raise UserError(f"{endpoint}: is in use; does another `rov run` run? Stop it, or change [bus] in the configuration")
