"""Every encoding by value, with row padding and both byte orders, and all kinds of invalid images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge
from numpy.typing import NDArray

from groma_ros.io.images import ENCODINGS, MAX_PIXELS, ImageError, compressed_to_rgb, image_to_rgb

RNG = np.random.default_rng(2024)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)
ALPHA = np.full((6, 8, 1), 77, np.uint8)


def image(encoding: str, pixels: NDArray[Any], padding: int = 0, bigendian: bool = False) -> Any:
    """A message of the pixels (H, W[, C]) as a driver would send it; padding: rubbish bytes after each
    row."""
    pixels = pixels.astype(pixels.dtype.newbyteorder(">" if bigendian else "<"))
    height, width = pixels.shape[:2]
    rows: NDArray[np.uint8] = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    rows = np.hstack([rows, np.full((height, padding), 0xAB, np.uint8)])
    fields = dict(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(bigendian),
        step=rows.shape[1],
        data=rows.tobytes(),
    )
    return SimpleNamespace(**fields)


def mosaic(pattern: str, colour: tuple[int, int, int], depth: Any = np.uint8) -> NDArray[Any]:
    """What a sensor with this Bayer pattern sees of an even colour."""
    cell = np.array([colour["rgb".index(letter)] for letter in pattern], depth).reshape(2, 2)
    return np.tile(cell, (4, 5))


WIDE = RNG.integers(0, 65536, (6, 8, 3), np.uint16)
CASES = {
    "rgb8": (RGB, RGB),
    "bgr8": (RGB[:, :, ::-1], RGB),
    "8UC3": (RGB[:, :, ::-1], RGB),
    "rgba8": (np.dstack([RGB, ALPHA]), RGB),
    "bgra8": (np.dstack([RGB[:, :, ::-1], ALPHA]), RGB),
    "8UC4": (np.dstack([RGB[:, :, ::-1], ALPHA]), RGB),
    "mono8": (RGB[:, :, 0], RGB[:, :, [0, 0, 0]]),
    "8UC1": (RGB[:, :, 0], RGB[:, :, [0, 0, 0]]),
    "rgb16": (WIDE, (WIDE // 256).astype(np.uint8)),
    "bgr16": (WIDE[:, :, ::-1], (WIDE // 256).astype(np.uint8)),
    "rgba16": (np.dstack([WIDE, WIDE[:, :, :1]]), (WIDE // 256).astype(np.uint8)),
    "bgra16": (np.dstack([WIDE[:, :, ::-1], WIDE[:, :, :1]]), (WIDE // 256).astype(np.uint8)),
    "mono16": (WIDE[:, :, 0], (WIDE[:, :, [0, 0, 0]] // 256).astype(np.uint8)),
    "16UC1": (WIDE[:, :, 0], (WIDE[:, :, [0, 0, 0]] // 256).astype(np.uint8)),
}


@pytest.mark.parametrize("padding", [0, 2, 13])
@pytest.mark.parametrize("bigendian", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("encoding", CASES)
def test_pixels_are_exact(encoding: str, bigendian: bool, padding: int) -> None:
    pixels, expected = CASES[encoding]
    rgb = image_to_rgb(image(encoding, pixels, padding, bigendian))
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize("bigendian", [False, True], ids=["little", "big"])
def test_float_images_are_read_as_0_to_1(bigendian: bool, padding: int) -> None:
    pixels = np.array([[0, 0.5, 1], [2, -1, np.nan]], np.float32)
    rgb = image_to_rgb(image("32FC1", pixels, padding, bigendian))
    np.testing.assert_array_equal(rgb[:, :, 0], [[0, 128, 255], [255, 0, 0]])
    np.testing.assert_array_equal(rgb[:, :, 1:], rgb[:, :, [0, 0]])


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_their_colour(pattern: str, padding: int) -> None:
    """An even colour survives any demosaicing exactly, and a pattern read as another one would mix its
    channels."""
    colour = (200, 120, 40)
    rgb = image_to_rgb(image(f"bayer_{pattern}8", mosaic(pattern, colour), padding))
    np.testing.assert_array_equal(rgb, np.broadcast_to(np.array(colour, np.uint8), (8, 10, 3)))
    wide = mosaic(pattern, (200 * 256 + 5, 120 * 256 + 250, 40 * 256), np.uint16)
    rgb = image_to_rgb(image(f"bayer_{pattern}16", wide, padding + padding % 2, bigendian=True))
    np.testing.assert_array_equal(rgb, np.broadcast_to(np.array(colour, np.uint8), (8, 10, 3)))


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        ("yuv422", "uyvy"),
        ("uyvy", "uyvy"),
        ("UYVY", "uyvy"),
        ("yuv422_yuy2", "yuyv"),
        ("yuyv", "yuyv"),
        ("YUYV", "yuyv"),
    ],
)
def test_yuv_pairs_share_their_colour(encoding: str, order: str, padding: int) -> None:
    """BT.601, studio range: Y 16 is black, 235 white, and U and V of 128 no colour; (81, 90, 240) is red."""
    pairs = [(16, 235, 128, 128), (81, 81, 90, 240), (145, 145, 54, 34)]
    layout = {"uyvy": [2, 0, 3, 1], "yuyv": [0, 2, 1, 3]}[order]
    row = np.array([[pair[index] for index in layout] for pair in pairs], np.uint8).reshape(1, 6, 2)
    rgb = image_to_rgb(image(encoding, np.repeat(row, 4, 0), padding)).astype(int)
    expected = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (255, 0, 0), (0, 255, 0), (0, 255, 0)]
    assert np.abs(rgb - np.array(expected)).max() <= 2


@pytest.mark.parametrize(
    "encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8"]
)
def test_agrees_with_cv_bridge_where_that_serves(encoding: str) -> None:
    bridge = CvBridge()
    channels = ENCODINGS[encoding].channels
    pixels = RNG.integers(0, 256, (6, 8, channels), np.uint8)
    message = image(encoding, pixels[:, :, 0] if channels == 1 else pixels)
    message.data = bytearray(message.data)
    np.testing.assert_array_equal(image_to_rgb(message), bridge.imgmsg_to_cv2(message, "rgb8"))


def test_rgb8_without_padding_is_not_copied() -> None:
    message = image("rgb8", RGB)
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, np.uint8))


def wrong(encoding: str = "rgb8", **fields: Any) -> Any:
    message = image(encoding, RGB)
    vars(message).update(fields)
    return message


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (wrong(encoding="rgb9"), "encoding 'rgb9', which is not one of rgb8"),
        (wrong(encoding=""), "encoding ''"),
        (wrong(encoding="x" * 5000), "x" * 40 + "'"),
        (wrong(width=0), r"empty \(0x6 pixels\)"),
        (wrong(height=0, width=0, step=0, data=b""), "empty"),
        (wrong(data=b""), "truncated: 0 bytes where height x step is 144"),
        (wrong(data=wrong().data[:-1]), "truncated: 143 bytes where height x step is 144"),
        (wrong(data=wrong().data + b"0"), "too long: 145 bytes"),
        (wrong(step=23), "step of 23 bytes, and one row needs 24"),
        (wrong(step=0), "step of 0 bytes"),
        (wrong(encoding="rgba8"), "step of 24 bytes, and one row needs 32"),
        (wrong(width=2**31, height=2**31), f"larger than the limit of {MAX_PIXELS}"),
        (
            image("mono8", np.zeros((4, 640, 3), np.uint8)),
            "holds 3 bytes a pixel where its encoding has 1: it is mislabelled",
        ),
        (image("mono8", np.zeros((4, 640), np.uint16)), "holds 2 bytes a pixel"),
        (image("yuv422", np.zeros((2, 5, 2), np.uint8)), "odd width"),
    ],
)
def test_wrong_images_are_refused_with_a_sentence(message: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        image_to_rgb(message)
    assert str(caught.value).endswith(".") and len(str(caught.value)) < 500


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tiny_images_never_crash(encoding: str) -> None:
    """One pixel is an image in most encodings; where it is not (Bayer, pairs), the refusal is a sentence."""
    kind = ENCODINGS[encoding]
    message = image(encoding, np.zeros((1, 1, kind.channels), kind.type))
    try:
        assert image_to_rgb(message).shape == (1, 1, 3)
    except ValueError as error:
        assert str(error).startswith("The ")


def jpeg(pixels: NDArray[Any] = RGB, progressive: bool = False) -> bytes:
    flags = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return bytes(cv2.imencode(".jpg", pixels[:, :, ::-1], flags)[1])


def test_png_is_exact_and_jpeg_is_what_opencv_decodes() -> None:
    png = bytes(cv2.imencode(".png", RGB[:, :, ::-1])[1])
    np.testing.assert_array_equal(compressed_to_rgb(png, "png"), RGB)
    even = np.full((32, 48, 3), (200, 60, 20), np.uint8)
    for progressive in (False, True):
        assert (
            np.abs(
                compressed_to_rgb(jpeg(even, progressive), "rgb8; jpeg compressed bgr8").astype(int) - even
            ).max()
            <= 2
        )


def test_the_stored_orientation_is_not_applied() -> None:
    """Boxes are pixels of the sensor's image: an EXIF note 'rotate by 90 degrees' must not swap width and
    height."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    content = jpeg()
    content = content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]
    turned = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert turned is not None and turned.shape == (8, 6, 3)
    assert compressed_to_rgb(content).shape == (6, 8, 3)


