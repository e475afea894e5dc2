"""The public endpoint: passes every message from inside on to all subscribers. It may be flooded or killed without
harm: no process inside waits for it."""

from __future__ import annotations

import time

from rov.bus import Publisher, inbox
from rov.bus.keys import gate_of
from rov.bus.public import PublicPublisher
from rov.bus.public_endpoints import load
from rov.messages import Health
from rov.service.process import RateMeter, confine, run_main, start

WAIT_S = 0.02
LAST_WORDS_S, LAST_WORDS_MAX_S = 0.3, 2.0
"""On shutdown, keep forwarding until no message has arrived for this long, and at most for the second time."""


def main() -> int:
    process = start(expendable=200)
    endpoints = load(process.config_path)
    confine()
    pub, mail = Publisher("publicd", process.root), inbox("public", process.root)
    public = PublicPublisher(endpoints.public, gate_of(endpoints.keys))
    public.server.watch(mail.socket.fileno())
    meter, received, stopping = RateMeter(time.monotonic_ns()), 0.0, 0.0
    while not stopping or time.monotonic() - max(received, stopping) < LAST_WORDS_S:
        public.step(WAIT_S)
        for entry in mail.receive():
            received = time.monotonic()
            public.forward(entry.topic, entry.payload)
            meter.add((time.monotonic_ns() - entry.message.t) / 1e6)
        public.flush()
        now = time.monotonic_ns()
        if meter.due(now):
            hz, ms = meter.read(now)
            pub.publish(Health(t=now, process="publicd", rate_hz=hz, latency_ms=ms, dropped=mail.malformed))
        if process.stopped.is_set():
            stopping = stopping or time.monotonic()
            if time.monotonic() - stopping > LAST_WORDS_MAX_S:
                break
    public.close()
    mail.close()
    pub.close()
    return 0


if __name__ == "__main__":
    run_main(main)
