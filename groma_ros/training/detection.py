"""Stage 1: train backbone and proposer on boxes, and the region encoder on kinds and colours.

The paper freezes a pretrained DINOv2. There is none here, so the backbone is trained too, helped by auxiliary
heads that are dropped afterwards: kind and colour of every backbone cell and of every region token.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from groma_ros.model.detection_loss import (
    Source,
    detection_loss,
    pairwise_iou,
    refinement_loss,
    to_corners,
)
from groma_ros.model.groma import Groma
from groma_ros.preprocessing import ImageTransform
from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.vocabulary import COLOUR_NAMES, KIND_NAMES
from groma_ros.training.augment import augment, cut_crop, recoloured
from groma_ros.training.config import Part
from groma_ros.training.optimiser import Optimiser, fast
from groma_ros.training.parallel import TrainingProcess
from groma_ros.training.pool import Pictures
from groma_ros.types import FloatArray

STRONGEST = 14
"""Proposals of a picture, of the highest objectness, that the refiner learns from."""
OTHERS = 6
"""Others that it learns from, drawn anew in every update."""


@dataclass(frozen=True)
class Names:
    """Classes of the auxiliary heads."""

    kinds: tuple[str, ...] = KIND_NAMES
    colours: tuple[str, ...] = COLOUR_NAMES

    def labels(self, objects: Sequence[SceneObject], device: torch.device) -> tuple[Tensor, Tensor]:
        """Kinds and colours (T,) as numbers; a colour that is not known is -1."""
        colours = {name: index for index, name in enumerate(self.colours)}
        kinds = {name: index for index, name in enumerate(self.kinds)}
        numbers = [[kinds[o.kind] for o in objects], [colours.get(o.colour, -1) for o in objects]]
        of_kinds, of_colours = torch.tensor(numbers, dtype=torch.long, device=device)
        return of_kinds, of_colours


@dataclass(frozen=True, eq=False)
class Batch:
    """pixels (B, 3, S, S) normalised; for each picture boxes (T, 4) cxcywh fractions, kinds and colours
    (T,)."""

    pixels: Tensor
    boxes: list[Tensor]
    kinds: list[Tensor]
    colours: list[Tensor]


class Auxiliary(nn.Module):
    """Heads that supervise the features while training and are dropped after it."""

    def __init__(self, cells: int, regions: int, names: Names | None = None, crops: int = 0) -> None:
        super().__init__()
        self.names = names = names or Names()
        self.cell_kind = nn.Linear(cells, len(names.kinds) + 1)
        self.cell_colour = nn.Linear(cells, len(names.colours))
        self.kind = nn.Linear(regions, len(names.kinds))
        self.colour = nn.Linear(regions, len(names.colours))
        self.place = nn.Linear(regions, 4)
        if crops:
            self.crop_kind = nn.Linear(crops, len(names.kinds))
            self.crop_colour = nn.Linear(crops, len(names.colours))


def normalise(images: NDArray[Any], device: torch.device) -> Tensor:
    """uint8 (B, S, S, 3) to the network's pixels (B, 3, S, S)."""
    # Contiguous channels: GroupNorm is several times slower backwards with channels last.
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous().float().div_(255)
    transform = ImageTransform(images.shape[1])
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (transform.mean, transform.std))
    return pixels.sub_(mean).div_(std)


