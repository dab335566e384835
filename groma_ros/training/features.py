"""Features of a scene for training the language model: image tokens, region tokens, and which object each
region shows."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groma_ros.atomic_write import replacing
from groma_ros.boxes import box_iou, cxcywh_to_xyxy
from groma_ros.model.groma import Groma
from groma_ros.progress import shown
from groma_ros.proposal_selection import SelectionRule, select_regions
from groma_ros.simulation.scenes import SceneSample
from groma_ros.training.augment import recoloured, relit
from groma_ros.training.detection import normalise
from groma_ros.training.optimiser import fast
from groma_ros.training.parallel import TrainingProcess
from groma_ros.training.pool import Pictures


@dataclass(frozen=True, eq=False)
class SceneFeatures:
    """Inputs of the language model for one scene."""

    image_tokens: Tensor
    """(T, D)."""
    region_tokens: Tensor
    """(R, D) in the order of the region names."""
    region_of: NDArray[np.int64]
    """For every object of the sample the region that shows it (IoU at least 0.5), -1 for none."""
    sample: SceneSample


@dataclass(frozen=True, eq=False)
class Seen:
    """Hidden states of the backbone, and the normalised pixels (B, 3, S, S) that they are of."""

    states: list[Tensor]
    pixels: Tensor


def mirrored(sample: SceneSample) -> SceneSample:
    """Mirror the picture, boxes and positions of a scene left to right."""
    width = sample.rgb.shape[1]
    objects = tuple(
        dataclasses.replace(
            o,
            box=(width - o.box[2], o.box[1], width - o.box[0], o.box[3]),
            position=(-o.position[0], o.position[1], o.position[2]),
        )
        for o in sample.objects
    )
    return dataclasses.replace(sample, rgb=sample.rgb[:, ::-1], objects=objects)


@dataclass(frozen=True, eq=False)
class OtherColours(SceneSample):
    """A scene whose picture shows other colours than its objects had; no object has a colour."""


def in_other_colours(sample: SceneSample, rng: np.random.Generator) -> OtherColours:
    """Change the colours and the light of a scene's picture, and forget the colours of its objects."""
    fields = {f.name: getattr(sample, f.name) for f in dataclasses.fields(SceneSample)}
    objects = tuple(dataclasses.replace(o, colour="") for o in sample.objects)
    return OtherColours(**{**fields, "rgb": relit(recoloured(sample.rgb, rng), rng), "objects": objects})


def owners(boxes: NDArray[np.float32], sample: SceneSample) -> NDArray[np.int64]:
    """Assign a region to every object, -1 for none; a region shows one object.

    boxes: of the regions, (R, 4) xyxy in the sample's pixels.
    """
    overlap = box_iou(boxes, np.array([o.box for o in sample.objects], np.float32).reshape(-1, 4))
    region_of = np.full(len(sample.objects), -1, np.int64)
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        region, thing = np.unravel_index(place, overlap.shape)
        if overlap[region, thing] < 0.5:
            break
        if region_of[thing] < 0 and region not in region_of:
            region_of[thing] = region
    return region_of


def square(sample: SceneSample, size: int) -> NDArray[Any]:
    """Resize the picture as the network does."""
    return cv2.resize(np.ascontiguousarray(sample.rgb), (size, size), interpolation=cv2.INTER_AREA)


def observe(
    model: Groma, samples: Sequence[SceneSample], device: torch.device, inject: bool = False
) -> tuple[Seen, list[NDArray[np.float32]]]:
    """Run backbone, proposer and refiner without gradients; return the backbone's states and the selected
    boxes (R, 4) cxcywh of every scene.

    inject: the true boxes join the proposals at the network's `ground_box_score`, so that every object has a
    region.
    """
    c = model.config
    rule = SelectionRule(c.box_score_thres, c.nms_thres, c.max_region_num)
    pixels = normalise(np.stack([square(s, c.image_size) for s in samples]), device)
    with torch.no_grad(), fast(device):
        states = model.perceiver.hidden(pixels)
        proposed = model.perceiver.infer(states, pixels)
    boxes, scores = (value.float().cpu().numpy() for value in proposed)
    found = list(zip(boxes, scores, strict=True))
    if inject:
        for i, sample in enumerate(samples):
            truth = true_fractions(sample)
            given = np.full(len(truth), c.ground_box_score, np.float32)
            found[i] = np.concatenate([boxes[i], truth]), np.concatenate([scores[i], given])
    return Seen(states, pixels), [select_regions(*each, rule).boxes for each in found]


