"""The stage `joint`, which replaces the three others: boxes, kinds, colours and answers are learned from the
same pictures, and every part of the network is trained.

It continues from weights that already answer: region tokens do not drift away from the language model that
reads them, a picture's features are computed once for all losses, and every checkpoint is a whole network.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from groma_ros.boxes import cxcywh_to_xyxy
from groma_ros.model.detection_loss import detection_loss
from groma_ros.model.groma import Groma
from groma_ros.proposal_selection import SelectionRule, select_regions
from groma_ros.simulation.scenes import SceneSample
from groma_ros.tokenization.prompts import PromptTemplate
from groma_ros.tokenization.tokenizer import GromaTokenizer
from groma_ros.training.attention import NAME as ATTENTION
from groma_ros.training.augment import relit
from groma_ros.training.config import LanguageStage, TrainConfig
from groma_ros.training.data import Data, scenes_data
from groma_ros.training.detection import (
    WEIGHTS,
    Auxiliary,
    Batch,
    cell_labels,
    fit_heads,
    jittered,
    known_loss,
    mean,
    model_side,
    normalise,
    objectness_head,
)
from groma_ros.training.detection import (
    measure as measure_boxes,
)
from groma_ros.training.features import SceneFeatures, mirrored, owners, true_fractions
from groma_ros.training.language_stage import (
    LivePictures,
    forward,
    load_tokenizer,
    losses,
    tie,
)
from groma_ros.training.language_stage import (
    measure as measure_answers,
)
from groma_ros.training.optimiser import Optimiser, Schedule, fast, save_checkpoint
from groma_ros.training.packing import ask, pack
from groma_ros.training.parallel import TrainingProcess
from groma_ros.training.pool import Pictures, sized
from groma_ros.training.vision_stage import build, log

LOG_EVERY, SAVE_EVERY, MEASURE_EVERY = 10, 20, 200
HEAD_STEPS = 20


def draw_samples(
    pictures: Sequence[Pictures], count: int, size: int, rng: np.random.Generator
) -> list[SceneSample]:
    """Draw scenes at the network's size, half of them mirrored, with augmented light."""
    drawn = []
    for _ in range(count):
        some = pictures[int(rng.integers(len(pictures)))]
        sample = some.sample(int(rng.integers(len(some.objects))))
        sample = mirrored(sample) if some.mirrors and rng.random() < 0.5 else sample
        sample = sized(sample, size)
        drawn.append(dataclasses.replace(sample, rgb=relit(sample.rgb, rng)))
    return drawn


def as_batch(samples: Sequence[SceneSample], heads: Auxiliary, device: torch.device) -> Batch:
    """Convert scenes to a batch for the detection losses."""
    labels = [heads.names.labels(sample.objects, device) for sample in samples]
    return Batch(
        normalise(np.stack([sample.rgb for sample in samples]), device),
        [torch.from_numpy(true_fractions(sample)).to(device) for sample in samples],
        [kind for kind, _ in labels],
        [colour for _, colour in labels],
    )


