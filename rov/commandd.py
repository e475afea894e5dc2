"""The public command endpoint: strangers connect here, and only valid commands go on to the pilot. It may be flooded or
killed without harm: the operator's next heartbeat reaches the process that replaces it."""

from __future__ import annotations

import time

from rov.bus import Publisher
from rov.bus.command_gateway import CommandGateway
from rov.bus.keys import gate_of
from rov.bus.public_endpoints import load
from rov.messages import Health
from rov.service.process import RateMeter, confine, run_main, start

WAIT_S = 0.02


def main() -> int:
    process = start()
    endpoints = load(process.config_path)
    pub = Publisher("commandd", process.root)
    confine()
    gateway = CommandGateway(endpoints.commands, process.root, gate_of(endpoints.keys))
    meter = RateMeter(time.monotonic_ns())
    while not process.stopped.is_set():
        gateway.step(WAIT_S)
        now = time.monotonic_ns()
        meter.add(0.0)
        if meter.due(now):
            hz, ms = meter.read(now)
            pub.publish(Health(t=now, process="commandd", rate_hz=hz, latency_ms=ms, dropped=gateway.server.dropped))
    gateway.close()
    pub.close()
    return 0


if __name__ == "__main__":
    run_main(main)
