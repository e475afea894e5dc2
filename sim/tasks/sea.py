"""The batched sea: N vehicles, each at its own task, on an abstraction of what the camera would show.

A `Sea` is stepped decision by decision. Frames come at 8 to 16 Hz, at the same time for all vehicles; a setpoint takes
effect some 30 to 190 ms after its frame (see levels.py), differently for each. Everything is drawn from one seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from rov.steering import policy_input
from rov.steering.policy_input import TASKS, Sources
from sim import sensors, vehicle
from sim.propulsion import CELLS
from sim.sensors import Suite, quaternion
from sim.tasks import delays, drift, follow, found, inspect, picture_maps, station, stones, transit
from sim.tasks.caster import Cast, cast, rays
from sim.tasks.course import Conditions, Course
from sim.tasks.hulls import Hull, Hulls, hulls
from sim.tasks.judging import Situation, Tally, start_tally
from sim.tasks.levels import LEVELS, RATE_TICKS, LevelName, Split, conditions
from sim.tasks.noise import Noise, load
from sim.tasks.outcome import Outcome as Outcome
from sim.tasks.outcome import Sight as Sight
from sim.tasks.outcome import Truth as Truth
from sim.tasks.rows import join, put, take
from sim.tasks.scenes import Look
from sim.tasks.solids import HULL_M, bump, gaps
from sim.tasks.trouble import Trouble as Trouble
from sim.tasks.trouble import seen_through, troubled
from sim.vehicle import DT, State, WaterForces

TASK: dict[str, ModuleType] = {"transit": transit, "follow": follow, "inspect": inspect, "station": station}
"""The modules of the tasks: each has `course` and `judge`."""
NIGHT_SHARE = {"inspect": 0.5}
"""Share of the episodes at night."""
PLACES_SEED = 1_000_003
KNOWN_S = 3.0
"""A thing is known for this long after it was seen."""
SAME_RATE = 100
"""Decisions after which another rate is drawn."""
PEAK_AT_S, PEAK_S = (8.0, 30.0), 4.0
"""When a `Trouble.peak` comes, and how long it takes to rise and to fall, s."""
JITTER = 0.15
"""Share of the frames that come a tick early or late."""


class Sea:
    """See the top of this file. `level` may be several: row i has level i modulo their number. `repeat` k: rows i,
    i + n/k, i + 2 n/k … get the same course, conditions and hull."""

    def __init__(
        self,
        task: str,
        level: LevelName | Sequence[LevelName] = "nominal",
        n: int = 1024,
        seed: int = 0,
        device: torch.device | str = "cpu",
        split: Split = "train",
        hull: Hull = "drawn",
        loops: Literal["both", "rov", "ardusub"] = "both",
        repeat: int = 1,
        auto_reset: bool = True,
        trouble: Trouble | None = None,
        noise: Noise | None = None,
        looks: Sequence[Look] | None = None,
    ):
        assert n % repeat == 0 and (repeat == 1 or not auto_reset), "repeated rows start together"
        self.task, self.n, self.split, self.hull = TASK[task], n, split, hull
        self.name = task
        self.levels = [LEVELS[name] for name in ([level] if isinstance(level, str) else level)]
        assert len(self.levels) == 1 or repeat == 1, "repeated rows are of one level"
        self.repeat, self.auto_reset = repeat, auto_reset
        self.trouble, self.noise = trouble or Trouble(), noise or load()
        assert looks is None or (len(looks) == n and not auto_reset), "a look for each vehicle, which starts once"
        self.looks = looks
        """Worlds that say how turbid the water is, whether it is night, and how wide the camera sees."""
        self.device = torch.device(device)
        self.random = torch.Generator(self.device).manual_seed(seed)
        self.places = torch.Generator(self.device).manual_seed(seed + PLACES_SEED)
        """Dice of the haze and the stones: with them, no course and no gust of a seed is another than without."""
        self.ours = {"both": n // 2, "rov": n, "ardusub": 0}[loops]
        self.suite = Suite()
        self.tick = self.decisions = 0
        self.interval = 4

    # ---- one episode after the other ---------------------------------------------------------------------------

    @torch.no_grad()
    def reset(self) -> tuple[Sources, Tensor]:
        """Start all vehicles; the first observation."""
        self.tick = self.decisions = 0
        self.course, self.conditions, self.hulls = self._draw(torch.arange(self.n, device=self.device))
        self.state = self._placed(self.course, self.conditions)
        still = self.still()
        self.memory = sensors.switch_on(self.suite, self.state, still, self.random)
        self.readings, self.memory = sensors.sense(self.suite, self.state, still, self.memory, self.random)
        late, behind = self.conditions.late, self.conditions.behind
        self.helm = delays.Helm(self.n, self.ours, self.readings, self.hulls.stick_limit, late.clone(), behind.clone())
        self.gust = torch.zeros(self.n, 2, device=self.device)
        self.rays = rays(self.conditions.view)
        self.errors = picture_maps.start_errors(self.n, self.random, self.places)
        self.stones = stones.around(self.course, self.noise.of_tracks(self.name), self.places)
        self.tracker = stones.start_tracker(self.course, self.stones, self.random)
        self.previous = torch.zeros(self.n, 4, device=self.device)
        self.elapsed = torch.zeros(self.n, device=self.device)
        self.tally: Tally = start_tally(self.n, self.device)
        self.start = torch.stack([self.readings.attitude[:, 2], self.readings.depth], dim=1)
        self.key = torch.full((self.n, 3), math.nan, device=self.device)
        solids = self.course.solids
        unseen = [torch.full((self.n, each), math.inf, device=self.device) for each in
                  (solids.balls.shape[1], solids.rods.shape[1], self.course.targets.height.shape[1])]  # fmt: skip
        self.ball_ago, self.rod_ago, self.target_ago = unseen
        low, high = PEAK_AT_S
        self.peak_at = low + (high - low) * torch.rand(self.n, generator=self.random, device=self.device)
        self.fresh = torch.ones(self.n, dtype=torch.bool, device=self.device)
        self.drift: drift.DriftMemory | None = None
        return self._observe(DT * self.interval)

    @torch.no_grad()
    def step(self, setpoint: Tensor) -> tuple[Sources, Tensor, Outcome]:
        """Steer by setpoints (N, 4) surge, sway, heave, yaw in −1..1 until the next frame."""
        before = self.state
        self.previous = setpoint.to(torch.float32).nan_to_num().clamp(-1.0, 1.0)
        self.helm.ask(self.tick, self.previous)
        ticks = self._ticks()
        touched = torch.zeros(self.n, dtype=torch.bool, device=self.device)
        for _ in range(ticks):
            touched = touched | self.advance(self.helm.commands(self.tick, self.readings))
        dt = ticks * DT
        outcome = self.judge(before, touched, dt)
        if self.auto_reset and bool(outcome.done.any()):
            self._restart(outcome.done.nonzero()[:, 0])
        return (*self._observe(dt), outcome)

    def judge(self, before: State, touched: Tensor, dt: float) -> Outcome:
        """How the last `dt` s went, since the state `before`."""
        self.elapsed = self.elapsed + dt
        joules = self.state.energy - before.energy
        verdict = self.task.judge(self._situation(before.position, touched, joules, dt))
        self.tally = verdict.tally
        done = verdict.success | verdict.failed | verdict.timed_out
        return Outcome(
            verdict.rewards, verdict.success, verdict.failed, verdict.timed_out, done, touched, joules,
            torch.full_like(joules, dt), (self.state.position - before.position).norm(dim=1),
        )  # fmt: skip

    def truth(self) -> Truth:
        turn = vehicle.rotation(self.state.attitude.T)
        return Truth(
            self.state.position,
            (turn * self.state.velocity.T[None]).sum(1).T,
            torch.atan2(turn[1, 0], turn[0, 0]),
            turn.permute(2, 0, 1),
            self.current,
            self.course,
            self.conditions,
            self.ball_ago < KNOWN_S,
            self.rod_ago < KNOWN_S,
            self.target_ago < KNOWN_S,
            self.key,
            self.elapsed,
            self.cast.range,
            torch.arange(self.n, device=self.device) < self.ours,
        )

    # ---- motion ------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Tensor:
        """(N, 2) of the water now, m/s."""
        now = self.conditions.current + self.gust
        if self.trouble.peak is None:
            return now
        away = self.conditions.current
        most = away / away.norm(dim=1, keepdim=True).clamp(min=1e-6) * self.trouble.peak
        return torch.lerp(now, most, torch.exp(-(((self.elapsed - self.peak_at) / PEAK_S) ** 2))[:, None])

    def advance(self, commands: Tensor) -> Tensor:
        """One tick of DT with commands (N, motors) −1..1; (N,) whether something was touched."""
        water = self._water(self.current)
        state = vehicle.step(self.hulls.model, self.state, commands * self.hulls.alive, water)
        self.state, touched = bump(self.course.solids, state)
        self.readings, self.memory = sensors.sense(self.suite, self.state, water, self.memory, self.random)
        self._blow()
        self._swim()
        self.tick += 1
        return touched.anything

    def still(self) -> WaterForces:
        """Water that stands."""
        return self._water(torch.zeros(self.n, 2, device=self.device))

    def _water(self, current: Tensor) -> WaterForces:
        return WaterForces(torch.cat([current, torch.zeros_like(current[:, :1])], dim=1).T)

    def _blow(self) -> None:
        """The gusts' next tick, an Ornstein–Uhlenbeck process per vehicle."""
        c = self.conditions
        keep = torch.exp(-DT / c.gust_s)[:, None]
        fresh = torch.randn(self.n, 2, generator=self.random, device=self.device)
        self.gust = keep * self.gust + c.gust[:, None] * (1 - keep * keep).sqrt() * fresh

    def _swim(self) -> None:
        """The targets' next tick: they swim on arcs, and turn away from the bottom and the surface."""
        if not self.course.target_ball:
            return
        targets, solids = self.course.targets, self.course.solids
        angle = (targets.turning * DT)[..., None]
        vx, vy, vz = (targets.velocity[..., i : i + 1] for i in range(3))
        c, s = angle.cos(), angle.sin()
        deep = targets.position[..., 2:]
        low, high = 0.8, (solids.bottom[:, None] - 0.5)[..., None]
        vz = torch.where(deep > high, -vz.abs(), torch.where(deep < low, vz.abs(), vz))
        velocity = torch.cat([c * vx - s * vy, s * vx + c * vy, vz], dim=-1)
        position = targets.position + velocity * DT
        balls = torch.cat([torch.cat([position[:, :1], solids.balls[:, :1, 3:]], dim=-1), solids.balls[:, 1:]], dim=1)
        moving = torch.cat([velocity[:, :1], solids.ball_velocity[:, 1:]], dim=1)
        self.course = self.course._replace(
            targets=targets._replace(position=position, velocity=velocity),
            solids=solids._replace(balls=balls, ball_velocity=moving),
        )

    def _ticks(self) -> int:
        """Ticks until the next frame."""
        if self.decisions % SAME_RATE == 0:
            low, high = RATE_TICKS
            self.interval = int(torch.randint(low, high + 1, (1,), generator=self.random, device=self.device))
        self.decisions += 1
        dice = float(torch.rand(1, generator=self.random, device=self.device))
        late = 1 if dice < JITTER / 2 else -1 if dice < JITTER else 0
        return min(max(self.interval + late, RATE_TICKS[0]), RATE_TICKS[1])

    # ---- observation -------------------------------------------------------------------------------------------

    def _observe(self, dt: float) -> tuple[Sources, Tensor]:
        """What the vehicles see and feel now, `dt` s after the last frame."""
        turn = vehicle.rotation(self.state.attitude.T).permute(2, 0, 1)
        self.cast = cast(self.course.solids, self.rays, self.state.position, turn)
        self.behind = self._behind(turn)
        seen = self._look(turn, dt)
        view = self.conditions.view
        sources = Sources(
            task=torch.full((self.n,), TASKS.index(self.name), device=self.device),
            goal=self.course.goal,
            target_height=self.course.told_height,
            tracks=seen.tracks,
            moved=seen.moved,
            keyed=seen.keyed,
            attitude=self.readings.attitude,
            rates=self.readings.rates,
            depth=self.readings.depth,
            start=self.start,
            cell_v=self.readings.volts / CELLS,
            previous=self.previous,
            age_s=self.conditions.late * DT,
            dt_s=torch.full((self.n,), dt, device=self.device),
            view=view,
        )
        self.sight = seen
        maps = policy_input.maps(seen.inverse_range, seen.log_variance, seen.pipeline, seen.tracks, view)
        return sources, maps

    def _behind(self, turn: Tensor) -> Tensor:
        """(N, ROWS, COLUMNS) m: ranges as if the followed thing were not there."""
        if not self.course.target_ball:
            return self.cast.range
        others = self.course.solids._replace(balls=self.course.solids.balls[:, 1:])
        return cast(others, self.rays, self.state.position, turn).range

    def _look(self, turn: Tensor, dt: float) -> Sight:
        """What encoder, detector, tracker and displacement would say of the picture now, by the noise models."""
        c, state, noise = self.conditions, self.state, self.noise
        heading = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])
        far = picture_maps.around_target(noise.range, self.cast.range, self.behind, self.errors)
        maps, self.errors = picture_maps.picture_maps(
            noise.range, c, far, self._pipe(self.cast), self.errors, dt, self.random
        )
        truth = self._targets(turn)
        lying = found.project(self.stones, self.course.solids, self.course.target_ball, c, state.position, turn)
        every = found.Seen(*(torch.cat(pair, dim=1) for pair in zip(truth, lying, strict=True)))
        tracks, self.tracker = found.find(
            noise.of_tracks(self.name), c, every, heading, self.readings.rates[:, 2], self.tracker, dt, self.random
        )
        near = 1 / (self.cast.range.flatten(1) * self.rays[..., 0])
        weight = (maps.seen * ~self.cast.surface).flatten(1)
        frame = drift.Frame(near, weight, state.position, turn, heading)
        memory = self.drift or drift.start_drift(frame)
        memory = memory._replace(last=drift.latest(memory.last, frame, self.fresh))
        memory = drift.take_key(memory, frame, self.take_key())
        moved, keyed, self.drift = drift.displacement(noise.displacement, c, self.rays, frame, memory, dt, self.random)
        moved = torch.where(self.fresh[:, None], 0.0, moved)
        self.fresh = torch.zeros_like(self.fresh)
        self._remember(truth, maps.seen, turn, dt)
        return Sight(maps.inverse_range, maps.log_variance, maps.pipeline, tracks, moved, keyed)

    def take_key(self) -> Tensor:
        """(N,) where the key frame is taken now: in `station`, KEY_S after the start."""
        if self.name != "station":
            return torch.zeros_like(self.fresh)
        now = self.key[:, 0].isnan() & (self.elapsed >= policy_input.KEY_S)
        self.key = torch.where(now[:, None], self.state.position, self.key)
        return now

    def _targets(self, turn: Tensor) -> found.Seen:
        course = self.course
        return found.project(
            course.targets, course.solids, course.target_ball, self.conditions, self.state.position, turn
        )

    def _pipe(self, cast: Cast) -> Tensor:
        return cast.rod[:, 0] if self.name == "inspect" else torch.zeros_like(cast.surface)

    def _remember(self, truth: found.Seen, seen: Tensor, turn: Tensor, dt: float) -> None:
        """How long ago each thing was seen, s."""
        c, solids = self.conditions, self.course.solids

        def ago(before: Tensor, seen: Tensor) -> Tensor:
            return torch.where(seen, 0.0, before + dt)

        self.rod_ago = ago(self.rod_ago, (self.cast.rod & (seen > 0.5)[:, None]).flatten(2).any(2))
        x, y, z = torch.bmm(solids.balls[..., :3] - self.state.position[:, None], turn).unbind(-1)
        radius, ahead = solids.balls[..., 3], x.clamp(min=0.1)
        inside = (y.abs() - radius < ahead * c.view[:, :1]) & (z.abs() - radius < ahead * c.view[:, 1:]) & (x > -radius)
        near = picture_maps.optical_depth(c, (x - radius).clamp(min=0.0)) < self.noise.range.fade
        self.ball_ago = ago(self.ball_ago, inside & near)
        shown = truth.inside & (picture_maps.optical_depth(c, truth.range) < self.noise.range.fade)
        self.target_ago = ago(self.target_ago, shown)

    def _situation(self, before: Tensor, touched: Tensor, joules: Tensor, dt: float) -> Situation:
        to_ball, to_rod, _, _ = gaps(self.course.solids, self.state.position)
        every = torch.cat([to_ball, to_rod], dim=1)
        gap = every.amin(1) - HULL_M if every.shape[1] else torch.full_like(joules, math.inf)
        turn = vehicle.rotation(self.state.attitude.T).permute(2, 0, 1)
        heading = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])
        inside = self._targets(turn).inside
        seen = inside[:, 0] if inside.shape[1] else torch.ones_like(touched)
        return Situation(
            self.course, before, self.state.position, heading, self.key, gap, touched, seen, joules, dt, self.elapsed,
            self.tally,
        )  # fmt: skip

    # ---- starts ------------------------------------------------------------------------------------------------

    def _draw(self, rows: Tensor) -> tuple[Course, Conditions, Hulls]:
        """Courses, conditions and hulls for the rows (K,)."""
        n = len(rows)
        few = n // self.repeat
        its = rows[:few] % len(self.levels)
        night = torch.rand(few, generator=self.random, device=self.device) < NIGHT_SHARE.get(self.name, 0.0)
        counts = [int((its == number).sum()) for number in range(len(self.levels))]
        drawn = [
            (self.task.course(level, self.split, k, self.random), conditions(level, self.split, k, self.random))
            for level, k in zip(self.levels, counts, strict=True)
            if k
        ]
        back = its.argsort(stable=True).argsort()  # from the levels, one after the other, to the rows
        course = take(join([each for each, _ in drawn]), back)
        weather = take(join([each for _, each in drawn]), back)
        weather = weather._replace(night=night)
        boats = hulls(self.hull, few, self.split, self.random)
        if self.looks:
            weather = seen_through(self.looks, weather)
        weather, boats = troubled(self.trouble, weather, boats, self.random)
        if self.repeat > 1:
            every = torch.arange(n, device=self.device) % few
            course, weather = take(course, every), take(weather, every)
            boats = boats.rows(every)
        return course, weather, boats

    def _placed(self, course: Course, weather: Conditions) -> State:
        n = len(course.depth)
        state = vehicle.rest(self.hulls.model, n)
        zero = torch.zeros_like(course.depth)
        position = torch.stack([zero, zero, course.depth], dim=1)
        angles = torch.stack([zero, zero, course.heading], dim=1)
        return state._replace(position=position, attitude=quaternion(angles), charge=weather.charge)

    def _restart(self, rows: Tensor) -> None:
        """Start the rows (K,) anew."""
        k = len(rows)
        course, weather, boats = self._draw(rows)
        state = self._placed(course, weather)
        still = self._water(torch.zeros(k, 2, device=self.device))
        memory = sensors.switch_on(self.suite, state, still, self.random)
        readings, memory = sensors.sense(self.suite, state, still, memory, self.random)
        self.course, self.conditions = put(self.course, rows, course), put(self.conditions, rows, weather)
        self.hulls = self.hulls.put(rows, boats)
        self.state, self.memory = put(self.state, rows, state), put(self.memory, rows, memory)
        self.readings = put(self.readings, rows, readings)
        self.helm.restart(rows, self.readings, boats.stick_limit, weather.late, weather.behind)
        self.rays = rays(self.conditions.view)
        self.errors = put(self.errors, rows, picture_maps.start_errors(k, self.random, self.places))
        around = stones.around(course, self.noise.of_tracks(self.name), self.places)
        self.stones = put(self.stones, rows, around)
        self.tracker = put(self.tracker, rows, stones.start_tracker(course, around, self.random))
        self.tally = put(self.tally, rows, start_tally(k, self.device))
        zero = torch.zeros(k, device=self.device)
        self.gust, self.elapsed = put(self.gust, rows, zero[:, None].expand(k, 2)), put(self.elapsed, rows, zero)
        self.previous = put(self.previous, rows, zero[:, None].expand(k, 4))
        self.start = put(self.start, rows, torch.stack([readings.attitude[:, 2], readings.depth], dim=1))
        self.key = put(self.key, rows, zero[:, None].expand(k, 3) + math.nan)
        for each in (self.ball_ago, self.rod_ago, self.target_ago):
            each[rows] = math.inf
        assert self.drift is not None
        self.drift = self.drift._replace(
            keyed=put(self.drift.keyed, rows, zero > 1),
            lost=put(self.drift.lost, rows, (zero > 1)[:, None].expand(k, 2)),
        )
        self.fresh[rows] = True