def joint_terms(
    model: Groma,
    heads: Auxiliary,
    samples: list[SceneSample],
    tokenizer: GromaTokenizer,
    template: PromptTemplate,
    stage: LanguageStage,
    step: int,
    rng: np.random.Generator,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """Compute all losses of a batch from one pass through backbone, proposer and region maps."""
    c, batch = model.config, as_batch(samples, heads, device)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    with fast(device):
        states = model.perceiver.hidden(batch.pixels)
        proposals = model.perceiver.propose(states)
        levels = model.region_encoder.levels(model.region_maps(states, batch.pixels))
        boxes, real = jittered(batch.boxes, 0.04, generator)
        tokens = model.region_encoder.tokens(levels, boxes)[real]
        cells = states[-1][:, 1:]
        cell_kind, cell_colour = heads.cell_kind(cells), heads.cell_colour(cells)
        kind, colour, place = heads.kind(tokens), heads.colour(tokens), heads.place(tokens)
        with torch.no_grad():
            last = proposals.coco[-1], proposals.sa1b[-1]
            proposed = proposals.boxes[-1].float(), model.perceiver.ddetr_transformer.objectness(*last)
            found, scores = (
                value.cpu().numpy() for value in model.perceiver.refined(batch.pixels, *proposed)
            )
        rule = SelectionRule(c.box_score_thres, c.nms_thres, c.max_region_num)
        chosen = [select_regions(*pair, rule).boxes for pair in zip(found, scores, strict=True)]
        most = max(1, *(len(b) for b in chosen))
        padded = np.stack([np.concatenate([b, np.full((most - len(b), 4), 0.5, np.float32)]) for b in chosen])
        region_tokens = model.region_encoder.tokens(levels, torch.from_numpy(padded).to(device)).float()
        image_tokens = model.image_tokens(states).float()
    scenes = [
        SceneFeatures(
            image_tokens[i],
            region_tokens[i, : len(b)],
            owners(cxcywh_to_xyxy(b, s.rgb.shape[1], s.rgb.shape[0]), s),
            s,
        )
        for i, (b, s) in enumerate(zip(chosen, samples, strict=True))
    ]
    asked = [
        [q for q in ask(s, tokenizer, template, stage.share, rng, stage.reworded, stage.said) if q.found]
        for s in scenes
    ]
    packed = pack(scenes, asked, tokenizer, template, device)
    answers = losses(*forward(model, packed, scenes, stage.pointing > 0), packed)
    wanted_kind, wanted_colour = cell_labels(batch, model_side(model, batch))
    true_kind, true_colour = torch.cat(batch.kinds), torch.cat(batch.colours)
    return {
        "boxes": detection_loss(proposals, batch.boxes, objectness_head(step), c.proposer)[0],
        "cells": F.cross_entropy(cell_kind.float().flatten(0, 1), wanted_kind.flatten())
        + known_loss(cell_colour.float().flatten(0, 1), wanted_colour.flatten()),
        "kind": known_loss(kind.float(), true_kind),
        "colour": known_loss(colour.float(), true_colour),
        "place": mean((place.float() - boxes[real]).abs()),
        "kind_right": mean(kind.argmax(-1) == true_kind),
        "colour_right": mean(colour.argmax(-1) == true_colour),
        **answers,
    }


def train_joint(
    worker: TrainingProcess, config: TrainConfig, out: Path, resume: bool, data: Data | None = None
) -> None:
    """Run the stage `joint` from `start.pt`; writes `joint.pt` and `joint.jsonl` in `out`.

    data: training data (default: the config's scenes, rendered in `out`).
    """
    stage = config.joint
    if stage is None:
        raise ValueError("The config has no stage `joint`; give one, or run the other stages.")
    torch.manual_seed(config.seed)
    data = data or scenes_data(config, out)
    model, heads = build(config, worker.device, data.names)
    path = out / "joint.pt"
    going_on = resume and path.exists()
    saved = torch.load(path if going_on else out / "start.pt", map_location=worker.device, weights_only=True)
    model.load_state_dict(saved["model"])
    if stage.tied:
        tie(model)
    model.llm.config._attn_implementation = ATTENTION
    size = config.network.image_size
    first = 0

    def samples_of(step: int, part: int) -> tuple[list[SceneSample], np.random.Generator]:
        rng = np.random.default_rng((config.seed, worker.rank, step, part))
        return draw_samples(data.pictures, stage.batch, size, rng), rng

    if not going_on:
        fit_heads(
            model,
            heads,
            (as_batch(samples_of(step, 3)[0], heads, worker.device) for step in range(HEAD_STEPS)),
            worker,
        )
    if stage.frozen:
        model.perceiver.vis_encoder.embeddings.requires_grad_(False)
        for block in model.perceiver.vis_encoder.encoder.layer[: stage.frozen]:
            block.requires_grad_(False)
    optimiser = Optimiser([model, heads], Schedule.of(stage), stage.weight_decay, stage.muon, stage.offsets)
    if going_on:
        heads.load_state_dict(saved["heads"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    tokenizer = load_tokenizer(config, out, data)
    started = time.time()
    for step in worker.steps(first, stage.steps, "joint"):
        samples, rng = samples_of(step, 5)
        terms = joint_terms(
            model, heads, samples, tokenizer, config.template, stage, step, rng, worker.device
        )
        loss = sum((WEIGHTS[name] * terms[name] for name in WEIGHTS), torch.zeros((), device=worker.device))
        (stage.vision * loss + terms["answer"] + stage.pointing * terms["pointing"]).backward()
        worker.average_gradients(optimiser.parameters)
        norm = optimiser.step(step)
        if not worker.speaks:
            continue
        done = step + 1
        if done % LOG_EVERY == 0:
            rate = (done - first) * stage.batch * worker.count / (time.time() - started)
            numbers = {name: float(value.detach()) for name, value in terms.items()}
            log(
                out / "joint.jsonl",
                {"step": done, "pictures_per_second": round(rate, 2), "norm": norm, **numbers},
            )
        if done % SAVE_EVERY == 0 or done == stage.steps:
            save_checkpoint(
                path,
                model=model.state_dict(),
                heads=heads.state_dict(),
                optimiser=optimiser.state_dict(),
                step=done,
            )
        if data.held_out and (done % MEASURE_EVERY == 0 or done == stage.steps):
            boxes = measure_boxes(model, heads, data.held_out, 40, size, worker.device)
            check = LivePictures(model, data.held_out, worker.device)
            answers = measure_answers(model, check, tokenizer, config.template, stage.share, batches=2)
            log(out / "joint.jsonl", {"step": done, "held_out": {**boxes, "answers": answers}})
