"""Llama, and Groma's input sequence: text, image tokens, and a pair (`<rK>`, feature K) for every region."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from groma_ros.model.detection_loss import pairwise_iou, to_corners
from groma_ros.network_config import GromaConfig, LanguageConfig

IGNORE = -100  # label of positions that carry no loss


def build_language(config: LanguageConfig) -> LlamaForCausalLM:
    """transformers' Llama at this config."""
    settings = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return LlamaForCausalLM(LlamaConfig(**settings))


@dataclass(frozen=True, eq=False)
class Sequence:
    """One expanded prompt: ids and labels (N,), and the slots whose embeddings are replaced."""

    ids: Tensor
    labels: Tensor
    image_slots: Tensor  # (T,) positions of the image tokens
    region_slots: Tensor  # (R,) positions of the region features, in the order of the regions
    feature_slots: Tensor  # positions of <refer_feat>
    feature_regions: Tensor  # region shown by each of them
    substituted: Tensor = field(
        default_factory=lambda: torch.empty(0)
    )  # the ids before expansion, placeholders replaced


def best_regions(boxes: Tensor, wanted: Tensor) -> Tensor:
    """For every wanted box the region with the highest IoU, first maximum; boxes are cxcywh."""
    return pairwise_iou(to_corners(wanted), to_corners(boxes))[0].nan_to_num().argmax(-1)


def expand(
    ids: Tensor,
    boxes: Tensor,
    num_image_tokens: int,
    config: GromaConfig,
    refer_boxes: Tensor | None = None,
    ground_boxes: Tensor | None = None,
    labels: Tensor | None = None,
) -> Sequence:
    """Expand the placeholders of a prompt by boxes and with labels, as the original's training does.

    Inference uses `groma_ros.tokenization.prompts.expand`, which needs neither boxes nor torch.

    ids: (N,) prompt; boxes: (R, 4) selected regions, cxcywh; refer_boxes, ground_boxes: (M, 4) in the order
    of their placeholders; labels: (N,), IGNORE where there is no loss. Raises ValueError if placeholders and
    boxes do not match, or if the prompt does not hold exactly one `<image>` before exactly one `<region>`.
    """
    ids = ids.clone()
    labels = torch.full_like(ids, IGNORE) if labels is None else labels.clone()
    feature_regions = _substitute(ids, labels, boxes, refer_boxes, "<refer_box>", config)
    _substitute(ids, labels, boxes, ground_boxes, "<ground_box>", config)
    image, region = ((ids == config.token_id(name)).nonzero()[:, 0] for name in ("<image>", "<region>"))
    if len(image) != 1 or len(region) != 1 or image[0] > region[0]:
        raise ValueError("A prompt needs exactly one <image>, and after it exactly one <region>.")
    i, r = int(image), int(region)
    count = len(boxes)
    names = torch.arange(count, device=ids.device) + config.first_region_id
    pairs = torch.stack([names, torch.full_like(names, config.token_id("<region>"))], 1).flatten()
    full = torch.cat(
        [
            ids[:i],
            ids.new_full((num_image_tokens,), config.token_id("<image>")),
            ids[i + 1 : r],
            pairs,
            ids[r + 1 :],
        ]
    )
    first_pair = r + num_image_tokens - 1
    blank = labels.new_full((num_image_tokens,), IGNORE), labels.new_full((2 * count,), IGNORE)
    slots = (full == config.token_id("<refer_feat>")).nonzero()[:, 0]
    if len(slots) > len(feature_regions):
        raise ValueError(f"The prompt has {len(slots)} <refer_feat> for {len(feature_regions)} user boxes.")
    return Sequence(
        ids=full,
        labels=torch.cat([labels[:i], blank[0], labels[i + 1 : r], blank[1], labels[r + 1 :]]),
        image_slots=torch.arange(i, i + num_image_tokens, device=ids.device),
        region_slots=torch.arange(count, device=ids.device) * 2 + first_pair + 1,
        feature_slots=slots,
        feature_regions=feature_regions[: len(slots)],
        substituted=ids,
    )


def _substitute(
    ids: Tensor, labels: Tensor, boxes: Tensor, wanted: Tensor | None, name: str, config: GromaConfig
) -> Tensor:
    """Write the names of the matching regions over a placeholder, in ids and labels. Returns the regions."""
    placeholder, first_region = config.token_id(name), config.first_region_id
    where = ids == placeholder
    wanted = boxes[:0] if wanted is None else wanted
    if int(where.sum()) > len(wanted):
        raise ValueError(f"The prompt has {int(where.sum())} {name} for {len(wanted)} boxes.")
    regions = (
        best_regions(boxes, wanted) if len(wanted) else torch.empty(0, dtype=torch.long, device=ids.device)
    )
    ids[where] = regions[: int(where.sum())] + first_region
    labelled = labels == placeholder
    labels[labelled] = regions[: int(labelled.sum())] + first_region
    return regions
