"""The proposer's training loss: Hungarian matching, focal, L1 and GIoU on every decoder layer and the encoder
(groma_spec 4.7)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groma_ros.model.proposer import Proposals
from groma_ros.network_config import ProposerConfig

Source = Literal["coco", "sa1b"]
PULL_IOU = 0.2
"""IoU with an object from which a proposal is pulled to it."""
SCORE_WEIGHT = 4.0
"""Weight of the objectness of refined proposals."""


def to_corners(boxes: Tensor) -> Tensor:
    """cxcywh to xyxy, any leading shape."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def pairwise_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of xyxy boxes (..., N, 4) and (..., M, 4) as (..., N,
    M)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    overlap = (
        (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    )
    area_a, area_b = (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    union = area_a + area_b - overlap
    hull = (
        (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    )
    iou = overlap / union
    return iou, iou - (hull - union) / hull


def focal(logits: Tensor, targets: Tensor, c: ProposerConfig) -> Tensor:
    """Elementwise sigmoid focal loss (Lin et al. 2017, eq. 5)."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    miss = p * (1 - targets) + (1 - p) * targets
    weight = c.focal_alpha * targets + (1 - c.focal_alpha) * (1 - targets)
    return weight * miss**c.focal_gamma * entropy


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: Tensor, c: ProposerConfig) -> tuple[Tensor, Tensor]:
    """One image: queries (Q,) logits and (Q, 4) boxes against targets (T, 4): matched query and target
    indices."""
    p = logits.sigmoid()
    positive = c.focal_alpha * (1 - p) ** c.focal_gamma * -(p + 1e-8).log()
    negative = (1 - c.focal_alpha) * p**c.focal_gamma * -(1 - p + 1e-8).log()
    _, giou = pairwise_iou(to_corners(boxes), to_corners(targets))
    cost = (
        c.class_cost * (positive - negative)[:, None]
        + c.bbox_cost * torch.cdist(boxes, targets, p=1)
        - c.giou_cost * giou
    )
    from scipy.optimize import linear_sum_assignment  # training only: running needs no scipy

    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(rows, device=logits.device), torch.as_tensor(columns, device=logits.device)


def layer_loss(logits: Tensor, boxes: Tensor, targets: list[Tensor], c: ProposerConfig) -> dict[str, Tensor]:
    """Loss terms of one layer: logits (B, Q), boxes (B, Q, 4) cxcywh, targets one (T, 4) an image."""
    count = max(sum(len(t) for t in targets), 1)
    wanted = torch.zeros_like(logits)
    found, truth = [], []
    for index, target in enumerate(targets):
        if not len(target):
            continue
        rows, columns = match(logits[index], boxes[index], target, c)
        wanted[index, rows] = 1.0
        found.append(boxes[index, rows])
        truth.append(target[columns])
    terms = {"loss_ce": focal(logits, wanted, c).sum() / count}
    if not found:
        zero = boxes.sum() * 0
        return {**terms, "loss_bbox": zero, "loss_giou": zero}
    a, b = torch.cat(found), torch.cat(truth)
    giou = pairwise_iou(to_corners(a)[:, None], to_corners(b)[:, None])[1]
    return {**terms, "loss_bbox": (a - b).abs().sum() / count, "loss_giou": (1 - giou).sum() / count}


def detection_loss(
    proposals: Proposals, targets: list[Tensor], source: Source, c: ProposerConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over all layers, and its terms by the original's names (`loss_ce`, `loss_ce_0`,
    `loss_ce_enc`, ...).

    targets: one (T, 4) cxcywh fractions an image; source: the objectness head the batch supervises.
    """
    logits = proposals.coco if source == "coco" else proposals.sa1b
    last = len(logits) - 1
    outputs = [
        ("" if k == last else f"_{k}", logits[k, ..., 0], proposals.boxes[k]) for k in range(len(logits))
    ]
    encoder = proposals.encoder
    outputs.append(("_enc", encoder.objectness[..., 0].float(), encoder.box_logits.sigmoid()))
    terms: dict[str, Tensor] = {}
    for suffix, layer_logits, boxes in outputs:
        terms.update(
            {name + suffix: value for name, value in layer_loss(layer_logits, boxes, targets, c).items()}
        )
    weights = {
        "loss_ce": c.cls_loss_coefficient,
        "loss_bbox": c.bbox_loss_coefficient,
        "loss_giou": c.giou_loss_coefficient,
    }
    total = sum(weights["_".join(name.split("_")[:2])] * value for name, value in terms.items())
    return torch.as_tensor(total), terms


def refinement_loss(
    proposals: tuple[Tensor, Tensor], refined: tuple[Tensor, Tensor], targets: list[Tensor], c: ProposerConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of refined proposals, and the mean IoU before and after of those that it pulls to an object.

    proposals, refined: boxes (B, Q, 4) cxcywh fractions and objectness (B, Q); targets: one (T, 4) an image.
    A box is pulled to the object that its proposal overlaps most, from an IoU of `PULL_IOU` on (L1 in sides
    of the object, and GIoU). Objectness learns the IoU of the refined box with the object that it overlaps
    most, if that is at least 0.5 and no proposal of more objectness before refinement has the same object,
    and 0 otherwise: the proposer has one proposal an object, and the pixels of its duplicates look the same.
    """
    (before, known), (boxes, objectness) = proposals, refined
    wanted = torch.zeros_like(objectness)
    losses, was, became = [], [], []
    for index, target in enumerate(targets):
        if not len(target):
            continue
        iou, owner = pairwise_iou(to_corners(before[index]), to_corners(target))[0].max(1)
        reached, giou = pairwise_iou(to_corners(boxes[index]), to_corners(target))
        pulled = iou >= PULL_IOU
        side = target[owner][:, 2:].clamp(min=1e-3).repeat(1, 2)
        distance = ((boxes[index] - target[owner]).abs() / side).sum(1)
        own = owner[:, None]
        losses.append((distance + c.giou_loss_coefficient * (1 - giou.gather(1, own)[:, 0]))[pulled])
        was.append(iou[pulled])
        became.append(reached.detach().gather(1, own)[pulled, 0])
        wanted[index] = _objectness_targets(reached.detach(), known[index])
    score = SCORE_WEIGHT * F.binary_cross_entropy(objectness.float(), wanted)
    zero = boxes.sum() * 0
    if not losses:
        return score + zero, zero.detach(), zero.detach()
    pulls = torch.cat(losses)
    count = max(len(pulls), 1)
    return score + pulls.sum() / count, torch.cat(was).sum() / count, torch.cat(became).sum() / count


def _objectness_targets(iou: Tensor, objectness: Tensor) -> Tensor:
    """What the objectness of boxes is to be (Q,), from their IoUs (Q, T) with the objects and the objectness
    (Q,) that orders them."""
    wanted = np.zeros(len(iou), np.float32)
    table = iou.cpu().numpy()
    found = set()
    for row in objectness.argsort(descending=True).tolist():
        column = int(table[row].argmax())
        if table[row, column] >= 0.5 and column not in found:
            found.add(column)
            wanted[row] = table[row, column]
    return torch.from_numpy(wanted).to(iou.device)
