"""The image sensor: exposure, white balance, tone, softness, noise. From light to the bytes of a picture."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sim.scene import textures
from sim.scene.scene import Sensor

LUMA = (0.2126, 0.7152, 0.0722)
"""Rec. 709, R G B."""


class Sensors(NamedTuple):
    """The fields of `scene.Sensor`, (S,) each."""

    brightness: Tensor
    gain_max: Tensor
    white: Tensor
    saturation: Tensor
    contrast: Tensor
    noise: Tensor
    soft: Tensor
    vignette: Tensor
    shutter: Tensor


def stack(sensors: list[Sensor], device: torch.device) -> Sensors:
    return Sensors(
        *(
            torch.tensor([getattr(each, name) for each in sensors], dtype=torch.float32, device=device)
            for name in Sensors._fields
        )
    )


def smooth(picture: Tensor, sigma: Tensor) -> Tensor:
    """(N, C, H, W) blurred by `sigma` (N,) pixels, one direction after the other; 7 taps."""
    n, c, h, w = picture.shape
    offset = torch.arange(-3, 4, device=picture.device)
    kernel = torch.exp(-0.5 * (offset / sigma.clamp(min=0.05)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = picture.reshape(1, n * c, h, w)
    flat = F.conv2d(F.pad(flat, (3, 3, 0, 0), mode="replicate"), kernel[:, None, None, :], groups=n * c)
    flat = F.conv2d(F.pad(flat, (0, 0, 3, 3), mode="replicate"), kernel[:, None, :, None], groups=n * c)
    return flat.reshape(n, c, h, w)


def spread(picture: Tensor) -> Tensor:
    """(N, C, H, W) blurred as by forward scattering: averaged over some 5 % of the picture's width."""
    h, w = picture.shape[-2:]
    step = max(1, w // 40)
    small = F.avg_pool2d(picture, step, ceil_mode=True, count_include_pad=False)
    small = F.avg_pool2d(small, 3, 1, 1, count_include_pad=False)
    return F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)


def drag(picture: Tensor, flow: Tensor) -> Tensor:
    """(N, C, H, W) smeared along `flow` (N, 2) pixels: the motion while the shutter is open, in five moments."""
    n, _, h, w = picture.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, h, device=picture.device), torch.linspace(-1, 1, w, device=picture.device), indexing="ij"
    )
    grid = torch.stack((x, y), -1)[None]
    step = torch.stack((flow[:, 0] / (w / 2), flow[:, 1] / (h / 2)), 1)
    moments = [
        F.grid_sample(picture, grid + share * step[:, None, None], padding_mode="border", align_corners=True)
        for share in (-0.5, -0.25, 0.0, 0.25, 0.5)
    ]
    return torch.stack(moments).mean(0)


def develop(sensors: Sensors, light: Tensor, rim: Tensor, ticks: Tensor) -> Tensor:
    """(N, 3, H, W) light, linear R G B, to (N, H, W, 3) bytes B G R. `rim` (H, W) is 0 in the centre, 1 in the
    corners; `ticks` (N,) integers choose the noise."""
    n, _, h, w = light.shape
    row = [each[:, None, None, None] for each in sensors]
    brightness, gain_max, white, saturation, contrast, noise, _, vignette, _ = row
    light = light * (1 - vignette * rim)
    # Exposure and white balance are metered on every fourth pixel.
    mean = light[:, :, ::4, ::4].mean((2, 3), keepdim=True).clamp(min=1e-6)
    balance = (mean[:, 1:2] / mean) ** white
    balance = balance.clamp(0.3, 5.0)
    level = _grey(mean * balance)
    gain = torch.minimum(brightness**2.2 / level, gain_max)
    picture = (light * (balance * gain)).clamp(min=0)
    picture = (picture / (1 + 0.18 * picture * picture)).clamp(1e-5, 1.2)
    picture = (picture.log_() / 2.2).exp_()  # a power, in half the time
    picture = torch.lerp(_grey(picture), picture, saturation).clamp(0, 1)
    picture = picture + contrast * (picture * picture * (3 - 2 * picture) - picture)

    tile = textures.grain(light.device)
    ys = (torch.arange(h, device=light.device) + (ticks * 97)[:, None]) % textures.SIDE
    xs = (torch.arange(w, device=light.device) + (ticks * 61)[:, None]) % textures.SIDE
    grain = tile[:, ys[:, :, None], xs[:, None, :]].transpose(0, 1)
    amplify = (gain / gain_max).clamp(max=1).sqrt() * (1.3 - 0.6 * picture)
    picture = 255 * picture + noise * amplify * grain
    return (picture + 0.5).clamp(0, 255).to(torch.uint8).flip(1).permute(0, 2, 3, 1).contiguous()


def _grey(picture: Tensor) -> Tensor:
    """(N, 1, H, W) luminance of (N, 3, H, W)."""
    r, g, b = LUMA
    return r * picture[:, :1] + g * picture[:, 1:2] + b * picture[:, 2:]
