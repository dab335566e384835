"""Configuration of a training run, read from a YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from groma_ros.errors import quoted
from groma_ros.network_config import GromaConfig
from groma_ros.tokenization.prompts import PUBLISHED_TEMPLATE, TINY_TEMPLATE, PromptTemplate
from groma_ros.training import config_parts
from groma_ros.training.config_parts import read_part
from groma_ros.yaml_files import load

_TEMPLATES = {"tiny": TINY_TEMPLATE, "published": PUBLISHED_TEMPLATE}
_REQUIRED = ("network", "detection", "alignment", "language")
Part = Literal["", "proposer", "crops", "refiner"]
"""A part that stage 1 can train alone."""


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes with consecutive seeds."""

    first_seed: int
    scenes: int
    """Number of scenes."""
    size: int = 280
    """Side of the pictures, pixels."""
    world: str = "table"
    """One of `simulation.worlds`, or "mixed"."""
    share: int = 1
    """How often a scene of this entry is drawn in stage 1, against those of other entries; 1 or more."""


@dataclass(frozen=True)
class Stage:
    """Settings of one stage."""

    steps: int
    """Number of updates."""
    batch: int
    """Pictures of each worker in an update."""
    rate: float
    """Learning rate."""
    warmup: int = 200
    """Updates during which the rate rises from 0."""
    decay: int = 0
    """Updates at the end during which the rate falls to 0."""
    weight_decay: float = 0.01
    cosine: bool = False
    """The rate falls as half a cosine after the warm-up, and `decay` is ignored."""
    muon: bool = True
    """Muon updates the matrices inside blocks; otherwise AdamW updates everything."""
    backbone: bool = True
    """The backbone is trained (stage 1 only)."""
    cut: float = 0.0
    """Share of the pictures that are cropped so that their border cuts objects (stage 1 only)."""
    recoloured: float = 0.3
    """Share of the pictures whose colours are changed, and whose objects' colours are then not known (stage
    1; other stages see `LanguageStage.recoloured`)."""
    alone: Part = ""
    """The only part that stage 1 trains, empty for all. proposer: the tokens of pictures and of given boxes
    stay as they are, so the language model needs no further training. crops: the convolutions over the pixels
    of boxes learn kinds and colours; the layer that adds them to the tokens learns in the later stages.
    refiner: the convolutions that correct proposals."""
    offsets: float = 1.0
    """Factor on the rate of the deformable attention's sampling offsets."""
    size: int = 224
    """Side of the network's input during training, pixels."""