def true_fractions(sample: SceneSample) -> NDArray[np.float32]:
    """True boxes (N, 4) cxcywh as fractions of the picture."""
    height, width = sample.rgb.shape[:2]
    x1, y1, x2, y2 = (
        np.array([o.box for o in sample.objects], np.float32).reshape(-1, 4)
        / np.array([width, height, width, height], np.float32)
    ).T
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1).astype(np.float32)


def encode(
    model: Groma, seen: Seen, chosen: list[NDArray[np.float32]], samples: Sequence[SceneSample]
) -> list[SceneFeatures]:
    """Compute image and region tokens; gradients reach the bridge and the region encoder only."""
    states = seen.states
    most = max(len(b) for b in chosen)
    device = states[0].device
    padded = np.stack([np.concatenate([b, np.full((most - len(b), 4), 0.5, np.float32)]) for b in chosen])
    with fast(device):
        image_tokens = model.image_tokens(states).float()
        region_tokens = model.encode_regions(
            model.region_maps(states, seen.pixels), torch.from_numpy(padded).to(device)
        ).float()
    return [
        SceneFeatures(
            image_tokens=image_tokens[i],
            region_tokens=region_tokens[i, : len(chosen[i])],
            region_of=owners(cxcywh_to_xyxy(chosen[i], sample.rgb.shape[1], sample.rgb.shape[0]), sample),
            sample=sample,
        )
        for i, sample in enumerate(samples)
    ]


def vision_digest(model: Groma) -> str:
    """Return a digest of the vision weights, which names their feature cache."""
    digest = hashlib.sha256()
    for part in (model.perceiver, model.region_encoder, model.img_txt_bridge):
        for tensor in part.state_dict().values():
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def cache_features(
    model: Groma,
    shards: Sequence[Pictures],
    folder: Path,
    worker: TrainingProcess,
    mirror: bool,
    inject: bool = False,
) -> None:
    """Write the float16 features of every scene, and of its mirror image where wanted, for this worker's
    share of the shards."""
    folder.mkdir(parents=True, exist_ok=True)
    own = shards[worker.rank :: worker.count]
    for shard in shown(own, len(own), "shard of features") if worker.speaks else own:
        for side in (False, True) if mirror else (False,):
            path = folder / f"{shard.name}{'m' if side else ''}.npz"
            if path.exists():
                continue
            found: list[SceneFeatures] = []
            for start in range(0, len(shard.objects), 25):
                samples = [shard.sample(i) for i in range(start, min(start + 25, len(shard.objects)))]
                samples = [mirrored(s) for s in samples] if side else samples
                with torch.no_grad():
                    found += encode(model, *observe(model, samples, worker.device, inject), samples)
            with replacing(path) as stream:
                np.savez(
                    stream,
                    image=torch.stack([f.image_tokens for f in found]).half().cpu().numpy(),
                    regions=torch.cat([f.region_tokens for f in found]).half().cpu().numpy(),
                    counts=np.array([len(f.region_tokens) for f in found]),
                    region_of=np.concatenate([f.region_of for f in found]),
                )


class FeatureCache:
    """Features in memory, about 40 kB a scene."""

    def __init__(self, shards: Sequence[Pictures], folder: Path, mirror: bool) -> None:
        self._entries = []
        for shard in shards:
            for side in (False, True) if mirror else (False,):
                with np.load(folder / f"{shard.name}{'m' if side else ''}.npz") as data:
                    parts = {name: data[name] for name in data.files}
                ends = np.cumsum(parts["counts"])
                thing_ends = np.cumsum([len(o) for o in shard.objects])
                self._entries.append((shard, side, parts, ends, thing_ends))
        self._starts = np.cumsum([0, *(len(entry[0].objects) for entry in self._entries)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def get(self, number: int, device: torch.device) -> SceneFeatures:
        """Return the features of scene `number`."""
        entry = int(np.searchsorted(self._starts, number, side="right")) - 1
        shard, side, parts, ends, thing_ends = self._entries[entry]
        i = number - int(self._starts[entry])
        sample = mirrored(shard.sample(i)) if side else shard.sample(i)
        regions = parts["regions"][ends[i] - parts["counts"][i] : ends[i]]
        return SceneFeatures(
            image_tokens=torch.from_numpy(parts["image"][i]).float().to(device),
            region_tokens=torch.from_numpy(regions).float().to(device),
            region_of=parts["region_of"][thing_ends[i] - len(sample.objects) : thing_ends[i]],
            sample=sample,
        )
