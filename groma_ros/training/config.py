"""What a training run is, as one dataclass read from a YAML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from groma_ros.network_config import GromaConfig
from groma_ros.tokenization.prompts import PUBLISHED_TEMPLATE, TINY_TEMPLATE, PromptTemplate
from groma_ros.yaml_files import load


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes by seed; size: side in pixels; world: of `simulation.worlds`, or "mixed"."""

    first_seed: int
    scenes: int
    size: int = 280
    world: str = "table"


@dataclass(frozen=True)
class Stage:
    """One stage: updates, pictures a worker and update, learning rate, warm-up and decay in updates.

    cosine: the rate falls as half a cosine after the warm-up and `decay` is not used; muon: matrices inside
    blocks are updated by Muon, otherwise all by AdamW; backbone: it learns too (stage 1 only); offsets:
    factor on the rate of the deformable attention's sampling offsets; size: side of the network's input while
    training.
    """

    steps: int
    batch: int
    rate: float
    warmup: int = 200
    decay: int = 0
    weight_decay: float = 0.01
    cosine: bool = False
    muon: bool = True
    backbone: bool = True
    offsets: float = 1.0
    size: int = 224


@dataclass(frozen=True)
class LanguageStage(Stage):
    """A stage of the language model.

    share: questions of each kind a picture (a fraction is a chance); live: features are made from pictures at
    every step and the region encoder and the bridge learn too; otherwise features are cached, of the first
    `scenes` of every pool (0: all) and their mirror images; reworded: share of goals said in other words, by
    `paraphrases`; said: of the others, share worded by `wording`; language: the language model learns, not
    only the new tokens; tied: the new tokens are read and written by one table; pointing: weight of the loss
    that shows one attention head where to look, 0 for none; inject: true boxes join the proposals; vision:
    weight of the losses of boxes, kinds and colours (stage `joint`); frozen: first blocks of the backbone
    that stay as they are (stage `joint`).
    """

    share: dict[str, float] = field(default_factory=dict)
    live: bool = False
    scenes: int = 0
    reworded: float = 0.0
    said: float = 0.0
    language: bool = True
    tied: bool = True
    pointing: float = 1.0
    inject: bool = False
    vision: float = 1.0
    frozen: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. Scenes are rendered anew from their seeds; held_out scenes are only ever measured on.

    pool: a file may give one, a list, or none where files are given to learn from; earlier: scenes that the
    weights it starts from have learnt from; prompts: "tiny" or "published"; average: share of each
    stage's last weights in the bundle (none: those of the last stage that ran); joint: the stage that takes
    the place of all three where a run goes on from weights that answer.
    """

    network: GromaConfig
    detection: Stage
    alignment: LanguageStage
    language: LanguageStage
    pool: tuple[Scenes, ...] = ()
    held_out: Scenes | None = None
    seed: int = 0
    workers: int = 2
    earlier: tuple[Scenes, ...] = ()
    prompts: str = "tiny"
    average: dict[str, float] = field(default_factory=dict)
    joint: LanguageStage | None = None

    @property
    def template(self) -> PromptTemplate:
        """How the network is asked."""
        return {"tiny": TINY_TEMPLATE, "published": PUBLISHED_TEMPLATE}[self.prompts]

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a YAML file. Raises ValueError naming the file and what is wrong."""
        try:
            data = load(path)
            if not isinstance(data, dict):
                raise ValueError("it must be a mapping from settings to values")
            known = {f.name for f in dataclasses.fields(cls)}
            if unknown := sorted(set(data) - known):
                raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
            for name in ("pool", "earlier"):
                given = data.get(name, [])
                data[name] = tuple(
                    Scenes(**scenes) for scenes in (given if isinstance(given, list) else [given])
                )
            kinds = {
                "held_out": Scenes,
                "detection": Stage,
                "alignment": LanguageStage,
                "language": LanguageStage,
            }
            kinds["joint"] = LanguageStage
            parts = {k: kinds[k](**v) if k in kinds else v for k, v in data.items()}
            return cls(**{**parts, "network": GromaConfig.from_dict(data["network"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"The training config {path} cannot be used: {error}.") from error
