"""`groma train`: render scenes, run the stages, write the bundle. Every step resumes an interrupted run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groma_ros.errors import printable
from groma_ros.grounding.familiarity import Familiarity
from groma_ros.model.checkpoint import original_state_dict
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.preprocessing import ImageTransform
from groma_ros.runtime.bundle import MANIFEST, TOKENIZER, Bundle
from groma_ros.runtime.model_paths import find_model
from groma_ros.training.config import LanguageStage, Scenes, TrainConfig
from groma_ros.training.data import Data, files_data, scenes_data
from groma_ros.training.data_files import KINDS as FILE_KINDS
from groma_ros.training.familiarity import add, fit
from groma_ros.training.joint_stage import train_joint
from groma_ros.training.language_stage import load_tokenizer, train_language
from groma_ros.training.optimiser import save_checkpoint
from groma_ros.training.parallel import joined, launch
from groma_ros.training.pool import render_pool
from groma_ros.training.vision_stage import build, train_detection
from groma_ros.training.warm_start import load_start

STAGES = ("detection", "alignment", "language")
JOINT = "joint"
FILE_SHARE = {"one": 3.0, "all": 2.0, "absent": 1.0, "describe": 2.0}


@dataclass(frozen=True)
class TrainingRun:
    """Arguments of `groma train`."""

    config: Path
    """YAML file."""
    out: Path
    """Folder of scenes, checkpoints and logs."""
    bundle: Path | None = None
    """Folder for the resulting bundle."""
    resume: bool = False
    """Resume from the checkpoints in `out`."""
    stages: tuple[str, ...] = STAGES
    """Some of `STAGES`, in order."""
    start: Path | None = None
    """Bundle with the initial weights, used if there is no checkpoint."""
    data: tuple[Path, ...] = ()
    """Training files in the formats of `data_files`, instead of the config's scenes."""
    held_out: tuple[Path, ...] = ()
    """Evaluation files in the same formats."""
    images: Path | None = None
    """Folder of the files' pictures; None for the folder of each file."""


def train(run: TrainingRun) -> None:
    """Run the stages of a config and write the bundle. Raises ValueError for a config, folder or file that
    cannot be used."""
    config = TrainConfig.load(run.config)
    wrong = [name for name in run.stages if name not in (*STAGES, JOINT)]
    if wrong:
        raise ValueError(
            f"There is no training stage {wrong[0]!r}; the stages are {', '.join((*STAGES, JOINT))}."
        )
    if JOINT in run.stages and config.joint is None:
        raise ValueError(f"{run.config} has no stage {JOINT}; leave it out of --stages.")
    if not (config.pool or run.data):
        raise ValueError(f"{run.config} names no scenes to render; give --data with files to learn from.")
    data = files_data(run.data, run.images, run.held_out) if run.data else None
    worker = joined()
    if worker is None or worker.speaks:
        _prepare(run, config, data)
    if worker is not None:
        worker.wait()
    for name in run.stages:
        if name == "detection":
            launch(train_detection, config.workers, config, run.out, run.resume, data)
        elif name == JOINT:
            launch(train_joint, config.workers, config, run.out, run.resume, data)
        else:
            stage = _for_files(getattr(config, name)) if data else getattr(config, name)
            launch(
                train_language, config.workers, config, stage, _before(name), name, run.out, run.resume, data
            )
    if run.bundle is not None and (worker is None or worker.speaks):
        publish(config, run.out, run.stages[-1], run.bundle, data, run.start)


def _for_files(stage: LanguageStage) -> LanguageStage:
    """Return the stage with kinds of questions that annotation files answer, unless it has such already."""
    if set(FILE_KINDS) & set(stage.share):
        return stage
    return dataclasses.replace(stage, share=FILE_SHARE, inject=True)


def _prepare(run: TrainingRun, config: TrainConfig, data: Data | None) -> None:
    """Prepare what all processes share, in one of them: scenes, the initial checkpoint, the vocabulary."""
    run.out.mkdir(parents=True, exist_ok=True)
    for note in data.notes if data is not None else ():
        print(f"groma: {printable(note)}", file=sys.stderr, flush=True)
    if data is None:
        for scenes in (*config.pool, *([config.held_out] if config.held_out else [])):
            render_pool(run.out / "pool", scenes, config.workers)
    checkpoint = run.out / f"{_before(run.stages[0])}.pt"
    if run.start is not None and not checkpoint.exists():
        _begin_from(run.start, config, checkpoint, data)
    load_tokenizer(config, run.out, data)


