"""The second look that proposals get: box and objectness corrected from the pixels in and around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groma_ros.crop_shape import CropShape
from groma_ros.model.box_crops import BoxCrops

MAX_LOG_SCALE = 2.0
"""Logarithm of the factor by which a side may change at most."""
MIN_OBJECTNESS = 1e-4
"""Objectness is kept this far from 0 and 1, so that its logit stays finite."""


class BoxRefiner(BoxCrops):
    """Corrects the strongest proposals. Its last layer starts at zero, which leaves them as they are."""

    def __init__(self, inputs: int, shape: CropShape, strongest: int) -> None:
        """strongest: number of proposals that are corrected, by their objectness."""
        super().__init__(inputs, shape)
        self.strongest = strongest
        self.change = nn.Linear(shape.hidden, 5)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, pixels: Tensor, boxes: Tensor, objectness: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels (B, 3, S, S), boxes (B, Q, 4) cxcywh fractions and objectness (B, Q) to the same
        with the strongest corrected, in the same order."""
        if objectness.shape[1] <= self.strongest:
            return self.correct(pixels, boxes, objectness)
        places = objectness.topk(self.strongest, 1).indices
        rows = places[..., None].expand(-1, -1, 4)
        corrected = self.correct(pixels, boxes.gather(1, rows), objectness.gather(1, places))
        chosen = places[..., None] == torch.arange(objectness.shape[1], device=places.device)  # (B, N, Q)
        return (
            _replaced(boxes, corrected[0], chosen),
            _replaced(objectness[..., None], corrected[1][..., None], chosen)[..., 0],
        )

    def correct(self, pixels: Tensor, boxes: Tensor, objectness: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, S, S), boxes (B, N, 4) and objectness (B, N) to boxes and objectness, all of them
        corrected."""
        changes = self.change(self.seen(pixels, boxes)).unflatten(0, boxes.shape[:2])
        return self.apply_changes(changes, boxes, objectness)

    def apply_changes(self, changes: Tensor, boxes: Tensor, objectness: Tensor) -> tuple[Tensor, Tensor]:
        """Apply changes (B, Q, 5) to boxes (B, Q, 4) and objectness (B, Q): of the centre in sides of the
        box, of the logarithm of its sides, and of the logit of its objectness. The centre stays in the
        picture."""
        changes = changes.float()
        centre, size = boxes[..., :2], boxes[..., 2:]
        moved = (centre + changes[..., :2] * size).clamp(0, 1)
        resized = size * changes[..., 2:4].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()
        known = objectness.clamp(MIN_OBJECTNESS, 1 - MIN_OBJECTNESS)
        logits = (known / (1 - known)).log() + changes[..., 4]
        return torch.cat([moved, resized], -1), logits.sigmoid()


def _replaced(rows: Tensor, new: Tensor, chosen: Tensor) -> Tensor:
    """Rows (B, Q, D) with new ones (B, N, D) where chosen (B, N, Q) is true: a scatter, in operators that
    every version of TensorRT is known to have, and exact in any precision of matrix products."""
    placed = chosen[..., None].to(new.dtype) * new[:, :, None]
    return torch.where(chosen[..., None].to(rows.dtype).sum(1) > 0, placed.sum(1).to(rows.dtype), rows)
