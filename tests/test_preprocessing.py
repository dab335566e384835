"""Resizing to the network's input, against Pillow and OpenCV."""

import hashlib

import cv2
import numpy as np
import pytest

from groma_ros.preprocessing import ImageTransform


@pytest.mark.parametrize(
    ("width", "height", "size", "digest"),
    [
        (640, 160, 448, "d8974e168b243620"),
        (300, 70, 448, "b9a98b46fd7b31e2"),
        (37, 18, 224, "3fb5b086c56db152"),
        (1280, 240, 336, "924b8e055f1474ec"),
        (448, 100, 448, "4390549691a24ec7"),
        (1000, 5, 28, "e80c1a8abde036bf"),
        (3, 2, 70, "a330fbab015d20be"),
    ],
)
def test_bicubic_equals_pillow_byte_for_byte(width: int, height: int, size: int, digest: str) -> None:
    """Digests were taken of what Pillow 13.0's own `Image.resize` makes of the same picture."""
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ramp = (
        np.arange(width)[None, :, None] * 3 + np.arange(height)[:, None, None] * 5 + np.arange(3) * 40
    ) % 256
    picture = np.concatenate([noise, ramp.astype(np.uint8), np.where(noise > 127, 255, 0).astype(np.uint8)])
    stretched = ImageTransform(size, "bicubic").stretch(picture)
    assert stretched.shape == (size, size, 3) and stretched.dtype == np.uint8
    assert hashlib.sha256(stretched.tobytes()).hexdigest().startswith(digest)


def test_bilinear_and_area_are_opencv_and_a_fitting_picture_stays() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for name, method in (("bilinear", cv2.INTER_LINEAR), ("area", cv2.INTER_AREA)):
        expected = cv2.resize(picture, (28, 28), interpolation=method)
        np.testing.assert_array_equal(ImageTransform(28, name).stretch(picture), expected)  # type: ignore[arg-type]
    square = picture[:28, :28]
    assert ImageTransform(28).stretch(square) is square


def test_pixels_are_normalised_channel_first() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0] = 255
    pixels = ImageTransform(4)(picture)
    assert pixels.shape == (3, 4, 4) and pixels.dtype == np.float32
    np.testing.assert_allclose(
        pixels[:, 0, 0], [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6
    )


def test_every_byte_has_the_bits_of_the_formula() -> None:
    """Also of a picture that is a view from right to left, which OpenCV alone refuses."""
    transform = ImageTransform(16)
    picture = np.arange(16 * 16 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)
    for view in (picture, picture[:, ::-1, ::-1]):
        mean, std = (np.asarray(values, np.float32) for values in (transform.mean, transform.std))
        expected = (view.astype(np.float32) / 255.0 - mean) / std
        np.testing.assert_array_equal(transform(view), expected.transpose(2, 0, 1))
        assert transform(view).dtype == np.float32 and transform(view).flags.c_contiguous


def test_an_unknown_resize_is_named() -> None:
    with pytest.raises(ValueError, match="'lanczos' is unknown; use one of bilinear, bicubic, area"):
        ImageTransform(28, "lanczos")  # type: ignore[arg-type]