def draw_batch(
    shards: Sequence[Pictures],
    names: Names,
    count: int,
    size: int,
    rng: np.random.Generator,
    device: torch.device,
    cut: float,
    recoloured_share: float,
) -> Batch:
    """Draw a batch. It depends on the generator only, so a resumed run continues with the same pictures.

    cut: share of the pictures that are cropped so that their border cuts objects; recoloured_share: of those
    whose colours are changed, and whose objects' colours are then not known.
    """
    images, boxes, kinds, colours = [], [], [], []
    for _ in range(count):
        shard = shards[int(rng.integers(len(shards)))]
        index = int(rng.integers(len(shard.objects)))
        objects: Sequence[SceneObject] = shard.objects[index]
        picture = np.asarray(shard.images[index])
        corners: FloatArray = np.array([o.box for o in objects], np.float32).reshape(-1, 4)
        is_cut = cut > 0 and rng.random() < cut  # without cuts the generator gives what it always gave
        if is_cut:
            picture, corners, kept = cut_crop(picture, corners, rng)
            objects = [objects[i] for i in kept]
        is_cut = is_cut or touches_border(corners, picture)  # as in miniworld-base, and in photographs
        image, placed = augment(picture, corners, size, rng, farther=not is_cut)
        kind, colour = names.labels(objects, device)
        if rng.random() < recoloured_share:
            image, colour = recoloured(image, rng), torch.full_like(colour, -1)
        images.append(image)
        boxes.append(torch.from_numpy(placed).to(device))
        kinds.append(kind)
        colours.append(colour)
    return Batch(normalise(np.stack(images), device), boxes, kinds, colours)


def cell_labels(batch: Batch, side: int) -> tuple[Tensor, Tensor]:
    """Kind (0: none) and colour (-1: none) of the smallest object over each cell's centre, (B, side *
    side)."""
    count = len(batch.boxes)
    device = batch.pixels.device
    kinds = torch.zeros(count, side * side, dtype=torch.long, device=device)
    colours = torch.full_like(kinds, -1)
    centre = (torch.arange(side, device=device) + 0.5) / side
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    for index, boxes in enumerate(batch.boxes):
        for place in boxes[:, 2:].prod(1).argsort(descending=True):
            cx, cy, w, h = boxes[place]
            inside = (((x - cx).abs() < 0.45 * w) & ((y - cy).abs() < 0.45 * h)).flatten()
            kinds[index, inside] = batch.kinds[index][place] + 1
            colours[index, inside] = batch.colours[index][place]
    return kinds, colours


