"""The pixels of boxes, resized to one size, and what convolutions see in them."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from groma_ros.crop_shape import CropShape
from groma_ros.model.box_crops import BoxCrops

SHAPE = CropShape(widths=(8, 8, 16), side=8, margin=1.0, hidden=12)


def test_crops_are_the_pixels_of_their_boxes() -> None:
    crops = BoxCrops(3, SHAPE)
    pixels = torch.rand(2, 3, 32, 32)
    # Boxes of 8 x 8 and 16 x 16 pixels: a cell is a pixel, and the mean of four.
    boxes = torch.tensor([[[0.375, 0.625, 0.25, 0.25], [0.5, 0.5, 0.5, 0.5]]]).expand(2, -1, -1)
    resized = crops.crops(pixels, boxes)
    assert tuple(resized.shape) == (2, 2, 3, 8, 8)
    torch.testing.assert_close(resized[1, 0], pixels[1, :, 16:24, 8:16], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        resized[0, 1], F.avg_pool2d(pixels[:1, :, 8:24, 8:24], 2)[0], atol=1e-5, rtol=1e-5
    )


def test_the_margin_is_around_the_box_and_zero_outside_the_picture() -> None:
    crops = BoxCrops(3, dataclasses.replace(SHAPE, margin=2.0))
    pixels = torch.rand(1, 3, 32, 32)
    # A box of 4 x 4 pixels at the left edge: 8 x 8 pixels from 2 beyond it.
    resized = crops.crops(pixels, torch.tensor([[[2 / 32, 0.5, 4 / 32, 4 / 32]]]))[0, 0]
    torch.testing.assert_close(resized[..., 2:], pixels[0, :, 12:20, :6], atol=1e-5, rtol=1e-5)
    assert not resized[..., :2].any()


def test_pixels_and_size_of_a_box_are_seen_and_its_place_is_not() -> None:
    torch.manual_seed(0)
    crops = BoxCrops(3, SHAPE).eval()
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[..., 8:16, 8:16] = pixels[..., 40:48, 24:32] = 1.0
    pixels[..., 8:12, 40:48] = 1.0
    boxes = torch.tensor(
        [
            [
                [0.1875, 0.1875, 0.125, 0.125],
                [0.4375, 0.6875, 0.125, 0.125],
                [0.6875, 0.1875, 0.125, 0.125],
                [0.1875, 0.1875, 0.0625, 0.0625],  # as bright all over, and smaller
            ]
        ]
    )
    with torch.no_grad():
        seen = crops.seen(pixels, boxes)
    torch.testing.assert_close(seen[1], seen[0], atol=1e-5, rtol=1e-5)
    assert all(float((seen[other] - seen[0]).abs().max()) > 1e-3 for other in (2, 3))
