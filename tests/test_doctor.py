"""The doctor on a made-up Jetson, the check list before a dive, the manual's alarms, and processors by NUMA node."""

import time
from pathlib import Path

import pytest

from rov.config.schema import ComputeConfig, Config, override
from rov.errors import UserError
from rov.host import jetson, placement, predive
from rov.host.doctor import examine
from rov.hostd import reading
from rov.messages import Frame, Health, HostStatus, Message, Mode, PilotStatus, VehicleState


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fmode_0\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=15W >\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "91500\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "104500\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "99000\n",
    "sys/class/thermal/thermal_zone0/trip_point_2_type": "active\n",
    "sys/class/thermal/thermal_zone0/trip_point_2_temp": "50000\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/hwmon/hwmon0/name": "nvme\n",
    "sys/class/hwmon/hwmon3/name": "ina3221\n",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon3/in1_input": "5000\n",
    "sys/class/hwmon/hwmon3/curr1_input": "2500\n",
    "sys/class/hwmon/hwmon3/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon3/in2_input": "5000\n",
    "sys/class/hwmon/hwmon3/curr2_input": "1200\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1510400\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1728000\n",
}


def test_a_jetson_is_read(tmp_path: Path) -> None:
    root = put(tmp_path, ORIN)
    assert jetson.release(root) == "R36.4.3 (JetPack 6)"
    assert jetson.power_mode(root) == "15W"
    [zone] = jetson.zones(root)  # the zone that is switched off reads -256 °C
    assert zone == ("cpu-thermal", 91.5, 99.0) and zone.margin_c == 7.5
    assert jetson.rails(root) == [("VDD_IN", 12.5), ("VDD_CPU_GPU_CV", 6.0)]
    assert jetson.throttled(root)
    message = reading(jetson.zones(root), jetson.rails(root), True, 5)
    assert message == HostStatus(t=5, hottest="cpu-thermal", celsius=91.5, margin_c=7.5, watts=12.5, throttled=True)


def test_any_other_machine_has_none_of_it(tmp_path: Path) -> None:
    assert jetson.release(tmp_path) == "" and jetson.power_mode(tmp_path) == ""
    assert jetson.zones(tmp_path) == [] and jetson.rails(tmp_path) == [] and not jetson.throttled(tmp_path)
    assert reading([], [], False, 5) == HostStatus(t=5)


def test_the_doctor_says_what_to_do(config: Config, tmp_path: Path) -> None:
    found = {finding.what: finding for finding in examine(config, put(tmp_path, ORIN))}
    assert found["jetson"].state == "ok"
    assert found["power mode"].state == "slow" and "nvpmodel -m 0" in found["power mode"].do
    assert found["nvargus"].state == "missing" and not found["nvargus"].needed
    assert found["power"].found == "VDD_IN 12.5 W, VDD_CPU_GPU_CV 6.0 W"
    assert found["temperature"].state == "slow" and "8 °C below" in found["temperature"].do
    assert found["speed"].state == "slow"


def test_heat_is_announced_before_it_slows_down_and_once() -> None:
    watch = jetson.HeatWatch()

    def announced(celsius: float) -> list[str]:
        return list(watch.update([jetson.Zone("cpu", celsius, 99.0), jetson.Zone("free", 200.0, None)]))

    assert announced(90.9) == []
    [sentence] = announced(91.0)
    assert "8 °C below" in sentence and announced(93.0) == [] and announced(98.9) == []
    assert announced(90.0) == [] and announced(91.5) == [], "around the threshold it is not announced again"
    assert announced(87.9) == [] and len(announced(91.0)) == 1


def test_processors_near_the_gpu_and_the_camera(tmp_path: Path) -> None:
    root = put(tmp_path, {
        "sys/devices/system/node/node0/cpulist": "0-3\n",
        "sys/devices/system/node/node1/cpulist": "4-6,8\n",
        "sys/devices/pci0000:40/0000:41:00.0/numa_node": "1\n",
        "sys/devices/pci0000:00/0000:00:14.0/numa_node": "0\n",
        "sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/idVendor": "1234\n",
    })  # fmt: skip
    (root / "sys/bus/pci/drivers/nvidia").mkdir(parents=True)
    (root / "sys/bus/pci/drivers/nvidia/0000:41:00.0").symlink_to(root / "sys/devices/pci0000:40/0000:41:00.0")
    (root / "sys/class/video4linux/video2").mkdir(parents=True)
    (root / "sys/class/video4linux/video2/device").symlink_to(root / "sys/devices/pci0000:00/0000:00:14.0/usb1/1-2")
    every = set(range(9))
    assert placement.chosen(ComputeConfig(), "gpu", "0", every, root) == {4, 5, 6, 8}
    assert placement.chosen(ComputeConfig(), "camera", "/dev/video2", every, root) == {0, 1, 2, 3}
    assert placement.chosen(ComputeConfig(), "camera", "rtp://:5600", every, root) == every
    assert placement.chosen(ComputeConfig(numa="off"), "gpu", "0", every, root) == every
    assert placement.chosen(ComputeConfig(cpus="5-8"), "gpu", "0", every, root) == {5, 6, 8}
    assert placement.chosen(ComputeConfig(cpus="0-1"), "gpu", "0", every, root) == {0, 1}, (
        "the configured processors have priority"
    )
    assert placement.chosen(ComputeConfig(), "gpu", "0", {0, 1}, root) == {0, 1}, "never none"
    with pytest.raises(UserError, match="none of these is there"):
        placement.chosen(ComputeConfig(cpus="40"), "gpu", "0", every, root)


