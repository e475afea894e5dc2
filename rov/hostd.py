"""Reads the computer's instruments once a second: temperature, power, and a warning before it throttles itself.

This is a separate process because reading a sensor may hang in a driver, and nothing else must wait for that.
"""

from __future__ import annotations

import time

from rov.bus import Publisher
from rov.host import jetson
from rov.messages import Event, Health, HostStatus
from rov.service.process import run_main, start


def main() -> int:
    process = start(expendable=200)
    pub = Publisher("hostd", process.root)
    heat, slow = jetson.HeatWatch(), False
    while not process.stopped.wait(1.0):
        began = time.monotonic_ns()
        zones = jetson.zones()
        message = reading(zones, jetson.rails(), jetson.throttled(), began)
        pub.publish(message)
        for text in heat.update(zones):
            pub.publish(Event(t=began, level="warning", source="hostd", code="heat_near", text=text))
        if message.throttled and not slow:
            text = "the computer runs below its full speed: it is too hot, or in a low power mode"
            pub.publish(Event(t=began, level="warning", source="hostd", code="throttled", text=text))
        slow = message.throttled
        now = time.monotonic_ns()
        pub.publish(Health(t=now, process="hostd", rate_hz=1.0, latency_ms=(now - began) / 1e6))
    pub.close()
    return 0


def reading(zones: list[jetson.Zone], rails: list[jetson.Rail], throttled: bool, t: int) -> HostStatus:
    """All readings as one message, with the hottest zone and the smallest margin to a limit."""
    hottest = max(zones, key=lambda zone: zone.celsius, default=None)
    margins = [zone.margin_c for zone in zones if zone.margin_c is not None]
    return HostStatus(
        t=t,
        hottest=hottest.name if hottest else "",
        celsius=hottest.celsius if hottest else None,
        margin_c=min(margins, default=None),
        # VDD_IN is the total input; the other rails are parts of it
        watts=next((rail.watts for rail in rails if "IN" in rail.name.upper()), None),
        throttled=throttled,
    )


if __name__ == "__main__":
    run_main(main)
