"""On another device every tensor lives there: shown without one, by tensors that know their device and shape alone.

An operation that mixes devices fails as it would on a GPU; only numbers of no dimension may come from the processor.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from sim import vehicle
from sim.scene import textures
from sim.scene.render import Renderer
from sim.vehicle import model, rest, step, still
from sim.world import load, realise

pytestmark = pytest.mark.patient

PAIRS = 1000
"""How many rays meet boxes and parts, where only a device could count."""

TYPES = {
    torch.Tensor.float: torch.float32,
    torch.Tensor.double: torch.float64,
    torch.Tensor.int: torch.int32,
    torch.Tensor.long: torch.int64,
}


class Pretend(TorchFunctionMode):
    """Answers what tensors without content cannot: how many, is it so, and a copy to a device that is not there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.to and args[0].device.type == "cpu":
            to = next((torch.device(x) for x in args[1:] if isinstance(x, torch.device | str)), args[0].device)
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=to)
        if func is torch.tensor and kwargs and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            here = func(*args, **kwargs)
            return torch.empty(here.shape, dtype=here.dtype, device=device)
        if func is torch.Tensor.tolist:
            return [PAIRS * (i + 1) for i in range(args[0].numel())]
        if func is torch.Tensor.nonzero:
            return torch.zeros(PAIRS, args[0].dim(), dtype=torch.long, device=args[0].device)
        if func in (torch.Tensor.__bool__, torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.item):
            return func is torch.Tensor.__bool__ or (1.0 if args[0].is_floating_point() else PAIRS)
        if func is torch.Tensor.contiguous:
            return torch.ops.aten.clone.default(*args)
        if func in TYPES:
            return torch.ops.aten._to_copy.default(*args, dtype=TYPES[func])
        if func is torch.Tensor.to:
            dtype = next((x for x in args[1:] if isinstance(x, torch.dtype)), args[0].dtype)
            return torch.ops.aten._to_copy.default(args[0], dtype=dtype)
        if func is torch.nn.functional.grid_sample:
            tile, grid = args[:2]
            assert tile.device == grid.device
            return torch.empty(*tile.shape[:2], *grid.shape[1:3], device=tile.device)
        if func is torch.Tensor.__invert__:
            return torch.bitwise_not(args[0])
        if func is torch.Tensor.__setitem__:
            return torch.add(taken(*args[:2]), args[2])  # what is set need only be of one device and shape
        if func is torch.Tensor.__getitem__:
            return taken(*args)
        return func(*args, **(kwargs or {}))


def taken(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """`tensor[index]` by plain operations: the brackets themselves want the device's driver."""
    aten, index = torch.ops.aten, index if isinstance(index, tuple) else (index,)
    if ... in index:
        at = index.index(...)
        given = sum(each is not None and each is not ... for each in index)
        index = (*index[:at], *[slice(None)] * (tensor.dim() - given), *index[at + 1 :])
    dim, looked_up = 0, []
    for each in index:
        if isinstance(each, int):
            tensor = aten.select.int(tensor, dim, each)
            continue
        if each is None:
            tensor = aten.unsqueeze.default(tensor, dim)
        elif isinstance(each, slice):
            tensor = aten.slice.Tensor(tensor, dim, each.start, each.stop, each.step or 1)
        else:
            many = each if isinstance(each, torch.Tensor) else torch.tensor(each, device=tensor.device)
            looked_up += [None] * (dim - len(looked_up)) + [many]
        dim += 1
    return aten.index.Tensor(tensor, looked_up) if looked_up else tensor


@pytest.fixture
def elsewhere() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), Pretend():
        yield
    for kept in (textures.noise, textures.caustics, textures.grain, vehicle._turning):
        kept.cache_clear()  # a tensor without content must not be met again


@pytest.mark.usefixtures("elsewhere")
def test_what_mixes_devices_is_seen_here() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.zeros(3, device="cuda") + torch.zeros(3)


@pytest.mark.usefixtures("elsewhere")
def test_a_step_stays_on_the_device() -> None:
    rover = model("heavy", torch.float32, "cuda")
    water = still(rover)._replace(seabed=torch.full((1,), 30.0, device="cuda"))
    state = rest(rover, 5, 10.0)
    state = step(rover, state, torch.zeros(5, rover.effect.shape[1], device="cuda"), water)
    assert {each.device.type for each in state if isinstance(each, torch.Tensor)} == {"cuda"}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("world", ["pool", "reef", "pipeline_night"])
def test_a_picture_stays_on_the_device(world: str) -> None:
    place = realise(load(world), 1)
    renderer = Renderer([place.scene], place.lens(64, 48), "cuda")
    still_there = torch.tensor([[1.0, 0.0, 0.0, 0.0]], device="cuda").repeat(3, 1)
    position = torch.tensor(place.start, device="cuda").repeat(3, 1)
    shots = renderer.render(position, still_there, 0.0, torch.zeros(3, 3, device="cuda"))
    assert {each.device.type for each in shots} == {"cuda"}
    assert shots.image.shape == (3, 48, 64, 3) and shots.depth.shape == (3, 48, 64)
