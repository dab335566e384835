"""Augment training pictures: mirroring, crops that cut some objects or none, objects farther away, other
colours, light, noise and sharpness."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.types import FloatArray

Image = NDArray[Any]  # uint8; OpenCV's stubs are not more precise

CUT_LEAST = 0.4
"""Share of a box that a crop leaves of an object at least; objects with less are cut off entirely."""
_TRIES = 8  # windows


def augment(
    image: Image, boxes: FloatArray, size: int, rng: np.random.Generator, farther: bool = True
) -> tuple[Image, FloatArray]:
    """Augment and resize one picture, uint8 (S, S, 3) with xyxy boxes (N, 4) in pixels, to size x size.

    farther: some pictures are surrounded with their own edges, which must cut no object. Returns the picture
    and its boxes as cxcywh fractions.
    """
    nearer = rng.random() < 0.75 or not farther
    image, boxes = _safe_crop(image, boxes, rng) if nearer else _farther(image, boxes, rng)
    height, width = image.shape[:2]
    boxes = (boxes / np.array([width, height, width, height])).astype(np.float32)
    way = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR
    image = cv2.resize(image, (size, size), interpolation=way) if (height, width) != (size, size) else image
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    centre_size = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
    return relit(image, rng), centre_size.astype(np.float32)


def cut_crop(
    image: Image, boxes: FloatArray, rng: np.random.Generator
) -> tuple[Image, FloatArray, list[int]]:
    """Crop to a window whose border cuts objects, as a camera's picture does: scenes are rendered so that
    every object is whole.

    Returns the crop, the visible parts of boxes in it (N, 4), and their indices; the picture as it is if no
    window was found that cuts an object and leaves `CUT_LEAST` or (nearly) nothing of each.
    """
    height, width = image.shape[:2]
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-6)
    for _ in range(_TRIES):
        inset = rng.uniform(0, 0.45, 4) * (rng.random(4) < 0.5) * [width, height, width, height]
        left, top, right, bottom = inset.astype(int)
        window = np.array([left, top, width - right, height - bottom], np.float32)
        if min(window[2] - left, window[3] - top) < 0.4 * min(width, height):
            continue
        seen = np.concatenate([np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])], 1)
        left_of = np.clip(seen[:, 2:] - seen[:, :2], 0, None).prod(1) / areas
        kept = left_of >= CUT_LEAST
        if kept.any() and ((left_of < 0.01) | kept).all() and (left_of[kept] < 0.95).any():
            x1, y1, x2, y2 = window.astype(int)
            return image[y1:y2, x1:x2], seen[kept] - window[[0, 1, 0, 1]], np.flatnonzero(kept).tolist()
    return image, boxes, list(range(len(boxes)))


def _safe_crop(image: Image, boxes: FloatArray, rng: np.random.Generator) -> tuple[Image, FloatArray]:
    """Crop to a window that holds every object whole, with probability one half."""
    if rng.random() < 0.5 or not len(boxes):
        return image, boxes
    height, width = image.shape[:2]
    keep = rng.uniform(0.3, 1.0, 4)
    left, top = (boxes[:, :2].min(0) * (1 - keep[:2])).astype(int)
    far = boxes[:, 2:].max(0)
    right, bottom = np.ceil(far + (np.array([width, height]) - far) * keep[2:]).astype(int)
    return image[top:bottom, left:right], boxes - np.array([left, top, left, top], np.float32)


def _farther(image: Image, boxes: FloatArray, rng: np.random.Generator) -> tuple[Image, FloatArray]:
    """Surround the picture with its own edges, repeated, so that objects take 0.5 to 0.95 of their part."""
    height, width = image.shape[:2]
    more = np.array([width, height]) * (1 / rng.uniform(0.5, 0.95) - 1)
    left, top = (more * rng.random(2)).astype(int)
    right, bottom = more.astype(int) - (left, top)
    around = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return around, boxes + np.array([left, top, left, top], np.float32)


def recoloured(image: Image, rng: np.random.Generator) -> Image:
    """Turn all hues of an RGB picture by one angle, 40 to 320 degrees, and fade them by up to two thirds;
    black, white and grey stay.

    Kinds of objects are then learnt by their shapes: a network that has seen only some kinds in some colours
    otherwise takes a colour it has not seen on a kind for another kind.
    """
    hue, saturation, value = cv2.split(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV))
    turned = ((hue.astype(np.int16) + int(rng.integers(20, 161))) % 180).astype(np.uint8)  # 2 degrees a step
    faded = cv2.convertScaleAbs(saturation, alpha=rng.uniform(0.34, 1))
    return cv2.cvtColor(cv2.merge([turned, faded, value]), cv2.COLOR_HSV2RGB)


def relit(image: Image, rng: np.random.Generator) -> Image:
    """Change the light of a picture, and sometimes blur it, compress it or add noise."""
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3)
    table = np.clip((np.arange(256)[:, None] / 255.0) ** rng.uniform(0.8, 1.25) * gain * 255, 0, 255).astype(
        np.uint8
    )
    image = cv2.LUT(np.ascontiguousarray(image), table[:, None, :].reshape(256, 1, 3))
    draw = rng.random()
    if draw < 0.15:
        image = cv2.GaussianBlur(image, (3, 3), 0)
    elif draw < 0.3:
        code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 95))])[1]
        image = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    elif draw < 0.45:
        noise = rng.integers(-10, 11, image.shape, dtype=np.int16)
        image = np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return image
