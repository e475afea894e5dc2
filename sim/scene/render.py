"""The renderer: from poses to pictures, depth and segmentation, for one camera or thousands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sim.scene import air, ground, raycast, scene, sensor, textures
from sim.scene.air import Air
from sim.scene.ground import FAR, SKY
from sim.scene.lens import Lens
from sim.scene.scene import Scene

CHUNK = 400_000
"""Rays cast at once on a CPU, so that they fit its caches. On a GPU: all of them."""
FAINT = 1e-3
"""Parts whose light is attenuated below this share are not cast."""
CAUSTIC_M = 1.7
"""Size of the caustics' tile."""
LAMP_WIDE = 0.6
"""Half-width of the lamps' beam, rad."""
GLARE = 0.4
"""Backscatter of lamps beside the camera as a share of a coaxial lamp's, times the integral of
exp(−2 c s) / (s² + 0.08) over the first metres (judgement, by night pictures)."""
PATCHY = 0.16
"""Unevenness of the veil: clouds of turbidity and of light from above."""
SNOW = 160
"""Particles around each camera."""
SNOW_BOX = 3.0
"""Side of the periodic box that they fill, m."""


Colour = Sequence[Tensor]


class Spots(NamedTuple):
    """Shadows of the things, (N, I, …)."""

    centre: Tensor
    half: Tensor
    """Radius, radius, and the height of the bottom's relief."""
    dark: Tensor
    """Darkness in the middle, 0..1; 0: no shadow."""


class Shots(NamedTuple):
    image: Tensor
    """(N, H, W, 3) uint8, B G R."""
    depth: Tensor
    """(N, H, W) m along the optical axis; inf where there is only water."""
    segmentation: Tensor
    """(N, H, W) int32: 0 is water, bottom and walls; i + 1 is thing i of the scene."""
    alone: Tensor
    """(N, I) pixels that each thing would cover without occlusion; empty unless asked for."""


