"""The pilot's process, at a fixed pace: link, operator and setpoints in, thruster commands out. Waits for nobody."""

from __future__ import annotations

import time

from rov.assets import find
from rov.bus import INSIDE, CommandServer, Pub, Sub, ipc
from rov.checks import classes_of
from rov.link import link_to
from rov.messages import Edit, Health, Setpoint
from rov.motion.helm import Helm
from rov.motion.pilot import Pilot
from rov.motion.thrusters import load as load_curve
from rov.process import Meter, Pace, enter, realtime, start


def main() -> int:
    process = start()
    config = process.config
    pub = Pub("pilotd", process.root)
    server = CommandServer(ipc(process.root, INSIDE), heartbeat_timeout_s=config.operator.lost_s)
    setpoints, edits = Sub(Setpoint, process.root, hz=config.perception.rate_hz), Sub(Edit, process.root)
    link = link_to(config)
    pilot = Pilot(config, load_curve(find(config.vehicle.thrusters), config.vehicle.battery_cells))
    helm = Helm(config, pilot, link, classes_of(find(config.perception.weights)))
    realtime()
    helm.begin(time.monotonic_ns())
    pace = Pace(config.control.rate_hz)
    meter = Meter(pace.next_t)
    now = pace.next_t
    try:
        while not process.stopped.is_set():
            began = pace.wait()
            server.receive()
            link.receive()
            now = time.monotonic_ns()  # after what it judges was read: see `CommandServer.receive`
            if setpoints.update(now) and setpoints.msg is not None:
                helm.hear(setpoints.msg, now)
            if edits.update(now) and edits.msg is not None:
                helm.tune(edits.msg, now)
                server.operators.timeout_ns = int(helm.config.operator.lost_s * 1e9)
            for request in server.update(now):
                server.reply(request, now, helm.obey(request.command, request.t, now))
            for message in helm.act(server.operators.operator(now), now):
                pub.send(message)
            meter.add((began - pace.next_t) / 1e6)
            if meter.due(now):
                hz, ms = meter.read(now)
                pub.send(Health(t=now, process="pilotd", rate_hz=hz, latency_ms=ms, dropped=pub.dropped.total()))
    finally:
        helm.pilot.stop(now)
        link.close(now + 1_000_000)  # neutral and disarmed, on every way out
        server.close()
        pub.close()
    return 0


if __name__ == "__main__":
    enter(main)
