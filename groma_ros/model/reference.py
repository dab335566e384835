"""Reference tensors recorded from the original network; `tests/data/golden/README.md` describes the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from groma_ros.json_files import load_object
from groma_ros.model.checkpoint import empty_groma, load_weights
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.preprocessing import ImageTransform

Values = dict[str, Tensor]
GIVEN = (
    "input_ids",
    "labels",
    "perm",
    "refer_boxes",
    "ground_boxes",
    "gt_boxes",
)  # inputs of a run, not results
_IMAGES = ("raw_uint8_hwc", "resized_uint8_hwc", "pixel_values")


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """One recorded pass."""

    name: str
    given: Values
    recorded: Values

    @property
    def images(self) -> int:
        """Batch size."""
        return len(self.given["input_ids"]) if "input_ids" in self.given else 1


@dataclass(frozen=True, eq=False)
class Reference:
    """A set of recorded passes with the network's config and the input picture."""

    model: Groma
    images: Values
    runs: tuple[ReferenceRun, ...]
    prefix_positions: int | None

    @classmethod
    def load(cls, directory: str | Path) -> Reference:
        """Read a folder. Raises ValueError for anything missing, damaged or inconsistent."""
        directory = Path(directory)
        if not directory.is_dir():
            raise ValueError(f"The reference folder {directory} does not exist.")
        meta = load_object(directory / "meta.json")
        model = empty_groma(
            GromaConfig.from_dict(_with_constants(load_object(directory / "config.json"), meta))
        )
        load_weights(model, directory, torch.float32)
        _check_tokens(model.config, meta)
        images = _read(directory / "image.safetensors")
        if not set(images) & set(_IMAGES):
            raise ValueError(f"{directory / 'image.safetensors'} holds none of {', '.join(_IMAGES)}.")
        described = meta.get("runs", {})
        runs = _runs(_read(directory / "tensors.safetensors"), described)
        if not runs:
            raise ValueError(f"{directory / 'tensors.safetensors'} holds no run.")
        positions = described.get("prefix_reuse", {}).get("prefix_positions")
        return cls(model.eval().requires_grad_(False), images, runs, positions)

    def pixels(self) -> Values:
        """Our preprocessing of the picture, as far as the folder has inputs for it: resized_uint8_hwc (S,
        S, 3) and pixel_values."""
        transform = ImageTransform(self.model.config.image_size, "bicubic")
        made: Values = {}
        if "raw_uint8_hwc" in self.images:
            made["resized_uint8_hwc"] = torch.from_numpy(
                transform.stretch(self.images["raw_uint8_hwc"].numpy()).copy()
            )
        resized = {**self.images, **made}.get("resized_uint8_hwc")
        if resized is not None:
            made["pixel_values"] = torch.from_numpy(transform(resized.numpy()))[None]
        return made


def batch_pixels(pixels: Tensor, count: int) -> Tensor:
    """The picture (1, 3, S, S), and for a batch of two also its mirror image. Raises ValueError for any
    other batch."""
    if count > 2:
        raise ValueError(
            f"A recorded run has a batch of {count} images; only the picture and its mirror image are "
            "defined."
        )
    return torch.cat([pixels, pixels.flip(-1)][:count])


def _with_constants(config: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The config with constants that the original hard-codes, as this set was made with them."""
    dims = meta.get("hardcoded_dims_in_tiny", {})
    names = {
        "gn_groups": "groups",
        "pos_hidden": "pos_hidden",
        "region_mid": "hidden",
        "region_out": "output",
    }
    region = {ours: dims[theirs] for theirs, ours in names.items() if theirs in dims}
    for theirs, ours in (("roi_scale_constant", "box_scale"), ("roi_strides", "strides")):
        if theirs in meta:
            region[ours] = meta[theirs]
    size = {"image_size": meta["resolution"]} if "resolution" in meta else {}
    return {**config, **size, "region_cfg": {**config.get("region_cfg", {}), **region}}


def _check_tokens(config: GromaConfig, meta: Mapping[str, Any]) -> None:
    first = config.first_region_id
    if meta.get("r0", first) != first:
        raise ValueError(f"meta.json puts <r0> at {meta['r0']}, its config at {first}.")


def _read(path: Path) -> Values:
    if not path.is_file():
        raise ValueError(f"The file {path} does not exist.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"The file {path} is damaged: {error}.") from error


def _runs(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> tuple[ReferenceRun, ...]:
    names = dict.fromkeys(_run_name(key) for key in tensors)
    runs = [_run(name, tensors, described.get(name.replace(".", "_"), {})) for name in names]
    return tuple(
        sorted(runs, key=lambda run: -len(run.recorded))
    )  # the most complete record first, since it has all stages


def _run_name(key: str) -> str:
    """Run of a tensor: `rec.logits` belongs to run rec, `det_loss.coco.loss` to det_loss.coco."""
    parts = key.split(".")
    return ".".join(parts[: 2 if parts[0] == "det_loss" else 1])


def _run(name: str, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> ReferenceRun:
    own = {key[len(name) + 1 :]: value for key, value in tensors.items() if _run_name(key) == name}
    given = {key: value for key, value in own.items() if key.split(".")[0] in GIVEN}
    recorded = {key: value for key, value in own.items() if key not in given}
    for key in ("expanded_len", "n_regions"):
        if key in described:
            recorded[key] = torch.tensor(described[key]).flatten()
    for key in ("region_token_logits_last_position", "loss"):
        if key in described and key not in recorded:
            recorded[key] = torch.tensor(described[key], dtype=torch.float32).flatten()
    for key, value in described.get("loss_dict", {}).items():
        if not key.startswith("cardinality"):  # logged by the original, not part of the loss
            recorded[key] = torch.tensor([value], dtype=torch.float32)
    for key, value in described.items():
        if key.startswith("fused_map_stats."):
            level = key.rpartition(".")[2]
            recorded[f"fused_map_shape.{level}"] = torch.tensor(value["shape"])
            recorded[key] = torch.tensor([value["mean"], value["std"], value["absmax"]], dtype=torch.float32)
    return ReferenceRun(name, given, recorded)
