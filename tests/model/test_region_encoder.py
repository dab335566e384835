"""RoIAlign as two small matrices against the sampled definition, negative extents included; the rewritten
fusion is exact."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from groma_ros.model.region_encoder import RegionEncoder, resize, roi_align, with_coordinates
from groma_ros.network_config import BackboneConfig, GromaConfig, LanguageConfig, RegionEncoderConfig


def _sampled(
    image: NDArray[Any], x1: float, y1: float, x2: float, y2: float, bins: int, samples: int
) -> NDArray[Any]:
    """RoIAlign by its definition, one sample at a time (groma_spec 5.3)."""
    channels, height, width = image.shape
    out = np.zeros((channels, bins, bins))
    step_x, step_y = (x2 - x1) / bins, (y2 - y1) / bins
    for p in range(bins):
        for q in range(bins):
            for i in range(samples):
                for j in range(samples):
                    y = y1 + p * step_y + (i + 0.5) * step_y / samples
                    x = x1 + q * step_x + (j + 0.5) * step_x / samples
                    if y < -1 or y > height or x < -1 or x > width:
                        continue
                    y, x = max(y, 0.0), max(x, 0.0)
                    low_y, low_x = min(int(y), height - 1), min(int(x), width - 1)
                    high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
                    fy = 0.0 if low_y >= height - 1 else y - low_y
                    fx = 0.0 if low_x >= width - 1 else x - low_x
                    top = image[:, low_y, low_x] * (1 - fx) + image[:, low_y, high_x] * fx
                    bottom = image[:, high_y, low_x] * (1 - fx) + image[:, high_y, high_x] * fx
                    out[:, p, q] += (top * (1 - fy) + bottom * fy) / samples**2
    return out


def test_roi_align_equals_its_definition_also_outside_and_backwards() -> None:
    rng = np.random.default_rng(0)
    c = RegionEncoderConfig(pooled=5)
    image = rng.normal(size=(3, 9, 12)).astype(np.float32)
    corners = rng.uniform(-6, 18, (40, 4)).astype(np.float32)  # x1, y1, x2, y2 in any order
    assert (corners[:, 2] < corners[:, 0]).sum() > 5, "the draw must hold negative extents"
    start, end = torch.from_numpy(corners[None, :, :2]), torch.from_numpy(corners[None, :, 2:])
    pooled = roi_align(torch.from_numpy(image[None]), start, end, c.pooled, c.sampling_ratio)[0].numpy()
    for index, (x1, y1, x2, y2) in enumerate(corners):
        np.testing.assert_allclose(pooled[index], _sampled(image, x1, y1, x2, y2, 5, 2), atol=2e-5)


def _config(geometry: str) -> GromaConfig:
    return GromaConfig(
        backbone=BackboneConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, patch_size=14),
        region=RegionEncoderConfig(geometry=geometry, fuse_rounds=2, groups=4, pos_hidden=8, hidden=12),  # type: ignore[arg-type]
        language=LanguageConfig(
            hidden_size=24, num_attention_heads=2, intermediate_size=32, num_hidden_layers=1
        ),
        image_size=224,
    )


def test_published_geometry_hands_centre_and_size_on_at_twice_the_scale() -> None:
    pooling = RegionEncoder(_config("published")).roi_align
    boxes = torch.tensor([[0.5, 0.25, 0.2, 0.1]])
    start, end = pooling.corners(boxes, level=0, side=128)
    scale = 448 / 1.75
    torch.testing.assert_close(start, torch.tensor([[0.5 * scale - 0.5, 0.25 * scale - 0.5]]))
    torch.testing.assert_close(end, torch.tensor([[0.2 * scale - 0.5, 0.1 * scale - 0.5]]))


def test_exact_geometry_is_the_box_in_feature_pixels() -> None:
    pooling = RegionEncoder(_config("exact")).roi_align
    start, end = pooling.corners(torch.tensor([[0.5, 0.25, 0.2, 0.1]]), level=1, side=32)
    torch.testing.assert_close(start, torch.tensor([[0.4 * 32 - 0.5, 0.2 * 32 - 0.5]]))
    torch.testing.assert_close(end, torch.tensor([[0.6 * 32 - 0.5, 0.3 * 32 - 0.5]]))


def test_convolving_before_the_resize_is_the_original_order() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(10, 6, 1)
    image = torch.randn(2, 8, 16, 16)
    original = conv(
        with_coordinates(F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=True))
    )
    torch.testing.assert_close(
        resize(conv(with_coordinates(image)), (64, 64)), original, atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("geometry", ["published", "exact"])
def test_regions_of_a_batch_do_not_see_each_other(geometry: str) -> None:
    torch.manual_seed(1)
    config = _config(geometry)
    encoder = RegionEncoder(config).eval()
    side = config.grid
    maps = [torch.randn(2, 16, side, side) for _ in range(3)]
    boxes = torch.rand(2, 5, 4) * 0.5 + 0.1
    with torch.no_grad():
        together = encoder(maps, boxes)
        alone = encoder([m[1:] for m in maps], boxes[1:, 3:4])
    assert together.shape == (2, 5, 24)
    torch.testing.assert_close(together[1, 3], alone[0, 0], atol=1e-5, rtol=1e-5)
    assert math.isfinite(float(together.sum()))


def test_fine_level_has_a_quarter_of_the_input_size_and_resolves_within_a_patch() -> None:
    config = dataclasses.replace(
        _config("exact"), region=dataclasses.replace(_config("exact").region, fine=(4, 8, 16))
    )
    torch.manual_seed(0)
    encoder = RegionEncoder(config).eval()
    pixels = torch.zeros(1, 3, 224, 224)
    fine = encoder.fine(pixels)
    assert tuple(fine.shape[1:]) == config.map_shapes[-1] == (16, 56, 56)
    coarse = [torch.zeros(1, *shape) for shape in config.map_shapes[:-1]]
    box = torch.tensor([[[0.5, 0.5, 0.06, 0.06]]])
    marked = pixels.clone()
    marked[..., 108:116, 111:113] = 2.0  # narrower than a patch
    tokens = [encoder([*coarse, encoder.fine(one)], box) for one in (pixels, marked)]
    assert float((tokens[0] - tokens[1]).abs().max()) > 1e-3


def _with_crops(side: int = 8) -> RegionEncoder:
    plain = _config("exact")
    region = dataclasses.replace(plain.region, crop=(8, 8, 16), crop_side=side, crop_margin=1.0)
    torch.manual_seed(0)
    return RegionEncoder(dataclasses.replace(plain, region=region)).eval()


def test_crops_are_the_pixels_of_their_boxes() -> None:
    crop = _with_crops().crop
    assert crop is not None
    pixels = torch.rand(2, 3, 32, 32)
    # Boxes of 8 x 8 and 16 x 16 pixels: a bin is a pixel, and the mean of four.
    boxes = torch.tensor([[[0.375, 0.625, 0.25, 0.25], [0.5, 0.5, 0.5, 0.5]]]).expand(2, -1, -1)
    crops = crop.crops(pixels, boxes)
    assert tuple(crops.shape) == (2, 2, 3, 8, 8)
    two_samples = F.avg_pool2d(F.interpolate(pixels, scale_factor=2, mode="bilinear"), 2)
    torch.testing.assert_close(crops[1, 0], two_samples[1, :, 16:24, 8:16], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        crops[0, 1], F.avg_pool2d(pixels[:1, :, 8:24, 8:24], 2)[0], atol=1e-5, rtol=1e-5
    )


def test_the_margin_is_around_the_box() -> None:
    encoder = _with_crops()
    assert encoder.crop is not None
    wider = dataclasses.replace(encoder.crop.config, crop_margin=1.5)
    encoder.crop.config = wider
    start, end = encoder.crop.corners(torch.tensor([[0.5, 0.25, 0.2, 0.1]]), 100)
    torch.testing.assert_close(start, torch.tensor([[34.5, 17.0]]))
    torch.testing.assert_close(end, torch.tensor([[64.5, 32.0]]))


def test_what_a_box_shows_changes_its_token_and_no_other() -> None:
    encoder = _with_crops()
    assert encoder.crop is not None
    pixels, boxes = torch.zeros(1, 3, 64, 64), torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]])
    marked = pixels.clone()
    marked[..., 50:53, 50:52] = 2.0
    with torch.no_grad():
        before, after = encoder.crop(pixels, boxes), encoder.crop(marked, boxes)
    changed = (before - after).abs().amax((0, 2))
    assert float(changed[0]) < 1e-6 < 1e-3 < float(changed[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"geometry": "published"}, "crop needs the exact geometry"),
        ({"crop_side": 18}, "crop_side 18 must be divisible by 4"),
        ({"crop_side": 2048}, "crop_side is 2048, not 1 to 1024"),
        ({"crop_margin": 0.0}, "crop_margin 0.0 must be from 0.5 to 4"),
        ({"crop": (8, 0)}, "crop is 0, not 1 to"),
        ({"crop": (8, 8.5)}, "not a list of whole numbers"),
        ({"crop": 8}, "crop is 8 and not a list of whole numbers"),
    ],
)
def test_crops_that_do_not_fit_are_named(changes: dict[str, Any], said: str) -> None:
    plain = _config("exact")
    fields = {"crop": (8, 8, 8), **changes}
    region: Any = dataclasses.replace(plain.region, **fields)
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(plain, region=region)


@pytest.mark.parametrize(
    ("fine", "geometry", "said"),
    [
        ((16,), "exact", "two or more widths"),
        ((4, 8), "exact", "the last of them the region channels"),
        ((8, 16), "published", "needs the exact geometry"),
    ],
)
def test_a_fine_level_that_does_not_fit_is_named(fine: tuple[int, ...], geometry: str, said: str) -> None:
    plain = _config(geometry)
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(plain, region=dataclasses.replace(plain.region, fine=fine))
