"""The catalogue of things, each built of parts from a random generator, a place and a scale.

Things face x, with y to their right and z down; lengths in m. Colours are linear reflectances, judged from pictures.
"""

from __future__ import annotations

from sim.scene.things.animals import fish, jellyfish, school, shark, starfish, stingray
from sim.scene.things.bottom import boulders, coral, rock, weed
from sim.scene.things.built import BUOYS, buoy, channel, gate, marker, pile, pipeline
from sim.scene.things.diver import diver
from sim.scene.things.litter import bag, bottle, can
from sim.scene.things.variation import Maker

CATALOGUE: dict[str, Maker] = {
    **{f"buoy_{colour}": buoy(colour) for colour in BUOYS},
    "gate": gate,
    "channel": channel,
    "marker": marker,
    "rock": rock,
    "boulders": boulders,
    "coral": coral,
    "weed": weed,
    "bottle": bottle,
    "can": can,
    "bag": bag,
    "starfish": starfish,
    "fish": fish,
    "school": school,
    "jellyfish": jellyfish,
    "shark": shark,
    "stingray": stingray,
    "diver": diver,
    "pipeline": pipeline,
    "pile": pile,
}
"""The kinds that `[[things]]` of a world may name."""
LABELS = (
    "buoy_red",
    "buoy_green",
    "buoy_yellow",
    "gate_post",
    "channel",
    "bottle",
    "bag",
    "metal",
    "rock",
    "fish",
    "jellyfish",
    "shark",
    "stingray",
    "starfish",
    "diver",
    "pipeline",
)
"""Classes of the labels; all but the last are the detector's."""
