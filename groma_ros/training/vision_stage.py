"""Training loop of stage 1: batches, updates, log, measurements, checkpoints."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from groma_ros.model.groma import Groma
from groma_ros.training.attention import FROZEN_ATTENTION
from groma_ros.training.attention import NAME as ATTENTION
from groma_ros.training.config import Part, TrainConfig
from groma_ros.training.data import Data, scenes_data
from groma_ros.training.detection import Auxiliary, Batch, Names, draw_batch, fit_heads, measure, train_step
from groma_ros.training.optimiser import Optimiser, Schedule, save_checkpoint
from groma_ros.training.parallel import TrainingProcess

LOG_EVERY, SAVE_EVERY, MEASURE_EVERY = 10, 40, 500
HEAD_STEPS = 40


def build(config: TrainConfig, device: torch.device, names: Names | None = None) -> tuple[Groma, Auxiliary]:
    """Build the network and its auxiliary heads from the seed, equal in every worker."""
    torch.manual_seed(config.seed)
    c = config.network
    model = Groma(c)
    crops = c.region.hidden if c.region.crop else 0
    heads = Auxiliary(c.backbone.hidden_size, c.region_output, names or Names(), crops)
    return model.to(device), heads.to(device)


def train_detection(
    worker: TrainingProcess, config: TrainConfig, out: Path, resume: bool, data: Data | None = None
) -> None:
    """Run stage 1, from `start.pt` if it exists; writes `detection.pt` and `detection.jsonl` in `out`.

    data: training data (default: the config's scenes, rendered in `out`).
    """
    data = data or scenes_data(config, out, shared=True)
    names = data.names
    model, heads = build(config, worker.device, names)
    stage = config.detection
    trained = stage.backbone and not stage.alone
    model.perceiver.vis_encoder.config._attn_implementation = ATTENTION if trained else FROZEN_ATTENTION
    model.perceiver.vis_encoder.requires_grad_(trained)
    optimiser = Optimiser(
        _trained(model, heads, stage.alone), Schedule.of(stage), stage.weight_decay, stage.muon, stage.offsets
    )
    path = out / "detection.pt"
    first = 0

    def batch_of(*seed: int) -> Batch:
        rng = np.random.default_rng((config.seed, worker.rank, *seed))
        shares = stage.cut, stage.recoloured
        return draw_batch(data.pictures, names, stage.batch, stage.size, rng, worker.device, *shares)

    if resume and path.exists():
        saved = torch.load(path, map_location=worker.device, weights_only=True)
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    elif (out / "start.pt").exists():
        saved = torch.load(out / "start.pt", map_location=worker.device, weights_only=True)
        model.load_state_dict(saved["model"])
        if not stage.alone:
            fit_heads(model, heads, (batch_of(step, 3) for step in range(HEAD_STEPS)), worker)
            model.perceiver.vis_encoder.requires_grad_(stage.backbone)
    elif stage.alone:
        raise ValueError(
            f"alone: {stage.alone} trains one part of a network that exists already; give --start BUNDLE."
        )
    started = time.time()
    for step in worker.steps(first, stage.steps, "detection"):
        numbers = train_step(model, heads, optimiser, batch_of(step), step, worker, config.seed, stage.alone)
        if not worker.speaks:
            continue
        done = step + 1
        if done % LOG_EVERY == 0:
            rate = (done - first) * stage.batch * worker.count / (time.time() - started)
            log(out / "detection.jsonl", {"step": done, "pictures_per_second": round(rate, 1), **numbers})
        if done % SAVE_EVERY == 0 or done == stage.steps:
            save_checkpoint(
                path,
                model=model.state_dict(),
                heads=heads.state_dict(),
                optimiser=optimiser.state_dict(),
                step=done,
            )
        if data.held_out and (done % MEASURE_EVERY == 0 or done == stage.steps):
            found = measure(model, heads, data.held_out, 100, stage.size, worker.device, stage.alone)
            if stage.alone in ("proposer", "refiner"):  # the heads were not trained
                found = {name: value for name, value in found.items() if name not in ("kind", "colour")}
            log(out / "detection.jsonl", {"step": done, "held_out": found})


def _trained(model: Groma, heads: Auxiliary, alone: Part) -> list[nn.Module]:
    """The modules that a stage trains."""
    if alone == "proposer":
        return [model.perceiver]
    if alone == "refiner":
        assert model.perceiver.refiner is not None
        return [model.perceiver.refiner]
    if alone == "crops":
        assert model.region_encoder.crop is not None
        return [model.region_encoder.crop, heads]
    return [model.perceiver, model.region_encoder, heads]


def log(path: Path, entry: dict[str, object]) -> None:
    """Append a line to a stage's log and print it; on a terminal, where a bar shows the steps, only
    measurements on held-out data are printed."""
    line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()})
    if "held_out" in entry or not (sys.stdout.isatty() and sys.stderr.isatty()):
        print(line, flush=True)
    with path.open("a") as stream:
        stream.write(line + "\n")
