"""The vision tokenizer over two graphs, perceive and encode_regions, whatever library runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from groma_ros.geometry import xyxy_to_cxcywh
from groma_ros.model.config import GromaConfig
from groma_ros.runtime.vision import ImageTransform, SelectionRule, make_scene, select_regions
from groma_ros.types import FloatArray, Frame, Scene


class VisionGraph(Protocol):
    """A graph that a library has loaded."""

    def run(self, feeds: Mapping[str, Any], kept: Sequence[str] = ()) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """One pass. feeds: an array, or a value an earlier pass kept on the device, for every input; kept: outputs to keep there.

        Returns the other outputs as arrays and the kept ones as values to feed on, which later passes leave as they are.
        """
        ...


@dataclass(frozen=True, eq=False)
class _Seen:
    """What `refer` needs of an image: feature maps on the device by name, all proposals (Qx4 cxcywh) and their scores."""

    maps: Mapping[str, Any]
    boxes: FloatArray
    scores: FloatArray


class GraphVision:
    """VisionTokenizer over the two graphs; the feature maps stay on the device between them."""

    def __init__(self, perceive: VisionGraph, regions: VisionGraph, config: GromaConfig, transform: ImageTransform) -> None:
        self.perceive, self.regions = perceive, regions
        self._maps = [f"map.{level}" for level in range(len(config.region.layers))]
        self._rule = SelectionRule(config.box_score_thres, config.nms_thres, config.max_region_num)
        self._transform = transform

    def encode(self, frame: Frame) -> Scene:
        """One pass over a uint8 HxWx3 frame (see `VisionTokenizer.encode`)."""
        found, maps = self.perceive.run({"pixels": self._transform(frame.rgb)[None]}, kept=self._maps)
        seen = _Seen(maps, found["boxes"][0], found["objectness"][0])
        height, width = frame.rgb.shape[:2]
        return self._scene(seen, found["image_tokens"][0], None, (width, height), frame.stamp, frame.frame_id)

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """The same image with user boxes (Mx4 xyxy camera pixels) among the regions."""
        user = xyxy_to_cxcywh(boxes, scene.width, scene.height)
        size = (scene.width, scene.height)
        return self._scene(scene.features, scene.image_tokens, user, size, scene.stamp, scene.frame_id)

    def _scene(
        self, seen: _Seen, image_tokens: FloatArray, user: FloatArray | None, size: tuple[int, int], stamp: int, frame_id: str
    ) -> Scene:
        chosen = select_regions(seen.boxes, seen.scores, self._rule, user)
        found, _ = self.regions.run({**seen.maps, "boxes": chosen.boxes})
        return make_scene(chosen, found["region_tokens"], image_tokens, seen, size, stamp, frame_id)