@pytest.mark.parametrize("keep", [3, 20, 200, 0.5, 0.9, -2, -1])
def test_truncated_jpegs_are_refused(keep: float) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    for progressive in (False, True):
        content = jpeg(noise, progressive)
        with pytest.raises(ValueError, match="truncated: its end-of-image marker is missing"):
            compressed_to_rgb(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)], "jpeg")


OPTIONS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restart": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
}


def smooth(height: int, width: int) -> NDArray[Any]:
    return cv2.GaussianBlur(RNG.integers(0, 256, (height, width, 3), np.uint8), (9, 9), 3)


@pytest.mark.parametrize("cut", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("kind", OPTIONS)
def test_jpegs_that_were_cut_and_closed_again_are_refused(kind: str, colours: int, cut: float) -> None:
    """From a camera driver or a repaired file: the decoder silently paints the rest grey."""
    pixels = smooth(93, 157)[:, :, :colours]
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90, *OPTIONS[kind]])[1].tobytes()
    assert compressed_to_rgb(content).shape == (93, 157, 3)
    begin = content.find(b"\xff\xda")
    kept = content[: begin + 12 + int(cut * (len(content) - begin - 12))]
    with pytest.raises(ImageError, match="truncated: its coded data end before its last pixel") as refused:
        compressed_to_rgb(kept.rstrip(b"\xff") + b"\xff\xd9")
    assert refused.value.cause == "truncated"


