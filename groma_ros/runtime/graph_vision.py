"""The vision tokenizer over a bundle's two vision graphs on any library, and the inputs and outputs that a
network config requires of all graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from groma_ros.boxes import xyxy_to_cxcywh
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.runtime.interfaces import ImageTransform, SelectionRule, make_scene, select_regions
from groma_ros.types import FloatArray, Frame, Scene

# Name -> shape. A number must match, "" must be a dynamic dimension, -1 may be anything.
Shapes = dict[str, tuple[int | str, ...]]


def perceive_shapes(config: GromaConfig) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of the perceive graph."""
    side = config.image_size
    outputs: Shapes = {
        "image_tokens": ("", config.num_image_tokens, config.language.hidden_size),
        "boxes": ("", -1, 4),
        "objectness": ("", -1),
    }
    return {"pixels": ("", config.backbone.num_channels, side, side)}, outputs | _map_shapes(config, "")


def _map_shapes(config: GromaConfig, batch: int | str) -> Shapes:
    return {f"map.{level}": (batch, *shape) for level, shape in enumerate(config.map_shapes)}


def region_shapes(config: GromaConfig) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of the encode_regions graph."""
    return {**_map_shapes(config, 1), "boxes": ("", 4)}, {"region_tokens": ("", config.region_output)}


def language_shapes(config: GromaConfig) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of the language graph."""
    c = config.language
    inputs: Shapes = {"embeddings": ("", c.hidden_size), "positions": ("",), "mask": ("", ""), "rows": ("",)}
    outputs: Shapes = {"logits": ("", config.vocab_size)}
    held = (c.num_key_value_heads or c.num_attention_heads, "", c.hidden_size // c.num_attention_heads)
    for layer in range(c.num_hidden_layers):
        for kind in ("key", "value"):
            inputs[f"past_{kind}.{layer}"] = outputs[f"present_{kind}.{layer}"] = held
    return inputs, outputs


def check_shapes(
    bundle: Bundle, name: str, kind: str, wanted: Shapes, found: Mapping[str, Sequence[Any]]
) -> None:
    """Raise BundleError unless the inputs or outputs (`kind`) of the graph `name` have the required names and
    shapes.

    found: shapes by name; a dimension that is not a number is dynamic.
    """
    if set(found) != set(wanted):
        more, less = sorted(set(found) - set(wanted)), sorted(set(wanted) - set(found))
        what = f"lacks the {kind} {less[0]}" if less else f"has the {kind} {more[0]}, which nothing knows"
        raise BundleError(f"{name} of {bundle.name} {what}; make the graphs again with groma convert.")
    for key, shape in wanted.items():
        if not _fits(shape, found[key]):
            asked = ", ".join("free" if size == "" else "any" if size == -1 else str(size) for size in shape)
            raise BundleError(
                f"{name} of {bundle.name} has the {kind} {key} of shape "
                f"({', '.join(map(str, found[key]))}), but its network "
                f"config asks for ({asked}); make the graphs again with groma convert."
            )


def _fits(wanted: Sequence[int | str], found: Sequence[Any]) -> bool:
    """Whether a shape meets a requirement."""
    if len(wanted) != len(found):
        return False
    free = [not isinstance(size, int) for size in found]
    return all(
        size == -1 or (is_free if size == "" else size == real)
        for size, real, is_free in zip(wanted, found, free, strict=True)
    )


class VisionGraph(Protocol):
    """A graph loaded by some library."""

    def run(
        self, feeds: Mapping[str, Any], kept: Sequence[str] = ()
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Run the graph once.

        feeds: for every input an array, or a value kept on the device by an earlier run; kept: names of
        outputs to keep there. Returns the other outputs as arrays and the kept ones as values for later
        feeds, which later runs do not change.
        """
        ...


@dataclass(frozen=True, eq=False)
class _Seen:
    """Features of an image that `refer` needs."""

    maps: Mapping[str, Any]
    """Feature maps on the device, by name."""
    boxes: FloatArray
    """All proposals, Qx4 cxcywh."""
    scores: FloatArray
    """Their objectness."""


class GraphVision:
    """VisionTokenizer over the two vision graphs; feature maps stay on the device between them."""

    def __init__(
        self, perceive: VisionGraph, regions: VisionGraph, config: GromaConfig, transform: ImageTransform
    ) -> None:
        self.perceive, self.regions = perceive, regions
        self._maps = [f"map.{level}" for level in range(len(config.map_shapes))]
        self._rule = SelectionRule(config.box_score_thres, config.nms_thres, config.max_region_num)
        self._transform = transform

    def encode(self, frame: Frame) -> Scene:
        """Encode a uint8 HxWx3 frame; see `VisionTokenizer.encode`."""
        found, maps = self.perceive.run({"pixels": self._transform(frame.rgb)[None]}, kept=self._maps)
        seen = _Seen(maps, found["boxes"][0], found["objectness"][0])
        height, width = frame.rgb.shape[:2]
        return self._scene(seen, found["image_tokens"][0], None, (width, height), frame.stamp, frame.frame_id)

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """Add user boxes (Mx4 xyxy, camera pixels) to the regions of a scene."""
        user = xyxy_to_cxcywh(boxes, scene.width, scene.height)
        size = (scene.width, scene.height)
        return self._scene(scene.features, scene.image_tokens, user, size, scene.stamp, scene.frame_id)

    def _scene(
        self,
        seen: _Seen,
        image_tokens: FloatArray,
        user: FloatArray | None,
        size: tuple[int, int],
        stamp: int,
        frame_id: str,
    ) -> Scene:
        chosen = select_regions(seen.boxes, seen.scores, self._rule, user)
        found, _ = self.regions.run({**seen.maps, "boxes": chosen.boxes})
        return make_scene(chosen, found["region_tokens"], image_tokens, seen, size, stamp, frame_id)