@dataclass(frozen=True)
class LanguageStage(Stage):
    """Settings of a stage that trains the language model."""

    share: dict[str, float] = field(default_factory=dict)
    """Questions of each kind per picture; a fraction is a probability."""
    live: bool = False
    """Compute features from pictures at every step and train the region encoder and the bridge too; otherwise
    features are cached."""
    scenes: int = 0
    """Cache the first so many scenes of every pool and their mirror images; 0 for all."""
    recoloured: float = 0.0
    """Share of live pictures whose colours are changed; goals and descriptions are then about kinds only."""
    relit: float = 0.0
    """Share of the other live pictures whose light is changed."""
    reworded: float = 0.0
    """Share of goals reworded by `simulation.paraphrases`."""
    said: float = 0.0
    """Share of the other goals worded by `simulation.wording`."""
    language: bool = True
    """Train the whole language model, not only the new tokens."""
    tied: bool = True
    """Use one table as input and output embeddings of the new tokens."""
    pointing: float = 1.0
    """Weight of the loss that supervises one attention head with the region to name; 0 for none."""
    inject: bool = False
    """Add the true boxes to the proposals."""
    vision: float = 1.0
    """Weight of the losses of boxes, kinds and colours (stage `joint`)."""
    frozen: int = 0
    """Number of the backbone's first blocks that are not trained (stage `joint`)."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a whole run."""

    network: GromaConfig
    detection: Stage
    alignment: LanguageStage
    language: LanguageStage
    pool: tuple[Scenes, ...] = ()
    """Scenes to train on, rendered from their seeds. A file may name one, a list, or none if annotation files
    are given instead."""
    held_out: Scenes | None = None
    """Scenes for evaluation only."""
    seed: int = 0
    workers: int = 2
    """Number of CPU processes."""
    earlier: tuple[Scenes, ...] = ()
    """Scenes that the initial weights were trained on."""
    usual: tuple[str, ...] = ()
    """Worlds whose pictures do not count as unusual in the bundle's `familiarity`; empty for all."""
    prompts: str = "tiny"
    """Prompt template: "tiny" or "published"."""
    average: dict[str, float] = field(default_factory=dict)
    """Share of each stage's final weights in the bundle; empty for those of the last stage that ran."""
    joint: LanguageStage | None = None
    """The stage that replaces the three others when a run starts from weights that already answer."""

    @property
    def template(self) -> PromptTemplate:
        """Prompt template of the network."""
        return _TEMPLATES[self.prompts]

    def _check_parts(self) -> None:
        """Raise ValueError if a stage trains a part alone that it cannot."""
        stages = {"alignment": self.alignment, "language": self.language, "joint": self.joint}
        if wrong := [name for name, stage in stages.items() if stage is not None and stage.alone]:
            raise ValueError(f"{wrong[0]} has alone; only detection can train a part alone")
        if (alone := self.detection.alone) not in get_args(Part):
            parts = ", ".join(filter(None, get_args(Part)))
            raise ValueError(f"detection: alone is {alone!r}; the parts are {parts}")
        if alone in ("crops", "refiner") and self.detection.muon:
            raise ValueError(f"detection: alone: {alone} has no matrices for Muon; write muon: false")
        if alone == "crops" and not self.network.region.crop:
            raise ValueError("detection: alone is crops, but the network has none (region_cfg: crop)")
        if alone == "refiner" and not self.network.proposer.crop:
            raise ValueError("detection: alone is refiner, but the network has none (ddetr_cfg: crop)")

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a YAML file. Raises ValueError naming the file, the key and what is wrong."""
        try:
            return cls._read(load(path))
        except OSError as error:
            raise ValueError(f"The training config {path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"The training config {path} cannot be used: {reason}.") from error

    @classmethod
    def _read(cls, document: Any) -> TrainConfig:
        """Check the values of a file. Raises ValueError."""
        data = config_parts.mapping("", document, [item.name for item in dataclasses.fields(cls)])
        if missing := [name for name in _REQUIRED if name not in data]:
            raise ValueError(f"it has no {missing[0]}; config/train_tiny.yaml is an example of a whole file")
        read: dict[str, Any] = {name: _READERS[name](name, value) for name, value in data.items()}
        worlds = {scenes.world for scenes in read.get("pool", ())}
        if unknown := [name for name in read.get("usual", ()) if name not in worlds]:
            raise ValueError(f"usual names the world {quoted(unknown[0])}, which is not in pool")
        config = cls(**read)
        config._check_parts()
        return config


def _scenes(place: str, value: Any) -> Scenes:
    return read_part(Scenes, place, value, {**config_parts.LEAST, **config_parts.OF_SCENES})


def _list_of_scenes(place: str, value: Any) -> tuple[Scenes, ...]:
    """Read one entry or a list of them."""
    if not isinstance(value, list):
        return (_scenes(place, value),)
    return tuple(_scenes(f"{place}[{index}]", entry) for index, entry in enumerate(value))


def _language_stage(place: str, value: Any) -> LanguageStage:
    return read_part(LanguageStage, place, value)


def _texts(place: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{place} is {quoted(value)}; it must be a list of texts")
    return tuple(value)


def _average(place: str, value: Any) -> dict[str, float]:
    """Read shares of stages, which sum to 1."""
    found = config_parts.shares(place, value, (*_REQUIRED[1:], "joint"))
    if found and abs(sum(found.values()) - 1) > 1e-6:
        raise ValueError(f"the shares of {place} sum to {sum(found.values()):g}; they must sum to 1")
    return found


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "network": lambda place, value: config_parts.network(value),
    "detection": lambda place, value: read_part(Stage, place, value),
    "alignment": _language_stage,
    "language": _language_stage,
    "joint": lambda place, value: None if value is None else _language_stage(place, value),
    "pool": _list_of_scenes,
    "earlier": _list_of_scenes,
    "held_out": lambda place, value: None if value is None else _scenes(place, value),
    "seed": lambda place, value: config_parts.whole(place, value, 0),
    "workers": lambda place, value: config_parts.whole(place, value, 1),
    "usual": _texts,
    "prompts": lambda place, value: config_parts.one_of(place, value, _TEMPLATES),
    "average": _average,
}
"""How each setting of a file is read: a function of its key and its value."""