def test_a_progressive_jpeg_without_its_last_scan_is_refused() -> None:
    content = jpeg(smooth(64, 64), progressive=True)
    with pytest.raises(ImageError, match="its coded data end before its last pixel"):
        compressed_to_rgb(content[: content.rfind(b"\xff\xda")] + b"\xff\xd9")


@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_that_only_look_like_an_end_marker_do_not_end_a_jpeg(progressive: bool) -> None:
    """Fill bytes before the end-of-image marker; a comment before the last scan, which may hold any bytes."""
    content = jpeg(smooth(64, 64), progressive)
    pixels = compressed_to_rgb(content)
    np.testing.assert_array_equal(compressed_to_rgb(content[:-2] + b"\xff\xff" + content[-2:]), pixels)
    comment, last = b"\xff\xfe\x00\x06\xff\xd9\xff\xda", content.rfind(b"\xff\xda")
    np.testing.assert_array_equal(compressed_to_rgb(content[:last] + comment + content[last:]), pixels)


def test_a_baseline_jpeg_without_the_scans_of_its_colours_is_refused() -> None:
    content = jpeg(smooth(64, 64))
    begin = content.find(b"\xff\xda")
    # The same header, with a scan that says to hold the first component alone.
    cut = (
        content[:begin] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + content[begin + 14 : -2] + b"\xff\xd9"
    )
    with pytest.raises(ImageError, match="its coded data end before its last pixel"):
        compressed_to_rgb(cut)


