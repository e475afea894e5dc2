"""The pilot's process, at a fixed rate: link, operator and setpoints in, thruster commands out. It never waits for
another process."""

from __future__ import annotations

import time

from rov.bus import INSIDE, CommandServer, Publisher, Subscriber, ipc
from rov.link import open_link
from rov.messages import ConfigEdit, Health, Setpoint
from rov.motion.allocation import mixer
from rov.motion.commander import Commander
from rov.motion.pilot import Pilot
from rov.motion.thrusters import load as load_curve
from rov.resources import find_resource
from rov.service.process import Pace, RateMeter, realtime, run_main, start
from rov.steering.policy_card import refusals
from rov.validate import classes_of


def main() -> int:
    process = start()
    config = process.config
    pub = Publisher("pilotd", process.root)
    server = CommandServer(ipc(process.root, INSIDE), heartbeat_timeout_s=config.operator.lost_s)
    setpoints, edits = (
        Subscriber(Setpoint, process.root, hz=config.perception.rate_hz),
        Subscriber(ConfigEdit, process.root),
    )
    link = open_link(config, len(mixer(config.vehicle.frame)))
    pilot = Pilot(config, load_curve(find_resource(config.vehicle.thrusters), config.vehicle.battery_cells))
    commander = Commander(
        config, pilot, link, classes_of(find_resource(config.perception.weights)), refusals(config.steering)
    )
    realtime()
    commander.start(time.monotonic_ns())
    pace = Pace(config.control.rate_hz)
    meter = RateMeter(pace.next_t)
    now = pace.next_t
    try:
        while not process.stopped.is_set():
            began = pace.wait()
            server.receive()
            link.receive()
            now = time.monotonic_ns()  # read after the commands it is compared with: see `CommandServer.receive`
            if setpoints.receive(now) and setpoints.message is not None:
                commander.handle_setpoint(setpoints.message, now)
            if edits.receive(now) and edits.message is not None:
                commander.handle_edit(edits.message, now)
                server.operators.timeout_ns = int(commander.config.operator.lost_s * 1e9)
            for request in server.requests(now):
                server.reply(request, now, commander.handle_command(request.command, request.t, now))
            for message in commander.step(server.operators.operator(now), now):
                pub.publish(message)
            meter.add((began - pace.next_t) / 1e6)
            if meter.due(now):
                hz, ms = meter.read(now)
                pub.publish(Health(t=now, process="pilotd", rate_hz=hz, latency_ms=ms, dropped=pub.dropped.total()))
    finally:
        commander.pilot.stop(now)
        link.close(now + 1_000_000)  # neutral and disarmed, on every way out
        server.close()
        pub.close()
    return 0


if __name__ == "__main__":
    run_main(main)
