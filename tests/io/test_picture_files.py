"""Picture files: EXIF orientation, folders and patterns, decompression bombs."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.io.images import ImageError, compressed_to_rgb
from groma_ros.io.picture_files import (
    find_pictures,
    may_have_size,
    orientation,
    other_pictures,
    read_annotated,
    read_picture,
    upright,
)
from tests.pictures import read_rgb

UPRIGHT = np.zeros((24, 40, 3), np.uint8)
UPRIGHT[:8, :16] = (255, 0, 0)  # red in the upper left corner
UPRIGHT[16:, 32:] = (0, 0, 255)  # blue in the lower right one


def exif(value: int, order: str = "<") -> bytes:
    head = b"II*\x00" if order == "<" else b"MM\x00*"
    entries = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, value, 0)
    return head + struct.pack(f"{order}IH", 8, 1) + entries + struct.pack(f"{order}I", 0)


def stored(value: int) -> NDArray[Any]:
    """The pixels as a camera stores them whose orientation undoes what was turned."""
    for turned in range(1, 9):
        if np.array_equal(upright(upright(UPRIGHT, turned), value), UPRIGHT):
            return upright(UPRIGHT, turned)
    raise AssertionError(value)


def jpeg(value: int, order: str = "<") -> bytes:
    plain = cv2.imencode(".jpg", stored(value)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    block = b"Exif\x00\x00" + exif(value, order)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def png(value: int) -> bytes:
    plain = cv2.imencode(".png", stored(value)[..., ::-1])[1].tobytes()
    chunk = b"eXIf" + exif(value, ">")
    return (
        plain[:33]
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + plain[33:]
    )


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("make", [jpeg, png], ids=["jpeg", "png"])
def test_a_picture_is_upright_whatever_its_orientation(tmp_path: Path, value: int, make: object) -> None:
    path = tmp_path / "phone.bin"
    path.write_bytes(make(value))  # type: ignore[operator]
    pixels, turned = read_picture(str(path))
    assert turned == value and pixels.shape == UPRIGHT.shape
    assert np.abs(pixels.astype(int) - UPRIGHT).mean() < 6
    assert pixels[2, 2, 0] > 200 and pixels[-3, -3, 2] > 200


def test_orientations_undo_what_opencv_turns(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    for value in range(1, 9):
        path.write_bytes(jpeg(value, ">"))
        theirs = read_rgb(path)
        assert np.abs(read_picture(str(path))[0].astype(int) - theirs).mean() < 2, value


@pytest.mark.parametrize("block", [b"", b"II*\x00", exif(9), exif(0), exif(6)[:14], b"Exif\x00\x00XX"])
def test_a_block_that_cannot_be_read_turns_nothing(block: bytes) -> None:
    data = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\x00\x00" + block + b"\xff\xda"
    assert orientation(data) == 1
    assert orientation(block) == 1


def test_files_folders_patterns_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.png", "a.jpg", "notes.txt", "c [1].png"):
        (tmp_path / name).write_bytes(png(1))
    folder = str(tmp_path)
    assert [Path(name).name for name in find_pictures([folder])] == ["a.jpg", "b.png", "c [1].png"]
    assert [Path(name).name for name in find_pictures([f"{folder}/*.png", f"{folder}/b.png"])] == [
        "b.png",
        "c [1].png",
    ]
    assert find_pictures([f"{folder}/c [1].png", "-"]) == [f"{folder}/c [1].png", "-"]
    with pytest.raises(ValueError, match="No file matches"):
        find_pictures([f"{folder}/*.gif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        find_pictures([f"{folder}/empty"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jpeg(6))))
    pixels, turned = read_picture("-")
    assert (pixels.shape, turned) == (UPRIGHT.shape, 6)


def test_pictures_of_other_types_in_a_folder(tmp_path: Path) -> None:
    for name in ("b.BMP", "a.gif", "c.png", "notes.txt"):
        (tmp_path / name).touch()
    assert other_pictures([str(tmp_path), str(tmp_path), "-", f"{tmp_path}/b.BMP"]) == [
        f"{tmp_path}/a.gif",
        f"{tmp_path}/b.BMP",
    ]


def test_a_progressive_jpeg_of_thousands_of_scans_is_refused_unread() -> None:
    large = np.zeros((2000, 2000, 3), np.uint8)
    data = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert compressed_to_rgb(data, "jpeg").shape == large.shape
    begin = data.rindex(b"\xff\xda")
    scan = data[begin : data.rindex(b"\xff\xd9")]
    bomb = data[:begin] + scan * 5000 + b"\xff\xd9"
    with pytest.raises(ImageError, match="scans; all together may draw at most"):
        compressed_to_rgb(bomb, "jpeg")


def test_a_picture_is_read_as_its_annotations_see_it(tmp_path: Path) -> None:
    """Some tools annotate the pixels as stored, others what people see; their width and height tell."""
    path = tmp_path / "phone.png"
    path.write_bytes(png(6))
    assert stored(6).shape == (40, 24, 3)
    for size in (None, (24, 40)):
        np.testing.assert_array_equal(read_annotated(path, size), stored(6))
    np.testing.assert_array_equal(read_annotated(path, (40, 24)), UPRIGHT)
    with pytest.raises(
        ValueError, match=r"phone.png has 24x40 pixels and its annotations say 80x48, so their"
    ):
        read_annotated(path, (80, 48))


def test_the_header_tells_which_size_a_picture_may_have(tmp_path: Path) -> None:
    """As reading the whole picture does."""
    for turned in range(1, 9):
        for name, content in (("a.png", png(turned)), ("a.jpg", jpeg(turned))):
            path = tmp_path / name
            path.write_bytes(content)
            for size in ((24, 40), (40, 24), (80, 48)):
                try:
                    found = read_annotated(path, size).shape[1::-1] == size
                except ValueError:
                    found = False
                assert may_have_size(path, size) == found, (turned, name, size)
    path.write_bytes(
        content[:2] + b"\xff\xe2\xff\xff" + bytes(65_533) + content[2:]
    )  # a large colour profile
    assert may_have_size(path, (1, 1))


def test_pictures_of_data_sets_that_cannot_be_used(tmp_path: Path) -> None:
    whole = jpeg(1)
    broken = {
        "cut.jpg": (whole[: len(whole) * 2 // 3], "truncated"),
        "closed.jpg": (whole[: len(whole) * 2 // 3].rstrip(b"\xff") + b"\xff\xd9", "truncated"),
        "page.jpg": (b"<!DOCTYPE html><html></html>", "is a web page, maybe the error page of a download"),
        "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        "text.jpg": (b"\0\1\2 no picture", "cannot be decoded; JPEG, PNG and WebP files are read"),
        "empty.jpg": (b"", "cannot be decoded"),
    }
    for name, (content, reason) in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"^The picture .*{name} .*{reason}"):
            read_annotated(tmp_path / name)
        if name in ("page.jpg", "lfs.jpg"):
            with pytest.raises(ValueError, match=reason):
                read_picture(str(tmp_path / name))
    with pytest.raises(ValueError, match=r"none.jpg is missing or cannot be read \(No such file"):
        read_annotated(tmp_path / "none.jpg")
    (tmp_path / "a.bmp").write_bytes(cv2.imencode(".bmp", UPRIGHT[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(read_annotated(tmp_path / "a.bmp", (40, 24)), UPRIGHT)
