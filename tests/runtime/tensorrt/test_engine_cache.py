"""The engine cache: reuse, rebuilding and its reasons, and two processes that build the same engine."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groma_ros.runtime.tensorrt.engine_cache import EngineCache, Key, default_folder

KEY = Key(
    "perceive",
    "a" * 64,
    "10.3.0",
    "Orin (nvgpu)",
    "8.7",
    "fp16",
    {"pixels": ((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))},
)


class Builder:
    """Counts how often it builds, and keeps the timing cache it was given."""

    def __init__(self, engine: bytes = b"engine", timing: bytes = b"timing") -> None:
        self.engine, self.timing = engine, timing
        self.given: list[bytes] = []

    def __call__(self, timing: bytes) -> tuple[bytes, bytes]:
        self.given.append(timing)
        return self.engine, self.timing


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def test_an_engine_is_built_once(cache: EngineCache, tmp_path: Path) -> None:
    build = Builder()
    first, second = cache.get(KEY, build), EngineCache(tmp_path / "engines").get(KEY, build)
    assert (bytes(first.engine), first.reused, bytes(second.engine), second.reused) == (
        b"engine",
        False,
        b"engine",
        True,
    )
    assert build.given == [b""]
    assert first.path == second.path == cache.engine_path(KEY)
    names = sorted(path.name for path in cache.folder.iterdir())
    stem = f"perceive.trt10.3.0.Orin-nvgpu.sm87.fp16.{KEY.name[-12:]}"
    assert names == [
        f"{stem}.engine",
        f"{stem}.json",
        f"{stem}.lock",
        "timing.trt10.3.0.Orin-nvgpu.sm87.cache",
    ]
    note = json.loads((cache.folder / f"{stem}.json").read_text())
    assert note["key"]["gpu"] == "Orin (nvgpu)" and note["key"]["graph"] == "a" * 64 and note["bytes"] == 6


CHANGES: list[dict[str, Any]] = [
    {"role": "encode_regions"},
    {"graph": "b" * 64},
    {"tensorrt": "10.3.1"},
    {"gpu": "Thor"},
    {"capability": "8.6"},
    {"precision": "fp32"},
    {"profile": {"pixels": ((1, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))}},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_another_key_is_another_engine(
    cache: EngineCache, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where somebody gave the file of one the name of the other: it is built again, and said why."""
    other = dataclasses.replace(KEY, **change)
    cache.get(KEY, Builder(b"old"))
    assert other.name != KEY.name
    for ending in (".engine", ".json"):
        (cache.folder / (other.name + ending)).write_bytes((cache.folder / (KEY.name + ending)).read_bytes())
    with caplog.at_level(logging.INFO, "groma_ros"):
        built = cache.get(other, Builder(b"new"))
    assert (bytes(built.engine), built.reused) == (b"new", False)
    assert f"the one in {other.name}.engine was built for another {next(iter(change))}" in caplog.text
    assert cache.get(other, Builder()).reused and bytes(cache.get(KEY, Builder()).engine) == b"old"


def truncate(cache: EngineCache) -> None:
    cache.engine_path(KEY).write_bytes(b"eng")


def alter(cache: EngineCache) -> None:
    cache.engine_path(KEY).write_bytes(b"Engine")


def lose_the_note(cache: EngineCache) -> None:
    (cache.folder / f"{KEY.name}.json").unlink()


def damage_the_note(cache: EngineCache) -> None:
    (cache.folder / f"{KEY.name}.json").write_text('{"key": ')


def make_the_note_a_list(cache: EngineCache) -> None:
    (cache.folder / f"{KEY.name}.json").write_text("[]")


def lose_the_engine(cache: EngineCache) -> None:
    cache.engine_path(KEY).unlink()


def stop_while_writing(cache: EngineCache) -> None:
    cache.engine_path(KEY).rename(cache.engine_path(KEY).with_name(cache.engine_path(KEY).name + ".part"))


