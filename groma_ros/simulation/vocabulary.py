"""Names of the kinds and colours in scenes of any source, with plurals and synonyms.

`shapes.KINDS` and `colours.COLOURS` belong to the worlds table, shelf and room and must not change, because
figures are compared on their scenes. Append new names here: the order of `KIND_NAMES` gives the category ids
of written folders.
"""

from __future__ import annotations

from dataclasses import dataclass

from groma_ros.simulation.colours import COLOURS
from groma_ros.simulation.shapes import KINDS

MORE_KINDS = (
    "can", "carton", "cereal box", "loaf", "lemon", "chair", "desk", "barrel", "barrier", "door", "tree",
    "duck", "key", "keycard", "medkit", "potion", "building", "pot", "hammer", "nut", "plate", "bin",
    "pine tree",
)  # fmt: skip
KIND_NAMES = (*KINDS, *MORE_KINDS)
COLOUR_NAMES = (*COLOURS, "brown", "grey")

_SIBILANTS = ("x", "s", "sh", "ch")


@dataclass(frozen=True)
class Vocabulary:
    """Names that goals of a world may use."""

    kinds: tuple[str, ...]
    colours: tuple[str, ...]


FIRST_WORDS = Vocabulary(KINDS, COLOURS)
"""Vocabulary of the worlds table, shelf and room."""
ALL_WORDS = Vocabulary(KIND_NAMES, COLOUR_NAMES)

SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet"),
    "orange": ("amber",),
    "yellow": ("golden",),
    "green": ("emerald",),
    "blue": ("navy",),
    "purple": ("violet",),
    "white": ("ivory",),
    "black": ("dark",),
    "pink": ("rosy",),
    "cyan": ("turquoise", "teal"),
    "brown": ("chocolate",),
    "grey": ("gray",),
    "box": ("block", "crate", "cube"),
    "ball": ("sphere",),
    "cylinder": ("roll", "tube"),
    "capsule": ("pill",),
    "mug": ("cup",),
    "bowl": ("dish",),
    "bottle": ("flask",),
    "cone": ("pylon",),
    "ring": ("hoop",),
    "can": ("tin", "soda can"),
    "carton": ("milk carton", "milk"),
    "cereal box": ("cereal", "box of cereal"),
    "loaf": ("bread", "loaf of bread"),
    "lemon": ("citrus",),
    "chair": ("office chair", "seat"),
    "desk": ("office desk",),
    "barrel": ("keg",),
    "barrier": ("barricade",),
    "door": ("doorway",),
    "tree": ("oak tree",),
    "pine tree": ("pine", "fir"),
    "duck": ("duckie", "rubber duck"),
    "key": ("latchkey",),
    "keycard": ("access card",),
    "medkit": ("first aid kit",),
    "potion": ("elixir",),
    "building": ("house",),
    "pot": ("saucepan",),
    "hammer": ("mallet",),
    "nut": ("hex nut",),
    "plate": ("platter",),
    "bin": ("container",),
}
"""Other words for kinds and colours; each means one of them. Training uses these."""

HELD_OUT_SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("ruby",),
    "orange": ("tangerine",),
    "yellow": ("canary",),
    "green": ("lime",),
    "blue": ("azure",),
    "purple": ("mauve",),
    "white": ("snowy",),
    "black": ("ebony",),
    "pink": ("salmon",),
    "cyan": ("aqua",),
    "box": ("cuboid",),
    "ball": ("orb", "globe"),
    "cylinder": ("drum",),
    "capsule": ("tablet",),
    "mug": ("teacup",),
    "bowl": ("basin",),
    "bottle": ("flagon",),
    "cone": ("traffic cone",),
    "ring": ("torus",),
    "can": ("beverage can",),
    "lemon": ("lemon fruit",),
}
"""Synonyms that training does not contain, for evaluation only."""


def plural(name: str) -> str:
    """The plural of a kind's name or of a synonym."""
    if " of " in name:
        head, _, rest = name.partition(" of ")
        return f"{plural(head)} of {rest}"
    if name.endswith("loaf"):
        return name[:-1] + "ves"
    return name + "es" if name.endswith(_SIBILANTS) else name + "s"


def with_article(noun: str) -> str:
    """ "a mug", "an orange box"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
