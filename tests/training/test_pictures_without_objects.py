"""Pictures that show no object: every stage takes steps on batches of them and keeps finite weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groma_ros.training.config import Part
from groma_ros.training.config_parts import QUESTION_KINDS
from groma_ros.training.data import Data
from groma_ros.training.detection import Names
from groma_ros.training.joint_stage import train_joint
from groma_ros.training.language_stage import train_language
from groma_ros.training.optimiser import save_checkpoint
from groma_ros.training.pool import Shard
from groma_ros.training.vision_stage import build, train_detection
from groma_ros.types import Intrinsics
from tests.training.test_training import ALONE, CONFIG

REGION = dataclasses.replace(CONFIG.network.region, crop=(4, 8), crop_side=16)
PROPOSER = dataclasses.replace(CONFIG.network.proposer, crop=(4, 8), crop_side=16)
NETWORK = dataclasses.replace(CONFIG.network, region=REGION, proposer=PROPOSER)


def empty_pictures() -> Data:
    images = np.random.default_rng(0).integers(0, 255, (4, 112, 112, 3), np.uint8)
    camera = Intrinsics(100, 100, 56, 56, 112, 112)
    return Data([Shard("table-0", images, [()] * 4, [camera] * 4, 0)])


def weights_after(path: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(path, weights_only=True)["model"]
    assert all(bool(value.isfinite().all()) for value in saved.values() if value.is_floating_point())
    return saved


@pytest.mark.parametrize("alone", ["", "proposer", "crops", "refiner"])
def test_stage_detection(alone: Part, tmp_path: Path) -> None:
    stage = dataclasses.replace(CONFIG.detection, alone=alone, cut=0.5, recoloured=0.5)
    config = dataclasses.replace(CONFIG, network=NETWORK, detection=stage)
    model, _ = build(config, torch.device("cpu"))
    save_checkpoint(tmp_path / "start.pt", model=model.state_dict(), step=0)
    train_detection(ALONE, config, tmp_path, resume=False, data=empty_pictures())
    weights_after(tmp_path / "detection.pt")


def test_a_picture_without_objects_has_whole_numbers_as_labels() -> None:
    kinds, colours = Names().labels([], torch.device("cpu"))
    assert kinds.dtype == colours.dtype == torch.long and len(kinds) == len(colours) == 0


def test_stages_alignment_and_language_learn_that_nothing_is_there(tmp_path: Path) -> None:
    share = {name: 2.0 for name in QUESTION_KINDS}
    alignment, language = (
        dataclasses.replace(stage, share=share) for stage in (CONFIG.alignment, CONFIG.language)
    )
    config = dataclasses.replace(CONFIG, network=NETWORK, alignment=alignment, language=language)
    model, heads = build(config, torch.device("cpu"))
    save_checkpoint(tmp_path / "detection.pt", model=model.state_dict(), heads=heads.state_dict(), step=0)
    for before, name in (("detection", "alignment"), ("alignment", "language")):
        train_language(
            ALONE, config, getattr(config, name), before, name, tmp_path, resume=False, data=empty_pictures()
        )
    first, last = (weights_after(tmp_path / f"{name}.pt") for name in ("detection", "language"))
    assert any(not torch.equal(first[name], last[name]) for name in first if name.startswith("llm."))


def test_stage_joint(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, network=NETWORK, joint=CONFIG.alignment)
    model, heads = build(config, torch.device("cpu"))
    save_checkpoint(tmp_path / "start.pt", model=model.state_dict(), heads=heads.state_dict(), step=0)
    train_joint(ALONE, config, tmp_path, resume=False, data=empty_pictures())
    weights_after(tmp_path / "joint.pt")