def jittered(boxes: list[Tensor], noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move and scale boxes by a few per cent; return them padded to (B, R, 4) with the mask of real ones."""
    most = max(len(b) for b in boxes)
    padded = torch.stack([F.pad(b, (0, 0, 0, most - len(b)), value=0.5) for b in boxes])
    real = torch.stack([torch.arange(most, device=b.device) < len(b) for b in boxes])
    draw = torch.randn(padded.shape, generator=generator).to(padded.device) * noise
    centre = padded[..., :2] + draw[..., :2] * padded[..., 2:]
    return torch.cat([centre, padded[..., 2:] * (1 + draw[..., 2:])], -1), real


def objectness_head(step: int) -> Source:
    """The objectness head that an update supervises: both in turn."""
    return "coco" if step % 2 == 0 else "sa1b"


def proposal_step(model: Groma, batch: Batch, step: int) -> dict[str, Tensor]:
    """Compute the loss of the boxes of a batch; nothing of the backbone learns from it."""
    with fast(batch.pixels.device):
        with torch.no_grad():
            states = model.perceiver.hidden(batch.pixels)
        proposals = model.perceiver.propose(states)
    loss, _ = detection_loss(proposals, batch.boxes, objectness_head(step), model.config.proposer)
    return {"boxes": loss}


def training_proposals(objectness: Tensor, generator: torch.Generator) -> Tensor:
    """Indices (B, STRONGEST + OTHERS), or all there are, of the proposals that the refiner learns from, by
    their objectness (B, Q). Where an object's first proposal is not among them, the
    best of those drawn counts as the first."""
    order = objectness.argsort(1, descending=True)
    rest = order[:, STRONGEST:]
    drawn = torch.rand(rest.shape, generator=generator).argsort(1)[:, :OTHERS].to(rest.device)
    return torch.cat([order[:, :STRONGEST], rest.gather(1, drawn)], 1)


def refiner_step(model: Groma, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Compute the loss of some proposals of each picture, corrected from their pixels, and the mean IoU
    before and after of those that are to become an object's box."""
    refiner = model.perceiver.refiner
    assert refiner is not None
    with fast(batch.pixels.device):
        with torch.no_grad():
            states = model.perceiver.hidden(batch.pixels)
            boxes, objectness = model.perceiver.ddetr_transformer.infer(model.perceiver.levels(states))
        some = training_proposals(objectness, generator)
        proposals = boxes.gather(1, some[..., None].expand(-1, -1, 4)), objectness.gather(1, some)
        refined = refiner.correct(batch.pixels, *proposals)
    loss, before, after = refinement_loss(proposals, refined, batch.boxes, model.config.proposer)
    return {"boxes": loss, "iou_before": before, "iou_after": after}


def crop_step(model: Groma, heads: Auxiliary, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Compute the loss of kinds and colours told from the pixels of boxes alone."""
    encoder = model.region_encoder.crop
    assert encoder is not None
    boxes, real = jittered(batch.boxes, 0.06, generator)
    with fast(batch.pixels.device):
        # Picture by picture, because padded boxes are about as many as real ones and cost as much.
        crops = [
            encoder.crops(p[None], b[own][None])[0]
            for p, b, own in zip(batch.pixels, boxes, real, strict=True)
        ]
        seen = encoder.features(torch.cat(crops), boxes[real])
        kind, colour = heads.crop_kind(seen), heads.crop_colour(seen)
    true_kind, true_colour = torch.cat(batch.kinds), torch.cat(batch.colours)
    return {
        "kind": known_loss(kind.float(), true_kind),
        "colour": known_loss(colour.float(), true_colour),
        "kind_right": mean(kind.argmax(-1) == true_kind),
        "colour_right": mean(colour.argmax(-1) == true_colour),
    }


def detection_step(
    model: Groma, heads: Auxiliary, batch: Batch, step: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute the loss terms of a batch: boxes with one of the objectness heads (in turn), cells, regions."""
    with fast(batch.pixels.device):
        states = model.perceiver.hidden(batch.pixels)
        proposals = model.perceiver.propose(states)
        boxes, real = jittered(batch.boxes, 0.04, generator)
        tokens = model.encode_regions(model.region_maps(states, batch.pixels), boxes)[real]
        cells = states[-1][:, 1:]
        cell_kind, cell_colour = heads.cell_kind(cells), heads.cell_colour(cells)
        kind, colour, place = heads.kind(tokens), heads.colour(tokens), heads.place(tokens)
    wanted_kind, wanted_colour = cell_labels(batch, model_side(model, batch))
    true_kind, true_colour = torch.cat(batch.kinds), torch.cat(batch.colours)
    boxes_loss, _ = detection_loss(proposals, batch.boxes, objectness_head(step), model.config.proposer)
    return {
        "boxes": boxes_loss,
        "cells": F.cross_entropy(cell_kind.float().flatten(0, 1), wanted_kind.flatten())
        + known_loss(cell_colour.float().flatten(0, 1), wanted_colour.flatten()),
        "kind": known_loss(kind.float(), true_kind),
        "colour": known_loss(colour.float(), true_colour),
        "place": mean((place.float() - boxes[real]).abs()),
        "kind_right": mean(kind.argmax(-1) == true_kind),
        "colour_right": mean(colour.argmax(-1) == true_colour),
    }


def mean(values: Tensor) -> Tensor:
    """Mean; 0 if there are no values, as in a batch of pictures without objects."""
    return values.float().sum() / max(values.numel(), 1)


def known_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the known labels; 0 if there are none."""
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / (labels >= 0).sum().clamp(
        min=1
    )


WEIGHTS = {"boxes": 0.5, "cells": 1.0, "kind": 1.0, "colour": 0.5, "place": 2.0}


def fit_heads(
    model: Groma, heads: Auxiliary, batches: Iterable[Batch], worker: TrainingProcess, rate: float = 0.01
) -> None:
    """Train new heads on a frozen, already trained network, so that their first errors do not harm it."""
    optimiser = torch.optim.AdamW(heads.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(worker.rank)
    model.requires_grad_(False)
    for step, batch in enumerate(batches):
        terms = detection_step(model, heads, batch, step, generator)
        torch.stack([WEIGHTS[name] * terms[name] for name in WEIGHTS if name != "boxes"]).sum().backward()
        worker.average_gradients(heads.parameters())
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    model.requires_grad_(True)


def model_side(model: Groma, batch: Batch) -> int:
    """Number of cells along one side of the backbone's map for this batch."""
    return batch.pixels.shape[-1] // model.config.backbone.patch_size


def train_step(
    model: Groma,
    heads: Auxiliary,
    optimiser: Optimiser,
    batch: Batch,
    step: int,
    worker: TrainingProcess,
    seed: int,
    alone: Part = "",
) -> dict[str, float]:
    """Make one update, of one part alone if it is named; return the loss terms as numbers."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step * 64 + worker.rank)
    if alone == "proposer":
        terms = proposal_step(model, batch, step)
    elif alone == "refiner":
        terms = refiner_step(model, batch, generator)
    elif alone == "crops":
        terms = crop_step(model, heads, batch, generator)
    else:
        terms = detection_step(model, heads, batch, step, generator)
    loss = torch.stack([WEIGHTS[name] * terms[name] for name in WEIGHTS if name in terms]).sum()
    loss.backward()
    worker.average_gradients(optimiser.parameters)
    norm = optimiser.step(step)
    return {
        "loss": float(loss.detach()),
        "norm": norm,
        **{name: float(value.detach()) for name, value in terms.items()},
    }


def touches_border(corners: FloatArray, picture: NDArray[np.uint8]) -> bool:
    """Whether a box (T, 4), xyxy pixels, ends at the border of its picture HxWx3, which then cuts the
    object."""
    high, wide = picture.shape[:2]
    return bool((corners[:, :2] <= 0).any() or (corners[:, 2:] >= (wide, high)).any())


@torch.no_grad()
def measure(
    model: Groma,
    heads: Auxiliary,
    shards: Sequence[Pictures],
    count: int,
    size: int,
    device: torch.device,
    alone: Part = "",
) -> dict[str, float]:
    """Measure on held-out scenes that show objects: recall and precision of proposals at IoU 0.5 and the
    score threshold, and the shares of right kinds and colours; with alone=crops those told from the crops
    alone."""
    started = time.time()
    hit = truth = kept = true_kept = kinds = colours = 0
    c = model.config
    places = [(shard, index) for shard in shards for index, own in enumerate(shard.objects) if own]
    for shard, index in places[:count]:
        objects = shard.objects[index]
        whole = np.asarray(shard.images[index])
        image = cv2.resize(whole, (size, size), interpolation=cv2.INTER_AREA)
        high, wide = whole.shape[:2]
        corners = torch.tensor([o.box for o in objects], device=device) / torch.tensor(
            [wide, high, wide, high], device=device
        )
        seen = model.perceive(normalise(image[None], device))
        strong = seen.objectness[0] > c.box_score_thres
        overlap = pairwise_iou(to_corners(seen.boxes[0][strong]), corners)[0]
        best = overlap.max(0).values if len(overlap) else torch.zeros(len(objects), device=device)
        hit, truth = hit + int((best >= 0.5).sum()), truth + len(objects)
        kept, true_kept = (
            kept + int(strong.sum()),
            true_kept + (int((overlap.max(1).values >= 0.5).sum()) if len(overlap) else 0),
        )
        centre = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], -1)
        kind, colour = heads.names.labels(objects, device)
        if alone == "crops" and (encoder := model.region_encoder.crop) is not None:
            told = encoder.features(encoder.crops(seen.maps[-1], centre[None])[0], centre)
            said = heads.crop_kind(told), heads.crop_colour(told)
        else:
            tokens = model.encode_regions(seen.maps, centre[None])[0]
            said = heads.kind(tokens), heads.colour(tokens)
        kinds += int((said[0].argmax(-1) == kind).sum())
        colours += int((said[1].argmax(-1) == colour).sum())
    return {
        "recall": hit / max(truth, 1),
        "precision": true_kept / max(kept, 1),
        "kind": kinds / max(truth, 1),
        "colour": colours / max(truth, 1),
        "seconds": time.time() - started,
    }
