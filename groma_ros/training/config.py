"""What a training run is, as one dataclass read from a YAML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from groma_ros.model.config import GromaConfig


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes by seed; size: side in pixels."""

    first_seed: int
    scenes: int
    size: int = 280


@dataclass(frozen=True)
class Stage:
    """One stage: updates, pictures a worker and update, learning rate, warm-up and decay in updates."""

    steps: int
    batch: int
    rate: float
    warmup: int = 200
    decay: int = 0
    weight_decay: float = 0.01
    size: int = 224  # side of the network's input while training


@dataclass(frozen=True)
class LanguageStage(Stage):
    """A stage of the language model. share: questions of each kind a scene (a fraction is a chance); live: features are made
    from pictures at every step and the region encoder and the bridge learn too; otherwise features are cached, of the first
    `scenes` of the pool and their mirror images."""

    share: dict[str, float] = field(default_factory=dict)
    live: bool = False
    scenes: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. Scenes are rendered anew from their seeds; held_out scenes are only ever measured on."""

    network: GromaConfig
    pool: Scenes
    held_out: Scenes
    detection: Stage
    alignment: LanguageStage
    language: LanguageStage
    seed: int = 0
    workers: int = 2

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a YAML file. Raises ValueError naming the file and what is wrong."""
        try:
            data = yaml.safe_load(path.read_text())
            known = {f.name for f in dataclasses.fields(cls)}
            if unknown := sorted(set(data) - known):
                raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
            kinds = {"pool": Scenes, "held_out": Scenes, "detection": Stage, "alignment": LanguageStage, "language": LanguageStage}
            parts = {k: kinds[k](**v) if k in kinds else v for k, v in data.items()}
            return cls(**{**parts, "network": GromaConfig.from_dict(data["network"])})
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            raise ValueError(f"The training config {path} cannot be used: {error}.") from error
