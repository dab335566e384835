"""The second look at every proposal: box and objectness corrected from the pixels in and around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groma_ros.model.box_crops import BoxCrops
from groma_ros.network_config import CropShape

LARGEST_CHANGE = 2.0
"""Logarithm of the factor by which a side may change at most."""
_LEAST = 1e-4  # objectness, so that its logit stays finite


class BoxRefiner(BoxCrops):
    """Corrects proposals. It starts as the identity: the layer that corrects is zero."""

    def __init__(self, inputs: int, shape: CropShape) -> None:
        super().__init__(inputs, shape)
        self.change = nn.Linear(shape.hidden, 5)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, pixels: Tensor, boxes: Tensor, objectness: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels (B, 3, S, S), boxes (B, Q, 4) cxcywh fractions and objectness (B, Q) to better
        boxes and objectness."""
        return self.apply_changes(self.change(self.seen(pixels, boxes)), boxes, objectness)

    def apply_changes(self, changes: Tensor, boxes: Tensor, objectness: Tensor) -> tuple[Tensor, Tensor]:
        """Changes (B, Q, 5): of the centre in sides of the box, of the logarithm of its sides, and of the
        logit of its objectness."""
        changes = changes.float()
        centre, size = boxes[..., :2], boxes[..., 2:]
        moved = centre + changes[..., :2] * size
        resized = size * changes[..., 2:4].clamp(-LARGEST_CHANGE, LARGEST_CHANGE).exp()
        known = objectness.clamp(_LEAST, 1 - _LEAST)
        logits = (known / (1 - known)).log() + changes[..., 4]
        return torch.cat([moved, resized], -1), logits.sigmoid()
