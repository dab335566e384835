"""The loss of refined proposals, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from groma_ros.model.detection_loss import SCORE_WEIGHT, refinement_loss
from groma_ros.network_config import ProposerConfig

TRUTH = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
HALF = [0.4, 0.5, 0.2, 0.4]  # the left half of the object: IoU 0.5
SLICE = [0.325, 0.5, 0.05, 0.4]  # its left eighth: IoU 0.125, not pulled
AWAY = [0.9, 0.9, 0.1, 0.1]


def test_pulls_scores_and_ious_by_hand() -> None:
    proposals = torch.tensor([[HALF, SLICE, AWAY]])
    better = [0.45, 0.5, 0.3, 0.4]  # its left three quarters
    refined = torch.tensor([[better, SLICE, AWAY]], requires_grad=True)
    objectness = torch.tensor([[0.75, 0.5, 0.5]])
    loss, before, after = refinement_loss(proposals, (refined, objectness), [TRUTH], ProposerConfig())
    assert (float(before), float(after)) == (pytest.approx(0.5), pytest.approx(0.75))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) + 2 * math.log(2)
    distance = (0.05 + 0.1) / 0.4  # centre and width, in sides of the object
    assert loss.item() == pytest.approx(SCORE_WEIGHT * entropy / 3 + distance + 2 * (1 - 0.75), rel=1e-5)
    loss.backward()
    assert refined.grad is not None
    assert refined.grad[0, 0].abs().max().item() > 0 and not refined.grad[0, 1:].any()


def test_a_box_that_became_worse_than_half_right_is_nothing() -> None:
    proposals = torch.tensor([[HALF]])
    loss = {}
    for name, score in (("sure", 0.9), ("unsure", 0.1)):
        refined = torch.tensor([[SLICE]]), torch.tensor([[score]])
        loss[name] = float(refinement_loss(proposals, refined, [TRUTH], ProposerConfig())[0])
    assert loss["unsure"] < loss["sure"]


def test_pictures_without_objects_only_lower_scores() -> None:
    boxes, objectness = torch.tensor([[HALF]], requires_grad=True), torch.tensor([[0.5]])
    loss, before, after = refinement_loss(boxes.detach(), (boxes, objectness), [TRUTH[:0]], ProposerConfig())
    assert loss.item() == pytest.approx(SCORE_WEIGHT * math.log(2))
    assert float(before) == float(after) == 0
    loss.backward()
    assert boxes.grad is not None and not boxes.grad.any()
