"""Lets the policy go as the daemon does: pictures unlike those of the training, an unsure policy, a lost place."""

from __future__ import annotations

from rov.steering.disengagement import Checkup, answer_symptom, late_symptom, picture_symptom, sanity
from rov.steering.policy_card import Cards
from rov.steering.policy_input import KEY_S, Sources
from sim.evaluation.rows import Student
from sim.tasks.rendered import RenderedSea
from sim.tasks.sea import Sea


class Watch:
    """Watches the policy on N vehicles; on noise models there is no picture to look at."""

    def __init__(self, cards: Cards, n: int):
        self.cards, self.checkups = cards, [Checkup() for _ in range(n)]

    def unfit(self, water: Sea, sources: Sources, student: Student) -> list[str]:
        """Why the policy must not steer each vehicle any more, or ""."""
        policy = self.cards.policy
        ages = sources.age_s.tolist()
        spread = student.log_variance.tolist()
        places = sources.keyed[:, 4].tolist()
        elapsed = water.elapsed.tolist()
        station, dt = water.name == "station", float(sources.dt_s[0])
        return [
            checkup.update(
                (
                    late_symptom(ages[i], policy.trained.delay_s[1]),
                    *self._picture(water, i, checkup),
                    checkup.lost(places[i], dt) if station and elapsed[i] > KEY_S else "",
                    answer_symptom([spread[i]], policy.thresholds.log_variance),
                )
            )
            for i, checkup in enumerate(self.checkups)
        ]

    def _picture(self, water: Sea, i: int, checkup: Checkup) -> tuple[str, ...]:
        if not isinstance(water, RenderedSea):
            return ()
        picture = water.pictures[i : i + 1]
        limits = self.cards.encoder.thresholds
        return checkup.frozen(picture), picture_symptom(sanity(picture), float(water.unlike[i]), limits)