def test_bad_processors_are_refused_in_the_configuration(config: Config) -> None:
    for text in ("a", "3-", "0,,1", ""):
        with pytest.raises(UserError, match=r"compute\.cpus"):
            override(config, [f'compute.cpus="{text}"'])


# ---- before a dive -----------------------------------------------------------------------------------------------

GOOD = VehicleState(
    t=9, attitude_t=9, depth_t=9, depth=0.02, battery_v=16.4, hull_pressure_kpa=99.0, hull_temperature_c=31.0
)


def received(vehicle: VehicleState, **more: list[Message]) -> dict[str, list[Message]]:
    health = [Health(t=9, process=name, rate_hz=15.0) for name in ("camerad", "perceptiond", "recorderd", "pilotd")]
    frames: list[Message] = [Frame(t=9, frame_id=1, frame_t=9, width=640, height=480)]
    pilot: list[Message] = [PilotStatus(t=9, armed=False, mode=Mode.MANUAL, operator="me")]
    return {"vehicle": [vehicle], "pilot": pilot, "frame": frames, "health": [*health]} | more


def states(found: dict[str, list[Message]], config: Config) -> dict[str, str]:
    return {finding.what: finding.state for finding in predive.judge(found, config)}


def test_a_vehicle_that_may_dive(config: Config) -> None:
    assert set(states(received(GOOD), config).values()) == {"ok"}


@pytest.mark.parametrize(
    ("change", "what", "state"),
    [
        ({"battery_v": 13.9}, "battery", "missing"),  # 3.475 V a cell, warned of below 3.5
        ({"battery_v": 15.4}, "battery", "slow"),
        ({"battery_v": None}, "battery", "slow"),
        ({"leak": True}, "leak sensor", "missing"),
        ({"depth": 3.0}, "depth", "slow"),
        ({"depth_t": None}, "link", "missing"),
        ({"obstacle": "FS_PILOT_TIMEOUT is 3 s; it must be 0.5 s or less"}, "link", "missing"),
        ({"hull_pressure_kpa": 106.0}, "hull", "missing"),
        ({"hull_temperature_c": 63.0}, "hull", "missing"),
        ({"hull_pressure_kpa": None, "hull_temperature_c": None}, "hull", "slow"),
    ],
)
def test_what_keeps_it_on_deck(change: dict[str, object], what: str, state: str, config: Config) -> None:
    import msgspec

    found = states(received(msgspec.structs.replace(GOOD, **change)), config)
    assert found[what] == state
    assert sum(each != "ok" for each in found.values()) == 1


def test_what_an_unplugged_vehicle_last_said_is_history(config: Config) -> None:
    late: list[Message] = [PilotStatus(t=9 + 501_000_000, armed=False, mode=Mode.MANUAL, operator="me")]
    found = states(received(GOOD, pilot=late), config)  # guard.state_stale_ms is 500
    assert found["link"] == "missing" and not {"depth", "battery", "leak sensor", "hull"} & {*found}


def test_the_link_is_called_by_its_kind(config: Config) -> None:
    import msgspec

    def link(config: Config, **change: object) -> tuple[str, str]:
        found = predive.judge(received(msgspec.structs.replace(GOOD, **change)), config)
        finding = next(each for each in found if each.what == "link")
        return finding.state, f"{finding.found}; {finding.do}"

    ardusub = override(config, ['link.kind="ardusub"', 'link.url="udp:0.0.0.0:14660"'])
    assert link(config) == ("ok", "thruster board: attitude and depth arrive; ")
    state, text = link(ardusub)
    assert state == "ok" and "ArduSub at udp:0.0.0.0:14660" in text and "ARDUSUB.md" in text
    state, text = link(ardusub, attitude_t=None)
    assert state == "missing" and "link.url" in text
    state, text = link(ardusub, armed=True)
    assert state == "slow" and "armed by its pilot" in text


def test_silent_processes_and_an_armed_pilot(config: Config) -> None:
    found = states(received(GOOD, health=[], frame=[]), config)
    assert found["camera"] == found["perception"] == found["recording"] == "missing"
    armed: list[Message] = [PilotStatus(t=9, armed=True, mode=Mode.MANUAL)]
    found = states(received(GOOD, pilot=armed), config)
    assert found["pilot"] == "missing" and found["operator"] == "slow"
    hot: list[Message] = [HostStatus(t=9, hottest="cpu", celsius=88.0, margin_c=11.0)]
    assert states(received(GOOD, host=hot), config)["temperature"] == "slow"


def test_without_a_daemon_the_list_ends_there(config: Config, tmp_path: Path) -> None:
    alone = override(config, [f"bus.public=ipc://{tmp_path / 'nobody'}", "camera.calibration=none.yaml"])
    began = time.monotonic()
    found = {finding.what: finding for finding in predive.check(alone, tmp_path / "rover.toml")}
    assert time.monotonic() - began < 10
    assert found["daemon"].state == "missing" and "link" not in found
    assert found["calibration"].state == "missing" and "none.yaml" in found["calibration"].found
    assert found["weights"].state == found["thrusters"].state == found["configuration"].state == "ok"
    assert "clock" in found and "disk" in found