class Renderer:
    """Cameras in water: one scene for all rows, or one for each row; the scenes share the kind of bottom.

    Everything is float32 and a function of the scenes, the poses and the times; there is no random state.
    """

    def __init__(self, scenes: list[Scene], lens: Lens, device: torch.device | str = "cpu"):
        self.scenes, self.lens, self.device = scenes, lens, torch.device(device)
        self.things, self.parts = scene.stack(scenes, self.device)
        self.ground = ground.stack([each.ground for each in scenes], self.device)
        self.sensors = sensor.stack([each.sensor for each in scenes], self.device)
        rays = torch.from_numpy(lens.rays()).flatten(1)
        self.rays = rays.float().to(self.device)
        self.screen = raycast.screen(lens, rays[:2] / rays[2], self.device)
        off = torch.acos(self.rays[2].clamp(max=1))
        self.rim = ((off / off.max()) ** 2).view(lens.height, lens.width)
        self.lobe = torch.exp(-((off / LAMP_WIDE) ** 2))

        self.air = air.stack(scenes, self.device)
        self.snow = torch.tensor([each.water.snow for each in scenes], device=self.device)
        self.seeds = torch.tensor([s.seed % 2**31 for s in scenes], device=self.device)
        self.reach = -math.log(FAINT) / self.air.blurred.amin(0)
        # Data that hits look up by part, (columns, S, P): form 6, paint 16, half-sizes 3, and their median.
        half, form = self.parts.half, self.parts.form
        looks = torch.cat((form, self.parts.paint, half, half.median(-1, keepdim=True).values), -1)
        self.looks = looks.permute(2, 0, 1).contiguous()
        self.boxes = raycast.corners(self.screen, half, form[..., 2], form[..., 3])
        self.bumpy = bool((form[..., 5] > 0).any())
        self.snowy = bool((self.snow > 0).any())
        self.shadows = bool((self.things.size > 0).any())
        self.lamps = bool((self.air.lamps > 0).any())
        self.sky = torch.tensor(SKY, device=self.device)[:, None, None]
        self.flakes = textures.flakes(SNOW, self.device)
        self.noise = textures.noise(self.device)
        self.caustics = textures.caustics(self.device)

    def render(
        self, position: Tensor, attitude: Tensor, t: float | Tensor, turning: Tensor | None = None, alone: bool = False
    ) -> Shots:
        """Pictures from `position` (N, 3) NED m and `attitude` (N, 4) w x y z body to world, at t s (one, or (N,)).

        `turning` (N, 3), body rates in rad/s, adds motion blur; `alone` also counts each thing's unoccluded pixels.
        """
        n = position.shape[0]
        assert len(self.scenes) in (1, n), "one scene, or one for each row"
        position, attitude = position.to(self.device).float(), attitude.to(self.device).float()
        times = torch.as_tensor(t, device=self.device, dtype=torch.float64).expand(n)
        size = n if self.device.type != "cpu" else max(1, CHUNK // self.rays.shape[1])
        with torch.inference_mode():
            done = [
                self._render(slice(i, min(i + size, n)), position, attitude, times, turning, alone)
                for i in range(0, n, size)
            ]
        return Shots(*(torch.cat(each) for each in zip(*done, strict=True)))  # normal tensors: usable in training

    def _row(self, tensor: Tensor, rows: slice) -> Tensor:
        """The rows of a tensor kept per scene; a single scene is broadcast."""
        return tensor if len(self.scenes) == 1 else tensor[rows]

    def _render(
        self, rows: slice, position: Tensor, attitude: Tensor, times: Tensor, turning: Tensor | None, alone: bool
    ) -> Shots:
        lens, origin, times = self.lens, position[rows], times[rows]
        n, m, t = origin.shape[0], self.rays.shape[1], times.float()
        things = scene.Things(*(self._row(each, rows) for each in self.things))
        parts = scene.Parts(*(self._row(each, rows) for each in self.parts))
        bottom = ground.rows(self.ground, lambda each: self._row(each, rows))
        air = Air(*(each if len(self.scenes) == 1 else each[..., rows, :] for each in self.air))
        looks = (self.looks if len(self.scenes) == 1 else self.looks[:, rows]).flatten(1)

        # The camera's x y z are the body's y z x.
        world = _matrix(attitude[rows])[:, :, [1, 2, 0]]
        across, down, ahead = world.permute(2, 1, 0)[..., None].unbind(0)
        direction = across * self.rays[0] + down * self.rays[1] + ahead * self.rays[2]
        flat = direction.flatten(1)
        back = ground.intersect(bottom, origin, direction, t)
        at, turn = scene.places(things, t)
        centre, pose = scene.poses(parts, at, turn, t)
        spots = self._spots(bottom, things, at, air)
        (ray, part), shaded = self._pairs(rows, parts, centre, pose, spots, origin, world)
        table = raycast.table(parts.half, centre, pose, origin)
        hits = raycast.meet(table, looks[:6], ray, part, flat, self.bumpy, self.noise)
        front = raycast.nearest(hits, n * m)

        light = self._lit(air, back.albedo, back.normal, back.point, back.path, t[:, None], self.lobe)
        shade = self._shadows(spots, back, *shaded) if self.shadows else 1.0
        light = light * (((back.path < FAR) * shade) * (1 - 0.9 * back.sky)) + back.sky * air.day * self.sky

        row, pixel = torch.div(front.ray, m, rounding_mode="floor"), torch.remainder(front.ray, m)
        own, lobe = air.of(row), self.lobe.index_select(0, pixel)
        direct = flat.index_select(1, front.ray)
        local, normal = raycast.surface(table, looks[:6], front, direct)
        look = looks.index_select(1, torch.remainder(front.part, looks.shape[1]))
        albedo, gloss, opaque = self._painted(look[6:], local, front.range)
        here = origin.t().index_select(1, row)
        point = (here + front.range * direct).unbind(0)
        lit = self._lit(own, albedo, normal, point, front.range, t.index_select(0, row), lobe)
        shine = self._shine(own, normal, direct, gloss, point[2], front.range, lobe)
        # A transparent thing shows the background, attenuated by the water in between.
        path, seen = back.path.reshape(-1), back.range.reshape(-1)
        behind = light.flatten(1).index_select(1, front.ray)
        left = torch.exp(-own.blurred * (path.index_select(0, front.ray) - front.range))
        through = behind * left + self._ambient(own, point[2]) * own.veil * (1 - left)
        visible = front.range <= seen.index_select(0, front.ray)
        drawn = torch.where(visible, opaque * lit + (1 - opaque) * through + shine, behind)
        light = light.flatten(1).index_copy(1, front.ray, drawn).view_as(light)
        for each in (path, seen):
            each.scatter_(0, front.ray, torch.where(visible, front.range, each.index_select(0, front.ray)))
        owner = parts.thing.expand(n, -1).reshape(-1)
        segmentation = torch.zeros(n * m, dtype=torch.int32, device=self.device)
        segmentation.scatter_(0, front.ray, ((owner.index_select(0, front.part) + 1) * visible).int())

        path, seen = path.view(n, m), seen.view(n, m)
        picture = self._water(air, light, path, direction, origin[:, 2:])
        picture = picture.view(3, n, lens.height, lens.width).transpose(0, 1)
        if self.snowy:
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
        covers = self._alone(hits, owner, n, things.size.shape[1]) if alone else segmentation.new_zeros(n, 0)
        return Shots(image, depth, segmentation.view(n, lens.height, lens.width), covers)

    def _pairs(
        self,
        rows: slice,
        parts: scene.Parts,
        centre: Tensor,
        pose: Tensor,
        spots: Spots,
        origin: Tensor,
        world: Tensor,
    ) -> list[tuple[Tensor, Tensor]]:
        """Pairs of rays and the parts they may hit, and of rays and the shadows they may see."""
        local = self._row(self.boxes, rows)
        corners = centre[:, :, None] + (pose[:, :, None] * local[..., None, :]).sum(-1)
        distance = (centre - origin[:, None]).norm(dim=-1) - parts.half.norm(dim=-1)
        drawn = (distance < self._row(self.reach, rows)) & (parts.half[..., 0] > 0)
        around = spots.centre[:, :, None] + self.screen.signs * spots.half[:, :, None]
        all_corners = _into(torch.cat((corners, around), 1), origin, world)
        wanted = torch.cat((drawn, spots.dark > 0), 1)
        boxes = raycast.screen_boxes(self.screen, all_corners) * wanted[..., None]
        number = centre.shape[1]
        return raycast.pairs((boxes[:, :number], boxes[:, number:]), self.lens.width, self.lens.height)

    def _alone(self, hits: raycast.Hits, owner: Tensor, n: int, things: int) -> Tensor:
        m = self.rays.shape[1]
        key = torch.unique(owner.index_select(0, hits.part) * (n * m) + hits.ray)
        row = torch.div(key % (n * m), m, rounding_mode="floor")
        thing = torch.div(key, n * m, rounding_mode="floor")
        return torch.bincount(row * things + thing, minlength=n * things).view(n, things)

    def _ambient(self, air: Air, z: Tensor) -> Tensor:
        """(3, …) daylight at the depths `z`."""
        return air.day * torch.exp(-air.diffuse * z.clamp(min=0))

    def _lit(
        self, air: Air, albedo: Tensor, normal: Colour, point: Colour, path: Tensor, t: Tensor, lobe: Tensor
    ) -> Tensor:
        """(3, …) radiance of a matt surface, relative to a white one facing up at the surface of the sea."""
        x, y, z = point
        nx, ny, nz = normal
        u, v = (x + air.north * z) / CAUSTIC_M, (y + air.east * z) / CAUSTIC_M
        two = textures.sample(
            self.caustics,
            torch.stack((u + 0.05 * t, 0.83 * v - 0.04 * t + 0.4)),
            torch.stack((v + 0.03 * t, 0.83 * u + 0.045 * t)),
        )[0]
        # Caustics are sharpest a little below the surface, and fade with depth and distance.
        deep = z.clamp(min=0)
        sharp = air.caustics * (deep * 1.5).clamp(max=1) * torch.exp(deep / -7) / (1 + 0.1 * path)
        play = 1 + sharp * (1.6 * torch.minimum(two[0], two[1]) - 1)
        slant = (-nx * air.north - ny * air.east - nz).clamp(min=0)
        down = (1 - air.sun) * (0.6 - 0.4 * nz) + air.sun * slant * play + 0.06 * nz.clamp(min=0)
        falling = self._ambient(air, z) * down
        if self.lamps:
            near = air.lamps * lobe / (path * path + 0.08)
            falling = falling + near * torch.exp(-air.blurred * path.clamp(max=50))
        return albedo * falling

    def _painted(self, look: Tensor, local: Colour, distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reflectances (3, K), gloss and opacity at places in the parts' own frames."""
        x, y, z = local
        ax, ay, az, shift, mottle, rough, scale, stripes, gloss, opaque, *half, girth = look[6:].unbind(0)
        repeats = scale * 0.5 / girth
        wide, across, long = (each * size * repeats for each, size in zip(local, half, strict=True))
        u, v = wide + 0.7 * long + 0.31 * az, across - 0.6 * long + 0.17
        broad, fine = textures.sample(self.noise, u, v)
        fade = 1 / (1 + (0.3 * distance) ** 2 / (1 + 40 * girth))
        along = x * ax + y * ay + z * az
        mix = torch.where(stripes > 0, 0.5 + 2 * torch.sin(stripes * along), along + shift) + mottle * (broad - 0.5) * 2
        mix = mix.clamp(0, 1)
        bright = (1 + rough * (2.2 * (broad - 0.5) + 1.6 * (fine - 0.5) * fade)).clamp(0.1, 2.2)
        return (look[:3] + (look[3:6] - look[:3]) * mix) * bright, gloss, opaque

    def _shine(
        self, air: Air, normal: Colour, ahead: Tensor, gloss: Tensor, z: Tensor, distance: Tensor, lobe: Tensor
    ) -> Tensor:
        """Highlights of the sun and the lamps, white."""
        nx, ny, nz = normal
        facing = nx * ahead[0] + ny * ahead[1] + nz * ahead[2]
        mx, my, mz = (ahead[i] - 2 * facing * each for i, each in enumerate(normal))
        sun = (-(mx * air.north + my * air.east + mz) * air.level).clamp(min=0)
        shine = 0.8 * air.day * torch.exp(-air.diffuse[1] * z.clamp(min=0)) * air.sun * sun**24
        if self.lamps:
            lamp = air.lamps * lobe / (distance * distance + 0.08) * torch.exp(-air.blurred[1] * distance)
            shine = shine + 0.5 * lamp * (-facing).clamp(min=0) ** 40
        return gloss * shine

    def _spots(self, bottom: ground.Grounds, things: scene.Things, at: Tensor, air: Air) -> Spots:
        """Shadows on the bottom, away from the sun: dark under things that touch it, wide and faint under high ones."""
        level = bottom.bottom[:, None] - ground.height(bottom, at[..., 0], at[..., 1])
        high = (level - at[..., 2]).clamp(min=0)
        lean = high * air.sun
        spot = torch.stack((at[..., 0] + lean * air.north, at[..., 1] + lean * air.east, level.expand_as(high)), -1)
        radius = 1.5 * things.size + 0.35 * high
        dark = 0.75 * (things.size / (things.size + 0.35 * high + 1e-6)) ** 2
        dark = dark * (dark > 0.02)
        tall = (bottom.height[:, None] + 0.02).expand_as(radius)
        return Spots(spot, torch.stack((radius, radius, tall), -1), dark)

    def _shadows(self, spots: Spots, back: ground.GroundHits, ray: Tensor, owner: Tensor) -> Tensor:
        """(N, M) share of light left by the shadows."""
        x, y, radius, dark = (
            each.reshape(-1).index_select(0, owner)
            for each in (spots.centre[..., 0], spots.centre[..., 1], spots.half[..., 0], spots.dark)
        )
        dx = back.point[0].reshape(-1).index_select(0, ray) - x
        dy = back.point[1].reshape(-1).index_select(0, ray) - y
        inside = (1 - (dx * dx + dy * dy) / (radius**2 + 1e-9)).clamp(min=0)
        shade = dark * inside * inside * (3 - 2 * inside) * back.floor.reshape(-1).index_select(0, ray)
        left = torch.zeros(back.range.numel(), device=self.device)
        return left.index_add_(0, ray, torch.log1p(-shade.clamp(max=0.95))).exp().view_as(back.range)

    def _water(self, air: Air, light: Tensor, path: Tensor, direction: Tensor, z: Tensor) -> Tensor:
        """(3, N, M): the `light` (3, N, M) after `path` (N, M), plus the veil before it; from depth `z` (N, 1) along
        `direction` (3, N, M).

        Akkaynak and Treibitz: J exp(−beam r) + B (1 − exp(−veiling r)). In addition, light scattered by small angles
        arrives blurred, and the daylight behind the veil changes with depth along the ray.
        """
        lens = self.lens
        wide = sensor.spread(light.view(3, -1, lens.height, lens.width)).view_as(light)
        dx, dy, dz = direction.unbind(0)
        clouds = textures.sample(self.noise, 0.11 * (dx + 0.4 * dz), 0.11 * (dy - 0.3 * dz) + 0.5)[0]
        uneven = 1 + PATCHY * 2 * (clouds - 0.5)
        kept = torch.exp(-air.blurred * path)
        rate = torch.maximum(air.veiling + air.diffuse * dz, 0.25 * air.veiling)
        veil = self._ambient(air, z) * air.veil * air.veiling / rate * (1 - torch.exp(-rate * path))
        if self.lamps:  # the near water is brightest; a fit to the integral of exp(−2 c s) / (s² + 0.08)
            lamp = GLARE * air.lamps * self.lobe * (1 - torch.exp(path / -0.7))
            veil = veil + lamp * (air.veil * air.veiling)
        return torch.lerp(wide * kept, light * kept, torch.exp((air.blurred - air.beam) * path)) + veil * uneven

    def _snow(
        self, air: Air, picture: Tensor, seen: Tensor, origin: Tensor, world: Tensor, t: Tensor, density: Tensor
    ) -> Tensor:
        """The picture with drifting particles, sharp or out of focus."""
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
        amount = (
            amount * inside * (range_[..., None, None] < seen.flatten().index_select(0, index.flatten()).view_as(index))
        )
        splat = torch.zeros(n * h * w, device=self.device).index_add_(0, index.flatten(), amount.flatten())
        colour = self._ambient(air, origin[:, 2:]) * 1.3 + air.lamps * torch.exp(-air.blurred)
        return picture + splat.view(n, 1, h, w) * colour.transpose(0, 1)[..., None]


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
