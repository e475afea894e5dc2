"""Labelled pictures for training. Every set has a card, `dataset.toml`: where it is from, what one may do with it, what
it labels and what it does not show. Training refuses a set without a complete card.

`python -m models.data` imports, checks, splits and merges sets, and shows their cards.
"""

from models.data.card import Card as Card
from models.data.card import Split as Split
from models.data.errors import DataError as DataError
from models.data.samples import CLASSES as CLASSES
from models.data.samples import Sample as Sample
from models.data.samples import card_entry as card_entry
from models.data.samples import fingerprint as fingerprint
from models.data.samples import labelled as labelled
from models.data.samples import load as load
from models.data.samples import load_card as load_card
from models.data.samples import rendered as rendered
from models.data.sets import cards as cards
from models.data.sets import data_root as data_root
