"""The policy's task: who gives the setpoints of a mode, and the settings that a task's command asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rov.config import live
from rov.messages import Mode, SetTask, Task, VehicleState


def source_refusal(mode: Mode, task: Task, no_policy: Mapping[str, str]) -> str:
    """Why nothing gives the setpoints of a mode, or "": with a task only the policy does, without one the servo.
    `no_policy`: why the policy cannot do a task, by task."""
    if mode is Mode.POLICY and task == "none":
        nothing = no_policy and all(no_policy.values())
        return next(iter(no_policy.values())) if nothing else "policy needs a task first, as `rov ctl task transit`"
    if mode is Mode.POLICY:
        return no_policy.get(task, "")
    if mode is Mode.FOLLOW and task != "none":
        return f"the task is {task}, and only the policy steers for it: `rov ctl task none` first, or mode policy"
    return ""


def task_settings(command: SetTask, vehicle: VehicleState | None, max_depth: float) -> live.Values | str:
    """The settings that a task's command asks for, or the reason for a refusal. A heading or depth that the task needs
    and the command does not give is the vehicle's own."""
    heading, depth = command.heading, command.depth
    if command.task in ("transit", "inspect") and heading is None:
        if vehicle is None or vehicle.attitude_t is None:
            return f"{command.task} needs a heading, and the vehicle's own is not known"
        heading = vehicle.yaw
    if command.task == "transit" and depth is None:
        if vehicle is None or vehicle.depth_t is None:
            return "transit needs a depth, and the vehicle's own is not known"
        depth = max(0.0, vehicle.depth)
    if depth is not None and depth > max_depth:
        return f"{depth:g} m is below vehicle.max_depth, {max_depth:g} m"
    given = {
        "steering.target": command.label,
        "task.heading_deg": None if heading is None else round(math.degrees(heading), 2),
        "task.depth": None if depth is None else round(depth, 2),
        "task.distance": command.distance,
        "task.height": command.height,
        # Another class is not as high as the last one.
        "task.target_height": command.target_height if command.label is None else command.target_height or 0.0,
    }
    wanted: live.Values = {key: value for key, value in given.items() if value is not None}
    return live.flaw(wanted) or {"task.name": command.task, **wanted}
