"""The renderer: poses in, pictures, depth and segmentation out, for one camera or thousands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sim.scene import cast, ground, scene, sensor, textures
from sim.scene.ground import FAR, SKY
from sim.scene.lens import Lens
from sim.scene.scene import Scene

CHUNK = 400_000
"""Rays cast at once on a processor: what it works on should stay in its caches. On a GPU: all of them."""
FAINT = 1e-3
"""What the water lets through less of than this is not cast."""
CAUSTIC_M = 1.7
"""Size of the caustics' tile."""
LAMP_WIDE = 0.6
"""Half-width of the lamps' light, rad."""
GLARE = 0.4
"""Share of a coaxial lamp's backscatter that is left with the lamps beside the camera, times the integral of
exp(−2 c s) / (s² + 0.08) over the first metres (judgement, by night pictures)."""
PATCHY = 0.16
"""Unevenness of the veil: clouds of turbidity and of light from above."""
SNOW = 160
"""Particles around each camera."""
SNOW_BOX = 3.0
"""They fill a box of this side, m, which repeats itself."""


Colour = Sequence[Tensor]


class Air(NamedTuple):
    """Water and light of each row: five (…, 3) of the colours, then (…,)."""

    beam: Tensor
    blurred: Tensor
    veiling: Tensor
    diffuse: Tensor
    veil: Tensor
    sun: Tensor
    elevation: Tensor
    azimuth: Tensor
    day: Tensor
    caustics: Tensor
    lamps: Tensor

    def at(self, index: Any) -> Air:
        return Air(*(each[index] for each in self))


class Shots(NamedTuple):
    image: Tensor
    """(N, H, W, 3) uint8, B G R."""
    depth: Tensor
    """(N, H, W) m along the optical axis; inf where there is only water."""
    segmentation: Tensor
    """(N, H, W) int32: 0 is water, bottom and walls, i + 1 is the scene's thing i."""
    alone: Tensor
    """(N, I) pixels each thing would cover if nothing stood before it; empty unless asked for."""