def _before(stage: str) -> str:
    """Name of the checkpoint that a stage starts from."""
    index = STAGES.index(stage) if stage in STAGES else 0
    return STAGES[index - 1] if index else "start"


def _begin_from(directory: Path, config: TrainConfig, checkpoint: Path, data: Data | None) -> None:
    """Write the initial checkpoint from a bundle's weights, with its vocabulary unless the config asks for a
    larger one."""
    bundle, tokenizer = Bundle.load(find_model(directory)), checkpoint.with_name(TOKENIZER)
    if GromaConfig.from_dict(bundle.network).language.vocab_size == config.network.language.vocab_size:
        shutil.copyfile(bundle.file(TOKENIZER), tokenizer)
    load_tokenizer(config, checkpoint.parent, data)
    model, heads = build(config, torch.device("cpu"))
    load_start(model, bundle, tokenizer)
    save_checkpoint(checkpoint, model=model.state_dict(), heads=heads.state_dict(), step=0)


def publish(
    config: TrainConfig,
    out: Path,
    stage: str,
    directory: Path,
    data: Data | None = None,
    start: Path | None = None,
) -> None:
    """Write the bundle of a checkpoint, without an accuracy table. data: the files it was trained on, if any;
    start: the bundle that its weights, and its known words, started from."""
    shares = config.average or {stage: 1.0}
    saved = [torch.load(out / f"{name}.pt", map_location="cpu", weights_only=True) for name in shares]
    model = Groma(config.network)
    model.load_state_dict(_mean([one["model"] for one in saved], list(shares.values())))
    load_tokenizer(config, out, data)
    scenes = f"{_worlds(config)} rendered by groma_ros.simulation, goals of its grammar; knows nothing else"
    files = ", ".join(f"{len(one.objects)} pictures of {one.name}" for one in data.pictures) if data else ""
    description = Bundle(
        directory=directory,
        name=directory.name,
        network=config.network.to_dict(),
        image=ImageTransform(config.network.image_size, resize="area"),
        prompt=config.template.to_dict(),
        trained_on=files or scenes,
        licence="" if files else "Apache-2.0",  # only the user knows the licence of the files
        seeds={
            **({} if files else _scene_seeds(config)),
            "run": config.seed,
            "stage": " and ".join(shares),
            "step": saved[-1]["step"],
        },
    )
    tensors = {name: value.float().numpy() for name, value in original_state_dict(model).items()}
    description.write(tensors, (out / "tokenizer.model").read_bytes())
    if (known := fit(model.eval(), data or scenes_data(config, out), config.usual)) is not None:
        earlier = Familiarity.load(Bundle.load(find_model(start))) if start is not None else None
        words = known.words | (earlier.words if earlier is not None else frozenset())
        add(directory, dataclasses.replace(known, words=words))


def _mean(weights: list[dict[str, torch.Tensor]], shares: list[float]) -> dict[str, torch.Tensor]:
    """Weighted mean of the floating-point tensors; other tensors are taken from the first checkpoint. shares
    sum to 1."""
    return {
        name: sum((one[name] * share for one, share in zip(weights, shares, strict=True)), torch.zeros(()))
        if value.is_floating_point()
        else value
        for name, value in weights[0].items()
    }


def _scene_seeds(config: TrainConfig) -> dict[str, Any]:
    learnt = [_seeds(scenes) for scenes in (*config.earlier, *config.pool)]
    return {
        "training_scenes": learnt,
        **({"held_out_scenes": _seeds(config.held_out)} if config.held_out else {}),
    }


def _seeds(scenes: Scenes) -> list[int]:
    return [scenes.first_seed, scenes.first_seed + scenes.scenes - 1]


def _worlds(config: TrainConfig) -> str:
    """ "16000 mixed and 6000 shelf scenes"."""
    return (
        " and ".join(f"{scenes.scenes} {scenes.world}" for scenes in (*config.earlier, *config.pool))
        + " scenes"
    )


def add_table(directory: Path, table: dict[str, object]) -> None:
    """Add the accuracy table of `groma eval scenes` to a bundle's manifest."""
    files = json.loads((directory / MANIFEST).read_text())["files"]
    dataclasses.replace(Bundle.load(directory), test=table).write_manifest(files)
