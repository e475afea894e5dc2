"""Pins a process to the processors near the device that it works with (GPU or camera)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from rov.config.schema import ComputeConfig
from rov.errors import UserError
from rov.host import jetson


def gpu_node(root: Path = jetson.ROOT) -> int | None:
    """The NUMA node of the first NVIDIA GPU on the PCI bus; None without a GPU, or without NUMA nodes."""
    for device in sorted((root / "sys/bus/pci/drivers/nvidia").glob("*:*")):
        node = jetson.device_node(device, root)
        if node is not None:
            return node
    return None


def camera_node(source: str, root: Path = jetson.ROOT) -> int | None:
    """The NUMA node of a camera of this machine; None for any other source."""
    match = re.fullmatch(r"(?:/dev/video)?(\d+)", source)
    return jetson.device_node(root / f"sys/class/video4linux/video{match[1]}/device", root) if match else None


def chosen(
    compute: ComputeConfig, near: Literal["gpu", "camera"], source: str, allowed: set[int], root: Path = jetson.ROOT
) -> set[int]:
    """The processors, out of the `allowed` ones, for a process that works with the GPU or the camera. Raises UserError
    when none of the configured ones is there."""
    cpus = allowed
    if compute.cpus != "auto":
        cpus = jetson.parse_cpus(compute.cpus) & allowed
        if not cpus:
            raise UserError(
                f"compute.cpus = {compute.cpus}: none of these is there; this machine has {sorted(allowed)}"
            )
    if compute.numa == "auto" and len(jetson.numa_nodes(root)) > 1:
        node = gpu_node(root) if near == "gpu" else camera_node(source, root)
        local = cpus & jetson.numa_cpus(node, root) if node is not None else set()
        cpus = local or cpus
    return cpus


def pin(compute: ComputeConfig, near: Literal["gpu", "camera"], source: str) -> None:
    """Pin this process, and its threads that start later, to the processors `chosen`. Raises UserError."""
    allowed = os.sched_getaffinity(0)
    cpus = chosen(compute, near, source, allowed)
    if cpus != allowed:
        os.sched_setaffinity(0, cpus)