FAULTS = (
    (truncate, "is damaged"),
    (alter, "is damaged"),
    (lose_the_note, "there is none yet"),
    (damage_the_note, "json cannot be read"),
    (make_the_note_a_list, "was built for another form"),
    (lose_the_engine, "there is none yet"),
    (stop_while_writing, "there is none yet"),
)


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_half_an_engine_is_built_again(
    cache: EngineCache, fault: Callable[[EngineCache], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.get(KEY, Builder())
    fault(cache)
    with caplog.at_level(logging.INFO, "groma_ros"):
        assert not cache.get(KEY, Builder(b"new engine")).reused
    assert said in caplog.text
    again = cache.get(KEY, Builder())
    assert again.reused and bytes(again.engine) == b"new engine"
    assert not list(cache.folder.glob("*.part"))


def test_a_rebuild_that_was_asked_for(cache: EngineCache) -> None:
    cache.get(KEY, Builder())
    assert not cache.get(KEY, Builder(b"other"), force=True).reused
    assert bytes(cache.get(KEY, Builder()).engine) == b"other"


def test_the_timing_cache_goes_from_build_to_build(cache: EngineCache) -> None:
    """All engines of one machine share it; another machine has its own."""
    regions, elsewhere = dataclasses.replace(KEY, role="encode_regions"), dataclasses.replace(KEY, gpu="Thor")
    cache.get(KEY, Builder(timing=b"first"))
    build = Builder(timing=b"second")
    cache.get(regions, build)
    cache.get(elsewhere, build)
    assert build.given == [b"first", b""]
    assert cache.timing_path(KEY).read_bytes() == b"second"


def test_an_engine_of_no_use_is_forgotten(cache: EngineCache) -> None:
    cache.get(KEY, Builder())
    cache.drop(KEY)
    cache.drop(KEY)
    assert not cache.get(KEY, Builder()).reused


def test_a_build_that_fails_leaves_nothing(cache: EngineCache) -> None:
    def fail(timing: bytes) -> tuple[bytes, bytes]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get(KEY, fail)
    assert [path.suffix for path in cache.folder.iterdir()] == [".lock"]
    assert not cache.get(KEY, Builder()).reused


def test_a_full_disk(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    """The engine that was built runs all the same; nothing half-written stays, and the next time it is built
    again."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        built = cache.get(KEY, Builder(b"x" * 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(built.engine) == 100_000 and built.path is None
    assert (
        "The engine was built but not kept, so it is built again next time" in caplog.text
        and "could not be written" in caplog.text
    )
    assert [path.suffix for path in cache.folder.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    built = EngineCache(tmp_path / "file" / "engines").get(KEY, Builder())
    assert bytes(built.engine) == b"engine" and built.path is None
    assert "built but not kept" in caplog.text


def test_where_engines_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "groma_ros" / "engines"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_folder() == tmp_path / "home" / ".cache" / "groma_ros" / "engines"


def _build_slowly(folder: Path, started: Any, results: Any, seconds: float) -> None:
    """In a process of its own: say when the build begins, and put what came of it."""

    def build(timing: bytes) -> tuple[bytes, bytes]:
        started.set()
        time.sleep(seconds)
        return f"built by {os.getpid()}".encode(), b""

    built = EngineCache(folder).get(KEY, build)
    results.put((os.getpid(), bytes(built.engine).decode(), built.reused))


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started, results = context.Event(), context.Queue()
    processes = [
        context.Process(target=_build_slowly, args=(tmp_path, started, results, 0.5)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = sorted((results.get(timeout=30) for _ in processes), key=lambda item: item[2])
    for process in processes:
        process.join(10)
    (builder, engine, reused), (_, other, waited) = found
    assert engine == other == f"built by {builder}" and not reused and waited


def test_a_builder_that_was_killed_leaves_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started, results = context.Event(), context.Queue()
    process = context.Process(target=_build_slowly, args=(tmp_path, started, results, 60))
    process.start()
    assert started.wait(30)
    process.kill()
    process.join(10)
    assert bytes(EngineCache(tmp_path).get(KEY, Builder()).engine) == b"engine"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_files_are_for_their_owner_alone(cache: EngineCache) -> None:
    old = os.umask(0)
    try:
        cache.get(KEY, Builder())
    finally:
        os.umask(old)
    assert mode(cache.folder) == 0o700
    assert {mode(path) for path in cache.folder.iterdir()} == {0o600}
    assert not list(cache.folder.glob("*.part"))


@pytest.mark.parametrize("suffix", ["engine", "json"])
@pytest.mark.parametrize("change", ["group", "others", "link"])
def test_an_engine_that_others_could_have_written_is_built_again(
    cache: EngineCache, suffix: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cache.get(KEY, Builder())
    path = cache.folder / f"{KEY.name}.{suffix}"
    if change == "link":
        elsewhere = cache.folder.parent / "elsewhere"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    else:
        path.chmod(0o620 if change == "group" else 0o602)
    assert not cache.get(KEY, Builder()).reused
    assert ("is a link" if change == "link" else "others than its owner may write to") in caplog.text
    assert cache.get(KEY, Builder()).reused and not path.is_symlink() and mode(path) == 0o600


def test_an_engine_of_another_user_is_built_again(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cache.get(KEY, Builder())
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(cache.engine_path(KEY), 12345, -1)
    assert not cache.get(KEY, Builder()).reused and "belongs to another user (id 12345)" in caplog.text


def test_nothing_is_kept_in_a_folder_that_others_may_write_to(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o777)
    built = cache.get(KEY, Builder())
    assert built.path is None and "others than its owner may write to" in caplog.text
    assert not cache.engine_path(KEY).exists()
