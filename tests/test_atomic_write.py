"""Files are written completely or not at all, also on a full disk."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from groma_ros.atomic_write import (
    PART,
    AtomicFile,
    asking_disk,
    naming_file,
    replacing,
    sweep,
    take_over,
    write_file,
    write_together,
)
from groma_ros.folder_lock import folder_lock


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file of this process may pass so many bytes; the kernel refuses the write, as it does on a full
    disk."""
    limit = 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with replacing(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]


def test_contents_are_on_disk_before_the_rename_that_makes_them_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, int] = {}
    renamed: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        files = [path for path in (source, *source.rglob("*")) if path.is_file()]
        assert files
        for path in files:
            assert synced.get(path.stat().st_ino) == path.stat().st_size, f"{path} was not synced"
        renamed.append(target.name)
        replace(source, target)

    finished, folder = tmp_path / "finished", tmp_path / "folder.made"
    (folder / "deep").mkdir(parents=True)
    for path in (finished, folder / "one", folder / "deep" / "two"):
        path.write_bytes(b"content")
    (tmp_path / "ready").write_bytes(b"content")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write_file(tmp_path / "a", b"content")
    write_together({tmp_path / "b": b"content", tmp_path / "c": tmp_path / "ready"})
    take_over(finished, tmp_path / "d")
    take_over(folder, tmp_path / "e")
    assert renamed == ["a", "b", "c", "d", "e"]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        *"abcd",
        "e/deep/two",
        "e/one",
    ]
    assert synced[tmp_path.stat().st_ino] and synced[(tmp_path / "e" / "deep").stat().st_ino]


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    """Of this package alone: other programs have files that end in .part too."""
    (tmp_path / "bag" / "deep").mkdir(parents=True)
    kept = ["film.part", f"{PART}.txt", "bag/run.json", f"bag/deep/a{PART}"]
    for name in (*kept, f"a{PART}", f"bag/run.json{PART}"):
        (tmp_path / name).write_text("")
    (tmp_path / f"folder{PART}").mkdir()
    sweep(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == set(kept) and (tmp_path / f"folder{PART}").is_dir()


def test_a_folder_that_another_process_has_locked_is_not_swept(tmp_path: Path) -> None:
    inner = tmp_path / "a"
    with folder_lock(inner), replacing(inner / "run.json") as stream:
        stream.write(b"new")
        with folder_lock(tmp_path):
            pass
    assert (inner / "run.json").read_bytes() == b"new"


def test_a_write_the_disk_refuses_changes_nothing(tmp_path: Path, small_disk: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with (
        pytest.raises(OSError, match=r"^.*/a could not be written: the file passes the size limit"),
        replacing(path) as stream,
    ):
        stream.write(bytes(small_disk + 1))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_files_that_belong_together_change_together(tmp_path: Path, small_disk: int) -> None:
    first, second, ready = tmp_path / "first", tmp_path / "second", tmp_path / "ready.tmp"
    ready.write_bytes(b"ready")
    write_together({first: b"one", second: ready})
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"ready") and len(os.listdir(tmp_path)) == 2
    with pytest.raises(OSError, match=r"/second could not be written: the file passes the size limit"):
        write_together({first: b"two", second: bytes(small_disk + 1)})
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"ready") and len(os.listdir(tmp_path)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is not there")
def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.with_name(f"a{PART}").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"a could not be written: the disk is full; free some space"),
        replacing(path) as stream,
    ):
        stream.write(bytes(100_000))
    assert os.listdir(tmp_path) == [] and Path("/dev/full").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=f"could not be written: {os.strerror(errno.ENOENT).lower()}"),
        replacing(tmp_path / "no" / "a"),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is not there")
def test_write_error_without_errno_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.symlink_to("/dev/full")
    said = r"^.*/a could not be written: the disk is full; free some space and run it again\.$"
    with pytest.raises(OSError, match=said), asking_disk(path), path.open("wb") as stream:
        np.zeros(100_000).tofile(stream)


def test_the_last_byte_that_does_not_fit(tmp_path: Path, small_disk: int) -> None:
    path = tmp_path / "a.npy"
    values = np.arange(small_disk - 127, dtype=np.uint8)  # behind a header of 128
    with (
        pytest.raises(OSError, match=r"a\.npy could not be written"),
        naming_file(path),
        path.open("wb") as stream,
    ):
        np.save(stream, values.view(AtomicFile))
    with path.open("wb") as stream:
        np.save(stream, values[1:].view(AtomicFile))
    assert np.array_equal(np.load(path), values[1:])


def test_other_errors_are_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"some")
    with pytest.raises(RuntimeError, match="^no$"), asking_disk(path):
        raise RuntimeError("no")
    assert path.read_bytes() == b"some"
