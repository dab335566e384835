"""The loss of refined proposals, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from groma_ros.model.detection_loss import SCORE_WEIGHT, refinement_loss
from groma_ros.network_config import ProposerConfig

TRUTH = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
HALF = [0.4, 0.5, 0.2, 0.4]  # the left half of the object: IoU 0.5
WIDER = [0.425, 0.5, 0.25, 0.4]  # its left five eighths
BETTER = [0.45, 0.5, 0.3, 0.4]  # its left three quarters
SLICE = [0.325, 0.5, 0.05, 0.4]  # its left eighth: IoU 0.125, not pulled
AWAY = [0.9, 0.9, 0.1, 0.1]


def test_pulls_scores_and_ious_by_hand() -> None:
    proposals = torch.tensor([[HALF, SLICE, AWAY]]), torch.tensor([[0.6, 0.5, 0.4]])
    refined = torch.tensor([[BETTER, SLICE, AWAY]], requires_grad=True)
    objectness = torch.tensor([[0.75, 0.5, 0.5]])
    loss, before, after = refinement_loss(proposals, (refined, objectness), [TRUTH], ProposerConfig())
    assert (float(before), float(after)) == (pytest.approx(0.5), pytest.approx(0.75))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) + 2 * math.log(2)
    distance = (0.05 + 0.1) / 0.4  # centre and width, in sides of the object
    assert loss.item() == pytest.approx(SCORE_WEIGHT * entropy / 3 + distance + 2 * (1 - 0.75), rel=1e-5)
    loss.backward()
    assert refined.grad is not None
    assert refined.grad[0, 0].abs().max().item() > 0 and not refined.grad[0, 1:].any()


def _score_gradient(boxes: list[list[float]], known: list[float]) -> list[float]:
    """The gradient of the loss by the objectness of refined boxes, 0.3 each; negative where it is to rise."""
    objectness = torch.full((1, len(boxes)), 0.3, requires_grad=True)
    given = torch.tensor([boxes])
    refinement_loss((given, torch.tensor([known])), (given, objectness), [TRUTH], ProposerConfig())[
        0
    ].backward()
    assert objectness.grad is not None
    return objectness.grad[0].tolist()


def test_objectness_rises_for_the_first_box_of_an_object_alone() -> None:
    first, second, away = _score_gradient([BETTER, WIDER, AWAY], [0.9, 0.8, 0.7])
    assert first < 0 < min(second, away)
    first, second = _score_gradient([BETTER, WIDER], [0.7, 0.8])
    assert second < 0 < first


def test_a_box_that_is_less_than_half_right_is_nothing() -> None:
    first, second = _score_gradient([SLICE, WIDER], [0.9, 0.1])
    assert second < 0 < first


def test_each_of_two_objects_has_its_first_box() -> None:
    other = torch.tensor([[0.9, 0.9, 0.1, 0.1]])
    boxes = torch.tensor([[BETTER, AWAY, WIDER]])
    objectness = torch.full((1, 3), 0.3, requires_grad=True)
    given = boxes, torch.tensor([[0.5, 0.4, 0.9]])
    truth = torch.cat([TRUTH, other])
    refinement_loss(given, (boxes, objectness), [truth], ProposerConfig())[0].backward()
    assert objectness.grad is not None
    better, away, wider = objectness.grad[0].tolist()
    assert max(away, wider) < 0 < better


def test_proposals_that_no_object_is_near_are_not_pulled() -> None:
    boxes = torch.tensor([[SLICE]], requires_grad=True)
    proposals = boxes.detach(), torch.tensor([[0.5]])
    loss, before, after = refinement_loss(proposals, (boxes, proposals[1]), [TRUTH], ProposerConfig())
    assert loss.item() == pytest.approx(SCORE_WEIGHT * math.log(2))
    assert float(before) == float(after) == 0


def test_pictures_without_objects_only_lower_scores() -> None:
    boxes, objectness = torch.tensor([[HALF]], requires_grad=True), torch.tensor([[0.5]])
    proposals = boxes.detach(), objectness
    loss, before, after = refinement_loss(proposals, (boxes, objectness), [TRUTH[:0]], ProposerConfig())
    assert loss.item() == pytest.approx(SCORE_WEIGHT * math.log(2))
    assert float(before) == float(after) == 0
    loss.backward()
    assert boxes.grad is not None and not boxes.grad.any()
