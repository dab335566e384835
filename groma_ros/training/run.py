"""`groma train`: render, detect, align, answer, publish. Every step goes on where an earlier run stopped."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import torch

from groma_ros.image import ImageTransform
from groma_ros.model.checkpoint import load_weights, original_state_dict
from groma_ros.model.groma import Groma
from groma_ros.prompts import TINY_TEMPLATE
from groma_ros.runtime.bundle import MANIFEST, TOKENIZER, WEIGHTS, Bundle
from groma_ros.training.config import TrainConfig
from groma_ros.training.language_stage import load_tokenizer, train_language
from groma_ros.training.optimiser import save_checkpoint
from groma_ros.training.parallel import launch
from groma_ros.training.pool import render_pool
from groma_ros.training.vision_stage import build, train_detection

STAGES = ("detection", "alignment", "language")


def train(
    config_path: Path, out: Path, bundle: Path | None, resume: bool, stages: tuple[str, ...] = STAGES, start: Path | None = None
) -> None:
    """Run the stages of a config and write the bundle.

    out: folder of scenes, checkpoints and logs; resume: go on from the checkpoints there; start: a bundle whose weights the first
    of the stages begins from when there is no checkpoint. Raises ValueError for a config or folder that cannot be used.
    """
    config = TrainConfig.load(config_path)
    wrong = [name for name in stages if name not in STAGES]
    if wrong:
        raise ValueError(f"There is no training stage {wrong[0]!r}; the stages are {', '.join(STAGES)}.")
    out.mkdir(parents=True, exist_ok=True)
    for scenes in (config.pool, config.held_out):
        render_pool(out / "pool", scenes.first_seed, scenes.scenes, scenes.size, config.workers)
    checkpoint = out / f"{_before(stages[0])}.pt"
    if start is not None and not checkpoint.exists():
        _begin_from(start, config, checkpoint)
    load_tokenizer(config, out)  # once, before several workers want it
    if "detection" in stages:
        launch(train_detection, config.workers, config, out, resume)
    for name in ("alignment", "language"):
        if name in stages:
            launch(train_language, config.workers, config, getattr(config, name), _before(name), name, out, resume)
    if bundle is not None:
        publish(config, out, stages[-1], bundle)


def _before(stage: str) -> str:
    """The checkpoint a stage starts from."""
    index = STAGES.index(stage)
    return STAGES[index - 1] if index else "start"


def _begin_from(bundle: Path, config: TrainConfig, checkpoint: Path) -> None:
    model, heads = build(config, torch.device("cpu"))
    load_weights(model, Bundle.load(bundle).file(WEIGHTS), torch.float32)
    save_checkpoint(checkpoint, model=model.state_dict(), heads=heads.state_dict(), step=0)
    # Its weights know the words by its own vocabulary.
    shutil.copyfile(Bundle.load(bundle).file(TOKENIZER), checkpoint.with_name("tokenizer.model"))


def publish(config: TrainConfig, out: Path, stage: str, directory: Path) -> None:
    """Write the bundle of a checkpoint, still without an accuracy table."""
    saved = torch.load(out / f"{stage}.pt", map_location="cpu", weights_only=True)
    model = Groma(config.network)
    model.load_state_dict(saved["model"])
    load_tokenizer(config, out)
    description = Bundle(
        directory=directory,
        name=directory.name,
        network=config.network.to_dict(),
        image=ImageTransform(config.network.image_size, resize="area"),
        prompt=TINY_TEMPLATE.to_dict(),
        trained_on=(
            f"{config.pool.scenes} tabletop scenes rendered by groma_ros.simulation, the language model on the first "
            f"{config.language.scenes or config.pool.scenes} and their mirror images, goals of its grammar; knows nothing else"
        ),
        licence="Apache-2.0",
        seeds={
            "training_scenes": [config.pool.first_seed, config.pool.first_seed + config.pool.scenes - 1],
            "held_out_scenes": [config.held_out.first_seed, config.held_out.first_seed + config.held_out.scenes - 1],
            "run": config.seed,
            "stage": stage,
            "step": saved["step"],
        },
    )
    tensors = {name: value.float().numpy() for name, value in original_state_dict(model).items()}
    description.write(tensors, (out / "tokenizer.model").read_bytes())


def add_table(directory: Path, table: dict[str, object]) -> None:
    """Put the accuracy table of `groma eval scenes` into a bundle's manifest."""
    files = json.loads((directory / MANIFEST).read_text())["files"]
    dataclasses.replace(Bundle.load(directory), test=table).write_manifest(files)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `groma train`."""
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the run, such as config/train_tiny.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of scenes, checkpoints and logs (default: runs)")
    parser.add_argument("--bundle", type=Path, help="folder to write the finished bundle to")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"stages to run, in order (default: {','.join(STAGES)})")
    parser.add_argument("--start", type=Path, help="bundle whose weights the first of the stages begins from")


def run_train(arguments: argparse.Namespace) -> int:
    """`groma train`; returns the exit status."""
    stages = tuple(arguments.stages.split(","))
    train(arguments.config, arguments.out, arguments.bundle, arguments.resume, stages, arguments.start)
    return 0