class Renderer:
    """Cameras in water. One scene for all rows, or one for each; the scenes share the kind of their bottom.

    Everything is float32 and a function of the scenes, the poses and the times; there is no random state.
    """

    def __init__(self, scenes: list[Scene], lens: Lens, device: torch.device | str = "cpu"):
        self.scenes, self.lens, self.device = scenes, lens, torch.device(device)
        self.things, self.parts = scene.stack(scenes, self.device)
        self.ground = ground.stack([each.ground for each in scenes], self.device)
        self.sensors = sensor.stack([each.sensor for each in scenes], self.device)
        rays = torch.from_numpy(lens.rays())
        self.rays = rays.reshape(3, -1).float().to(self.device)
        plane = (rays[:2] / rays[2]).flatten(1)
        low, high = plane.amin(1).tolist(), plane.amax(1).tolist()
        self.screen = cast.Screen(lens, low[0], low[1], high[0], high[1])
        off = torch.acos(self.rays[2].clamp(max=1))
        self.rim = ((off / off.max()) ** 2).view(lens.height, lens.width)
        self.lobe = torch.exp(-((off / LAMP_WIDE) ** 2))

        def rows(values: list[object]) -> Tensor:
            return torch.tensor(np.array(values), dtype=torch.float32, device=self.device)

        self.air = Air(
            *(rows([getattr(s.water, name) for s in scenes]) for name in Air._fields[:5]),
            *(rows([getattr(s.light, name) for s in scenes]) for name in Air._fields[5:]),
        )
        self.snow = rows([s.water.snow for s in scenes])
        self.seeds = torch.tensor([s.seed % 2**31 for s in scenes], device=self.device)
        self.reach = -math.log(FAINT) / self.air.blurred.amin(1)
        self.bumpy = bool((self.parts.form[..., 5] > 0).any())
        self.shadows = bool((self.things.size > 0).any())
        self.flakes = textures.flakes(SNOW).to(self.device)
        self.noise = textures.noise().to(self.device)
        self.caustics = textures.caustics().to(self.device)

    @torch.no_grad()
    def render(
        self, position: Tensor, attitude: Tensor, t: float | Tensor, turning: Tensor | None = None, alone: bool = False
    ) -> Shots:
        """Pictures from `position` (N, 3) NED m and `attitude` (N, 4) w x y z body to world, at t s (one, or (N,)).

        `turning` (N, 3) rad/s in the body smears what the shutter sees; `alone` also counts each thing unoccluded.
        """
        n = position.shape[0]
        assert len(self.scenes) in (1, n), "one scene, or one for each row"
        position, attitude = position.to(self.device).float(), attitude.to(self.device).float()
        times = torch.as_tensor(t, device=self.device, dtype=torch.float64).expand(n)
        size = n if self.device.type != "cpu" else max(1, CHUNK // self.rays.shape[1])
        done = [
            self._render(slice(i, min(i + size, n)), position, attitude, times, turning, alone)
            for i in range(0, n, size)
        ]
        return done[0] if len(done) == 1 else Shots(*(torch.cat(each) for each in zip(*done, strict=True)))

    def _row(self, tensor: Tensor, rows: slice) -> Tensor:
        """The rows' part of what is kept by scene, to broadcast over the rows."""
        return tensor if len(self.scenes) == 1 else tensor[rows]

    def _render(
        self, rows: slice, position: Tensor, attitude: Tensor, times: Tensor, turning: Tensor | None, alone: bool
    ) -> Shots:
        lens, origin, times = self.lens, position[rows], times[rows]
        n, m, t = origin.shape[0], self.rays.shape[1], times.float()
        things = scene.Things(*(self._row(each, rows) for each in self.things))
        parts = scene.Parts(*(self._row(each, rows) for each in self.parts))
        bottom = ground.rows(self.ground, lambda each: self._row(each, rows))
        air = Air(*(self._row(each, rows).expand(n, *each.shape[1:]) for each in self.air))

        # The camera's x y z are the body's y z x.
        world = _matrix(attitude[rows])[:, :, [1, 2, 0]]
        direction = (world[:, :, :, None] * self.rays).sum(2)
        flat = direction.transpose(0, 1).reshape(3, -1)
        back = ground.look(bottom, origin, direction, t)
        at, turn = scene.places(things, t)
        centre, pose = scene.poses(parts, at, turn, t)
        hits, table = self._cast(rows, parts, centre, pose, origin, world, flat)
        front = cast.nearest(hits, back.range.flatten())

        whole = air.at((slice(None), None))
        light = self._lit(
            whole, back.albedo.unbind(1), back.normal.unbind(1), back.point.unbind(1), back.path, t[:, None], self.lobe
        )
        shade = self._shadows(bottom, things, at, back, origin, world, air)
        light = [torch.where(back.path < FAR, each, 0.0) * shade for each in light]
        window = back.sky * air.day[:, None]
        light = [each * (1 - 0.9 * back.sky) + window * sky for each, sky in zip(light, SKY, strict=True)]

        row, pixel = torch.div(front.ray, m, rounding_mode="floor"), front.ray % m
        own = air.at((row,))
        local, normal = cast.surface(table, front, flat)
        count = parts.thing.shape[1]
        paint = parts.paint.expand(n, count, parts.paint.shape[2]).reshape(n * count, -1)[front.part].unbind(1)
        half = parts.half.expand(n, count, 3).reshape(n * count, 3)[front.part]
        albedo, gloss, opaque = self._painted(paint, local, half, front.range)
        ahead = flat[:, front.ray]
        point = (origin.t()[:, row] + front.range * ahead).unbind(0)
        lit = self._lit(own, albedo, normal.unbind(0), point, front.range, t[row], self.lobe[pixel])
        shine = self._shine(own, normal, ahead, gloss, point[2], front.range, self.lobe[pixel])
        beyond = back.path[row, pixel] - front.range
        for c in range(3):
            # Through a clear thing one sees the background as the water between them leaves it.
            left = torch.exp(-own.blurred[..., c] * beyond)
            through = light[c][row, pixel] * left + self._ambient(own, c, point[2]) * own.veil[..., c] * (1 - left)
            light[c][row, pixel] = opaque * lit[c] + (1 - opaque) * through + shine
        path, seen = back.path, back.range
        path[row, pixel] = front.range
        seen[row, pixel] = front.range
        owner = parts.thing.expand(n, count).reshape(-1)
        segmentation = torch.zeros(n * m, dtype=torch.int32, device=self.device)
        segmentation[front.ray] = (owner[front.part] + 1).int()

        picture = self._water(air, torch.stack(light, 1), path, direction, origin[:, 2])
        picture = self._snow(air, picture, seen, origin, world, t, self._row(self.snow, rows))
        sensors = sensor.Sensors(*(self._row(each, rows).expand(n) for each in self.sensors))
        if turning is not None:
            rate = turning[rows].to(self.device).float() * sensors.shutter[:, None]
            picture = sensor.drag(picture, torch.stack((-rate[:, 2] * lens.fx, -rate[:, 1] * lens.fy), 1))
        picture = sensor.smooth(picture, sensors.soft * (lens.width / 640))
        seed = self._row(self.seeds, rows).expand(n)
        ticks = ((times * 1000).round().long() * 7919 + seed * 104_729) % 65_536
        image = sensor.develop(sensors, picture, self.rim, ticks)
        depth = torch.where(seen < FAR, seen * self.rays[2], torch.inf).view(n, lens.height, lens.width)
        covers = self._alone(hits, owner, n, things.size.shape[1]) if alone else torch.zeros(n, 0, dtype=torch.long)
        return Shots(image, depth, segmentation.view(n, lens.height, lens.width), covers)

    def _cast(
        self, rows: slice, parts: scene.Parts, centre: Tensor, pose: Tensor, origin: Tensor, world: Tensor, flat: Tensor
    ) -> tuple[cast.Hits, cast.Table]:
        corners = cast.corners(centre, pose, parts.half, parts.form[..., 2], parts.form[..., 3])
        boxes = cast.screen_boxes(self.screen, _into(corners, origin, world))
        distance = (centre - origin[:, None]).norm(dim=-1) - parts.half.norm(dim=-1)
        drawn = (distance < self._row(self.reach, rows)[:, None]) & (parts.half[..., 0] > 0)
        boxes = boxes * drawn[..., None]
        ray, part = cast.pairs(boxes, self.lens.width, self.lens.height)
        table = cast.table(parts, centre, pose, origin)
        return cast.meet(table, ray, part, flat, self.bumpy, self.noise), table

    def _alone(self, hits: cast.Hits, owner: Tensor, n: int, things: int) -> Tensor:
        m = self.rays.shape[1]
        key = torch.unique(owner[hits.part] * (n * m) + hits.ray)
        row = torch.div(key % (n * m), m, rounding_mode="floor")
        thing = torch.div(key, n * m, rounding_mode="floor")
        return torch.bincount(row * things + thing, minlength=n * things).view(n, things)

    def _ambient(self, air: Air, c: int, z: Tensor) -> Tensor:
        return air.day * torch.exp(-air.diffuse[..., c] * z.clamp(min=0))

    def _lit(
        self, air: Air, albedo: Colour, normal: Colour, point: Colour, path: Tensor, t: Tensor, lobe: Tensor
    ) -> list[Tensor]:
        """Light that leaves a matt surface, of a white one's facing up at the surface of the sea."""
        x, y, z = point
        nx, ny, nz = normal
        level = air.elevation.sin()
        flatly = air.elevation.cos() / level
        sx, sy = flatly * air.azimuth.cos(), flatly * air.azimuth.sin()
        u, v = (x + sx * z) / CAUSTIC_M, (y + sy * z) / CAUSTIC_M
        first = textures.sample(self.caustics, u + 0.05 * t, v + 0.03 * t)[0]
        second = textures.sample(self.caustics, 0.83 * v - 0.04 * t + 0.4, 0.83 * u + 0.045 * t)[0]
        # Sharpest a little below the surface, washed out further down and far away.
        sharp = air.caustics * (z.clamp(min=0) * 1.5).clamp(max=1) * torch.exp(-z.clamp(min=0) / 7) / (1 + 0.1 * path)
        play = 1 + sharp * (1.6 * torch.minimum(first, second) - 1)
        slant = ((-nx * sx - ny * sy - nz) * level).clamp(min=0) / level
        down = (1 - air.sun) * (0.6 - 0.4 * nz) + air.sun * slant * play + 0.06 * nz.clamp(min=0)
        near = air.lamps * lobe / (path * path + 0.08)
        out = []
        for c in range(3):
            lamp = near * torch.exp(-air.blurred[..., c] * path.clamp(max=50))
            out.append(albedo[c] * (self._ambient(air, c, z) * down + lamp))
        return out

    def _painted(
        self, paint: Sequence[Tensor], local: Colour, half: Tensor, distance: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Reflectances, gloss and opacity at places in the parts' own frames."""
        x, y, z = local
        ax, ay, az, shift, mottle, rough, scale, stripes, gloss, opaque = paint[6:]
        girth = half.median(dim=1).values
        wide, across, long = (
            each * size / girth * scale * 0.5 for each, size in zip(local, half.unbind(1), strict=True)
        )
        u, v = wide + 0.7 * long + 0.31 * az, across - 0.6 * long + 0.17
        broad, fine = textures.sample(self.noise, u, v)
        fade = 1 / (1 + (0.3 * distance) ** 2 / (1 + 40 * girth))
        along = x * ax + y * ay + z * az
        mix = torch.where(stripes > 0, 0.5 + 2 * torch.sin(stripes * along), along + shift) + mottle * (broad - 0.5) * 2
        mix = mix.clamp(0, 1)
        bright = (1 + rough * (2.2 * (broad - 0.5) + 1.6 * (fine - 0.5) * fade)).clamp(0.1, 2.2)
        return [(paint[c] + (paint[3 + c] - paint[c]) * mix) * bright for c in range(3)], gloss, opaque

    def _shine(
        self, air: Air, normal: Tensor, ahead: Tensor, gloss: Tensor, z: Tensor, distance: Tensor, lobe: Tensor
    ) -> Tensor:
        """Highlights of the sun and the lamps, white."""
        facing = (normal * ahead).sum(0)
        mirrored = ahead - 2 * facing * normal
        flatly = air.elevation.cos()
        sun = -mirrored[0] * flatly * air.azimuth.cos() - mirrored[1] * flatly * air.azimuth.sin()
        sun = (sun - mirrored[2] * air.elevation.sin()).clamp(min=0)
        day = self._ambient(air, 1, z) * air.sun * sun**24
        lamp = air.lamps * lobe / (distance * distance + 0.08) * torch.exp(-air.blurred[..., 1] * distance)
        return gloss * (0.8 * day + 0.5 * lamp * (-facing).clamp(min=0) ** 40)

    def _shadows(
        self,
        bottom: ground.Grounds,
        things: scene.Things,
        at: Tensor,
        back: ground.Seen,
        origin: Tensor,
        world: Tensor,
        air: Air,
    ) -> Tensor:
        """(N, M) share of light left on the bottom by the things above it: dark where they touch it, wide and faint
        where they are high, away from the sun."""
        n, m = back.range.shape
        left = torch.zeros(n * m, device=self.device)
        if not self.shadows:
            return left.view(n, m) + 1
        level = bottom.bottom[:, None] - ground.height(bottom, at[..., 0], at[..., 1])
        high = (level - at[..., 2]).clamp(min=0)
        lean = (high * air.sun[:, None] / air.elevation.tan()[:, None])[..., None]
        away = torch.stack((air.azimuth.cos(), air.azimuth.sin()), -1)[:, None]
        spot = torch.cat((at[..., :2] + lean * away, level.expand_as(high)[..., None]), -1)
        size = things.size.expand_as(high)
        radius = 1.5 * size + 0.35 * high
        dark = 0.75 * (size / (size + 0.35 * high + 1e-6)) ** 2 * (size > 0)
        radius = radius * (dark > 0.02)
        tall = bottom.height[:, None].expand_as(radius) + 0.02
        half = torch.stack((radius, radius, tall), -1)
        eye = torch.eye(3, device=self.device).expand(*radius.shape, 3, 3)
        one = torch.ones_like(radius)
        boxes = cast.screen_boxes(self.screen, _into(cast.corners(spot, eye, half, -one, one), origin, world))
        boxes = boxes * (radius > 0)[..., None]
        ray, owner = cast.pairs(boxes, self.lens.width, self.lens.height)
        row, pixel = torch.div(ray, m, rounding_mode="floor"), ray % m
        dx = back.point[row, 0, pixel] - spot[..., 0].reshape(-1)[owner]
        dy = back.point[row, 1, pixel] - spot[..., 1].reshape(-1)[owner]
        inside = (1 - (dx * dx + dy * dy) / (radius.reshape(-1)[owner] ** 2 + 1e-9)).clamp(min=0)
        shade = dark.reshape(-1)[owner] * inside * inside * (3 - 2 * inside) * back.floor.flatten()[ray]
        return left.index_add_(0, ray, torch.log1p(-shade.clamp(max=0.95))).exp().view(n, m)

    def _water(self, air: Air, light: Tensor, path: Tensor, direction: Tensor, z: Tensor) -> Tensor:
        """(N, 3, H, W): what arrives of the `light` (N, 3, M) after `path` (N, M), and the veil before it.

        Akkaynak and Treibitz: J exp(−beam r) + B (1 − exp(−veiling r)), with the light that was scattered by less than
        the picture resolves coming back blurred, and the veil fed by daylight that changes with depth along the ray.
        """
        n, m = path.shape
        lens = self.lens
        wide = sensor.spread(light.view(n, 3, lens.height, lens.width)).view(n, 3, m)
        out = []
        lamp = air.lamps[:, None] * self.lobe
        dx, dy, dz = direction.unbind(1)
        clouds = textures.sample(self.noise, 0.11 * (dx + 0.4 * dz), 0.11 * (dy - 0.3 * dz) + 0.5)[0]
        uneven = 1 + PATCHY * 2 * (clouds - 0.5)
        for c in range(3):
            beam, blurred, veiling, diffuse = (
                each[:, c, None] for each in (air.beam, air.blurred, air.veiling, air.diffuse)
            )
            direct = torch.exp(-beam * path)
            kept = torch.exp(-blurred * path)
            rate = torch.maximum(veiling + diffuse * dz, 0.25 * veiling)
            surface = self._ambient(air, c, z)[:, None] * air.veil[:, c, None]
            veil = surface * veiling / rate * (1 - torch.exp(-rate * path))
            # Lamps: the near water is lit most; a fit to the integral of exp(−2 c s) / (s² + 0.08).
            glare = GLARE * lamp * air.veil[:, c, None] * veiling * (1 - torch.exp(-path / 0.7))
            out.append(light[:, c] * direct + wide[:, c] * (kept - direct) + (veil + glare) * uneven)
        return torch.stack(out, 1).view(n, 3, lens.height, lens.width)

    def _snow(
        self, air: Air, picture: Tensor, seen: Tensor, origin: Tensor, world: Tensor, t: Tensor, density: Tensor
    ) -> Tensor:
        """Particles drift by, sharp or out of focus."""
        n, _, h, w = picture.shape
        drift = torch.stack((0.03 * t, 0.02 * t, 0.01 * t), -1)[:, None]
        place = self.flakes[None, :, :3] * SNOW_BOX + drift - origin[:, None]
        place = place - SNOW_BOX * (place / SNOW_BOX).round()
        eye = (place[..., None] * world[:, None]).sum(-2)
        x, y, z = eye.unbind(-1)
        ahead = z.clamp(min=0.1)
        lens = self.lens
        px, py = lens.fx * x / ahead + lens.cx, lens.fy * y / ahead + lens.cy
        range_ = eye.norm(dim=-1)
        scale = lens.fx / 500
        sigma = (scale * (0.35 + 0.35 * self.flakes[:, 3] / range_ + 0.5 * self.flakes[:, 4] ** 3 / range_)).clamp(
            0.35, 3.0
        )
        number = torch.arange(SNOW, device=self.device) < density.expand(n)[:, None] * SNOW_BOX**3
        bright = (0.25 + 0.75 * self.flakes[:, 5] ** 3) * (0.45 * scale / sigma).clamp(max=1) ** 2
        bright = bright * number * (z > 0.12) * torch.exp(-0.5 * range_)
        grid = torch.arange(-3, 4, device=self.device)
        cx, cy = px.round()[..., None, None] + grid, py.round()[..., None, None] + grid[:, None]
        far = ((cx - px[..., None, None]) ** 2 + (cy - py[..., None, None]) ** 2) / (2 * sigma[..., None, None] ** 2)
        amount = bright[..., None, None] * torch.exp(-far)
        inside = (cx >= 0) & (cx < w) & (cy >= 0) & (cy < h)
        index = (cy.clamp(0, h - 1) * w + cx.clamp(0, w - 1)).long() + (torch.arange(n, device=self.device) * (h * w))[
            :, None, None, None
        ]
        amount = amount * inside * (range_[..., None, None] < seen.flatten()[index])
        splat = torch.zeros(n * h * w, device=self.device).index_add_(0, index.flatten(), amount.flatten())
        colour = [
            self._ambient(air, c, origin[:, 2]) * 1.3 + air.lamps * 1.0 * torch.exp(-air.blurred[:, c])
            for c in range(3)
        ]
        return picture + splat.view(n, 1, h, w) * torch.stack(colour, -1)[:, :, None, None]


def _matrix(q: Tensor) -> Tensor:
    """(N, 3, 3) body to world of quaternions w x y z."""
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _into(points: Tensor, origin: Tensor, world: Tensor) -> Tensor:
    """(N, P, K, 3) points in the world, in the axes of the cameras at `origin` (N, 3)."""
    return ((points - origin[:, None, None])[..., None] * world[:, None, None]).sum(-2)