@pytest.mark.parametrize("kind", OPTIONS)
def test_whole_jpegs_that_end_in_grey_pass(kind: str) -> None:
    pixels = smooth(96, 128)
    pixels[64:] = 128
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90, *OPTIONS[kind]])[1].tobytes()
    rgb = compressed_to_rgb(content)
    assert (rgb[-1, -1] == 128).all()
    np.testing.assert_array_equal(rgb[:, :, ::-1], cv2.imdecode(np.frombuffer(content, np.uint8), 1))


def test_a_thumbnail_does_not_hide_a_cut_file() -> None:
    """The embedded thumbnail of an EXIF block has an end marker of its own."""
    content, thumbnail = jpeg(), b"Exif\0\0" + jpeg()
    content = content[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + content[2:]
    assert compressed_to_rgb(content).shape == (6, 8, 3)
    with pytest.raises(ValueError, match="truncated"):
        compressed_to_rgb(content[:-2])


def test_trailing_bytes_after_the_end_are_allowed() -> None:
    np.testing.assert_array_equal(compressed_to_rgb(jpeg() + b"\0" * 64), compressed_to_rgb(jpeg()))


def yuv420(encoding: str, width: int = 6, height: int = 4, padding: int = 0) -> Any:
    """A message of three bars, red, green and white (BT.601, studio range), as a driver lays it out."""
    bars = np.array([(81, 90, 240), (145, 54, 34), (235, 128, 128)], np.uint8)[np.arange(width) * 3 // width]
    luma, u, v = np.repeat(bars[None], height, 0).transpose(2, 0, 1)
    kind = encoding.lower()
    if kind == "nv24":
        chroma = np.stack([u, v], -1).reshape(height, 2 * width)
    elif kind in ("nv12", "nv21"):
        pair = [u, v] if kind == "nv12" else [v, u]
        chroma = np.stack([plane[::2, ::2] for plane in pair], -1).reshape(height // 2, width)
    else:
        pair = [v, u] if kind == "yv12" else [u, v]
        chroma = np.concatenate([plane[::2, ::2] for plane in pair])
    rows = [np.pad(plane, ((0, 0), (0, padding * plane.shape[1] // width))) for plane in (luma, chroma)]
    data = b"".join(plane.tobytes() for plane in rows)
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=0, step=width + padding, data=data
    )


PLANAR = ["nv12", "nv21", "nv24", "yuv420", "YUV420", "i420", "yuv420p", "yv12", "NV12"]


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", PLANAR)
def test_planes_of_yuv_give_their_colours(encoding: str, padding: int) -> None:
    rgb = image_to_rgb(yuv420(encoding, 12, 4, padding)).astype(int)
    assert rgb.shape == (4, 12, 3)
    expected = np.repeat([(255, 0, 0), (0, 255, 0), (255, 255, 255)], 4, 0)
    assert np.abs(rgb - expected).max() <= 2


@pytest.mark.parametrize("encoding", ["nv12", "yuv420"])
def test_a_step_that_counts_the_chroma_is_understood(encoding: str) -> None:
    plain, counted = yuv420(encoding, 12, 4), yuv420(encoding, 12, 4)
    counted.step = 18
    np.testing.assert_array_equal(image_to_rgb(counted), image_to_rgb(plain))


@pytest.mark.parametrize(
    ("changes", "cause", "sentence"),
    [
        ({"width": 5}, "encoding", "odd width or height"),
        ({"height": 3}, "encoding", "odd width or height"),
        ({"step": 4}, "step", "a step of 4 bytes, and one row needs 6"),
        ({"data": bytes(35)}, "length", "truncated: 35 bytes where its rows and chroma are 36"),
        ({"data": bytes(37)}, "length", "too long: 37 bytes"),
        ({"width": 0}, "empty", "is empty"),
        ({"width": 20_000, "height": 20_000}, "size", "larger than the limit"),
    ],
)
def test_planes_that_contradict_the_message_are_refused(
    changes: dict[str, Any], cause: str, sentence: str
) -> None:
    message = yuv420("nv12")
    vars(message).update(changes)
    with pytest.raises(ImageError, match=sentence) as caught:
        image_to_rgb(message)
    assert caught.value.cause == cause


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("file", [".png", ".jpg"])
def test_a_compressed_mosaic_is_demosaiced(pattern: str, file: str) -> None:
    colour = (200, 120, 40)
    content = cv2.imencode(file, mosaic(pattern, colour), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    rgb = compressed_to_rgb(content, f"bayer_{pattern}8; {'jpeg' if file == '.jpg' else 'png'} compressed ")
    assert np.abs(rgb.astype(int) - colour).max() <= (0 if file == ".png" else 12)
    red, green, blue = colour
    bright = (256 * red + 9, 256 * green + 9, 256 * blue + 9)
    wide = cv2.imencode(".png", mosaic(pattern, bright, np.uint16))[1].tobytes()
    np.testing.assert_array_equal(compressed_to_rgb(wide, f"bayer_{pattern}16; png compressed")[0, 0], colour)


@pytest.mark.parametrize("quality", [90, 101])
def test_webp_is_read_and_cut_files_are_refused(quality: int) -> None:
    """Lossy up to 100, lossless above."""
    content = cv2.imencode(
        ".webp", np.ascontiguousarray(RGB[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, quality]
    )[1]
    rgb = compressed_to_rgb(content.tobytes(), "webp")
    assert rgb.shape == RGB.shape and (quality == 90 or (rgb == RGB).all())
    for keep in (14, 29, len(content) - 1):
        with pytest.raises(ImageError, match="WebP image of [0-9]+ bytes is truncated"):
            compressed_to_rgb(content.tobytes()[:keep], "webp")
    with pytest.raises(ImageError, match="damaged, or this OpenCV was built without WebP"):
        compressed_to_rgb(content.tobytes()[:20] + b"\xff" + content.tobytes()[21:], "webp")


@pytest.mark.parametrize(
    ("content", "label", "sentence"),
    [
        (b"", "jpeg", "empty"),
        (b"hello world", "jpeg", "neither a JPEG nor a PNG nor a WebP"),
        (bytes(cv2.imencode(".bmp", RGB)[1]), "png", "neither a JPEG nor a PNG nor a WebP"),
        (bytes(cv2.imencode(".png", RGB)[1])[:-20], "png", "PNG image of [0-9]+ bytes is truncated"),
        (bytes(cv2.imencode(".png", RGB)[1]), "16UC1; compressedDepth png", "which is depth"),
        (
            b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xda\x00\x02\xff\xd9",
            "jpeg",
            "65535x65535 pixels is larger",
        ),
        (
            b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda\x00\x02\xff\xd9",
            "jpeg",
            "its content is damaged",
        ),
    ],
)
def test_wrong_files_are_refused_with_a_sentence(content: bytes, label: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        compressed_to_rgb(content, label)


def test_random_bytes_never_do_worse_than_a_refusal() -> None:
    whole = jpeg(RNG.integers(0, 256, (32, 32, 3), np.uint8))
    for _ in range(300):
        content = bytearray(whole)
        for place in RNG.integers(2, len(content), 3):
            content[place] = RNG.integers(0, 256)
        try:
            assert compressed_to_rgb(bytes(content)).shape[2] == 3
        except ValueError as error:
            assert str(error).startswith("The ")


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_jpegs_that_are_not_huffman_coded_are_refused(marker: int) -> None:
    """OpenCV reads arithmetic codes (0xC9, 0xCA), and what it paints for a cut file shows no sign of it."""
    content = jpeg().replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    with pytest.raises(ImageError, match="of a kind that is not read .arithmetic codes") as caught:
        compressed_to_rgb(content, "jpeg")
    assert caught.value.cause == "format"


def test_a_jpeg_of_twelve_bits_is_refused() -> None:
    content = jpeg()
    place = content.index(b"\xff\xc0") + 4
    with pytest.raises(ImageError, match="more than 8 bits a sample"):
        compressed_to_rgb(content[:place] + b"\x0c" + content[place + 1 :], "jpeg")
