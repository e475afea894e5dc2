"""The network's process: the newest frame in, detections, tracks, observation and setpoint out. May stall or crash
without harm: who listens judges by age."""

from __future__ import annotations

import os
import signal
import time
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads starve the control loop

import numpy as np
import torch

from rov.assets import find
from rov.bus import Pub, Sub
from rov.errors import UserError
from rov.machine.placement import pin
from rov.messages import Event, Frame, Health, Heard, Tuning, VehicleState
from rov.process import Meter, enter, start
from rov.ring import RingReader
from rov.tuning import Schedule
from rov.vision.detector import Detector
from rov.vision.perception import Perception
from rov.vision.sight import Sight


def main() -> int:
    process = start(orphaned=signal.SIGKILL, expendable=800)  # it may hang where no other signal is heard
    config = process.config
    wanted = config.perception
    pin(config.compute, "gpu", config.camera.source)
    torch.set_num_threads(wanted.threads)
    pub = Pub("perceptiond", process.root)
    vehicle, sight = Sub(VehicleState, process.root), Sight(config.camera)
    frames, tunings = Sub(Frame, process.root, hz=wanted.rate_hz), Sub(Tuning, process.root)
    ring = RingReader(process.ring)
    detector = Detector(find(wanted.weights), wanted.device, wanted.precision, batch=1)
    perception, schedule = Perception(config), Schedule(config)
    for _ in range(3):  # the first runs choose kernels and take seconds on some machines
        detector.detect([np.zeros((480, 640, 3), np.uint8)], wanted.score_min)
    now = time.monotonic_ns()
    pub.send(Event(t=now, level="info", source="perceptiond", code="warm", text=f"ready on {detector.device}"))
    pub.send(Heard(t=now, by="perceptiond", what="start"))
    broken, refused, period = False, False, int(1e9 / wanted.rate_hz)
    last, due, meter = -1, now, Meter(now)
    while not process.stopped.is_set():
        if frames.wait(timeout_ms=100) and frames.update(time.monotonic_ns()) and frames.msg is not None:
            frame = frames.msg
            image = ring.read(frame) if frame.frame_id != last and time.monotonic_ns() >= due else None
            if image is not None:
                # One frame may be made up for: or a camera at just this rate would lose each that comes a little early.
                last, due = frame.frame_id, max(due + period, time.monotonic_ns() - period)
                if tunings.update(now := time.monotonic_ns()) and tunings.msg is not None:
                    schedule.hear(tunings.msg.settings, tunings.msg.t)
                perception.tune(schedule.at(frame.frame_t))
                if vehicle.update(now) and vehicle.msg is not None:
                    sight.hear(vehicle.msg)
                bad = detector.bad
                looked = time.monotonic_ns()
                try:
                    clear = sight.clear(image)
                except UserError as error:  # a calibration of another camera: wrong angles are worse than none
                    if not refused:
                        pub.send(_said("alarm", "calibration_refused", f"{error}. Until then nothing is seen"))
                    refused = True
                    continue
                if refused:
                    refused = False
                    pub.send(_said("info", "calibration_refused_over", "pictures are of the calibration's size"))
                found = sight.original(detector.detect([clear], perception.config.perception.score_min)[0])
                if broken != (detector.bad > bad):
                    broken = not broken
                    pub.send(_verdict(broken))
                if broken:
                    continue  # that frame moves nothing
                now = time.monotonic_ns()
                detections = perception.detections(frame, found, now, (now - looked) / 1e6)
                tracks = perception.track(detections, now)
                observation = perception.observe(tracks)
                setpoint = perception.steer(observation, now)
                for message in (detections, tracks, observation, setpoint):  # in the order a replay needs
                    pub.send(message)
                meter.add((setpoint.t - frame.frame_t) / 1e6)
        now = time.monotonic_ns()
        if meter.due(now):
            hz, ms = meter.read(now)
            pub.send(Health(t=now, process="perceptiond", rate_hz=hz, latency_ms=ms, dropped=ring.missed))
    pub.close()
    return 0


def _verdict(broken: bool) -> Event:
    if broken:
        return _said("alarm", "bad_network", "the network gives what is not a number: its frames move nothing")
    return _said("info", "bad_network_over", "the network gives numbers")


def _said(level: Literal["info", "alarm"], code: str, text: str) -> Event:
    return Event(t=time.monotonic_ns(), level=level, source="perceptiond", code=code, text=text)


if __name__ == "__main__":
    enter(main)
