"""Proposals corrected from their pixels."""

from __future__ import annotations

import math

import torch

from groma_ros.crop_shape import CropShape
from groma_ros.model.box_refiner import MAX_LOG_SCALE, BoxRefiner

SHAPE = CropShape(widths=(8, 16), side=8, margin=2.0, hidden=12)
BOXES = torch.tensor([[[0.5, 0.25, 0.2, 0.1], [0.1, 0.9, 0.05, 0.3]]])
OBJECTNESS = torch.tensor([[0.9, 0.2]])


def test_it_starts_as_the_identity() -> None:
    refiner = BoxRefiner(3, SHAPE, 2)
    boxes, objectness = refiner(torch.randn(1, 3, 56, 56), BOXES, OBJECTNESS)
    torch.testing.assert_close(boxes, BOXES)
    torch.testing.assert_close(objectness, OBJECTNESS)


def test_changes_are_in_sides_of_the_box_and_in_logits() -> None:
    changes = torch.tensor(
        [[[0.5, -1.0, math.log(2), math.log(0.5), math.log(4)], [0.0, 0.0, 0.0, 9.0, 0.0]]]
    )
    boxes, objectness = BoxRefiner(3, SHAPE, 2).apply_changes(changes, BOXES, OBJECTNESS)
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.6, 0.15, 0.4, 0.05]))
    torch.testing.assert_close(boxes[0, 1], torch.tensor([0.1, 0.9, 0.05, 0.3 * math.exp(MAX_LOG_SCALE)]))
    # Odds of 9 to 1, times 4.
    torch.testing.assert_close(objectness, torch.tensor([[36 / 37, 0.2]]))


def test_only_the_strongest_are_corrected_and_the_order_stays() -> None:
    torch.manual_seed(0)
    refiner = BoxRefiner(3, SHAPE, 1)
    torch.nn.init.normal_(refiner.change.weight)
    pixels = torch.rand(2, 3, 56, 56)
    boxes, objectness = BOXES.repeat(2, 1, 1), torch.tensor([[0.9, 0.2], [0.2, 0.9]])
    with torch.no_grad():
        found = refiner(pixels, boxes, objectness)
        all_corrected = refiner.correct(pixels, boxes, objectness)
    for value, before, after in zip(found, (boxes, objectness), all_corrected, strict=True):
        for picture, (strongest, other) in enumerate(((0, 1), (1, 0))):
            torch.testing.assert_close(value[picture, strongest], after[picture, strongest])
            assert torch.equal(value[picture, other], before[picture, other])
            assert not torch.allclose(after[picture, other], before[picture, other])


def test_the_centre_stays_in_the_picture() -> None:
    changes = torch.zeros(1, 2, 5)
    changes[0, :, :2] = torch.tensor([[9.0, -9.0], [-9.0, 9.0]])
    boxes, _ = BoxRefiner(3, SHAPE, 2).apply_changes(changes, BOXES, OBJECTNESS)
    torch.testing.assert_close(boxes[0, :, :2], torch.tensor([[1.0, 0.0], [0.0, 1.0]]))


def test_certain_proposals_keep_finite_logits() -> None:
    changes = torch.zeros(1, 2, 5)
    changes[..., 4] = torch.tensor([-2.0, 2.0])
    _, objectness = BoxRefiner(3, SHAPE, 2).apply_changes(changes, BOXES, torch.tensor([[1.0, 0.0]]))
    assert 0.99 < float(objectness[0, 0]) < 1
    assert 0 < float(objectness[0, 1]) < 0.01


def test_only_pixels_in_and_near_a_proposal_change_it() -> None:
    torch.manual_seed(0)
    refiner = BoxRefiner(3, SHAPE, 2)
    torch.nn.init.normal_(refiner.change.weight)
    pixels = torch.zeros(1, 3, 112, 112)
    marked = pixels.clone()
    marked[..., 16:20, 50:60] = 2.0  # above the first proposal, in its margin
    with torch.no_grad():
        before, after = (refiner(some, BOXES, OBJECTNESS)[0] for some in (pixels, marked))
    changed = (after - before).abs().amax((0, 2))
    assert changed[1].item() < 1e-6 < 1e-4 < changed[0].item()
