"""Bundles that never end, take too much memory or end their process do so in a process of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime import first_load
from groma_ros.runtime.bundle import Bundle, BundleError
from groma_ros.runtime.first_load import ensure_tried
from groma_ros.runtime.options import RuntimeOptions
from tests.runtime.endless import endless

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
ONNX = RuntimeOptions(backend="onnx", device="cpu", threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that ships, in another folder, so that it is one of unknown origin."""
    return Path(shutil.copytree(TINY, tmp_path_factory.mktemp("models") / "copy"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "groma_ros" / "tried"


def test_a_graph_that_does_not_end_is_given_up(tmp_path: Path, model: Path, cache: Path) -> None:
    bundle = endless(tmp_path / "endless", model)
    begin = time.monotonic()
    with pytest.raises(BundleError, match=r"endless was not loaded: a trial .* did not finish within 10 s"):
        ensure_tried(bundle, ONNX, seconds=10)
    assert 10 <= time.monotonic() - begin < 40
    assert not cache.exists() or not list(cache.iterdir())


def test_a_graph_that_takes_more_memory_than_allowed_is_refused(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = endless(tmp_path / "large", model, side=60_000, count=1)  # 14.4 GB a matrix
    monkeypatch.setattr(first_load, "MEMORY", 1 << 30)
    with pytest.raises(BundleError, match="cannot be run on a plain picture: .*allocate memory"):
        ensure_tried(bundle, ONNX, seconds=100)


def test_a_good_bundle_is_tried_once(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_tried(Bundle.load(model), ONNX)
    (mark,) = cache.iterdir()
    assert mark.stat().st_mode & 0o777 == 0o600 and cache.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(subprocess, "run", _refuse)
    ensure_tried(Bundle.load(model), ONNX)
    with pytest.raises(AssertionError, match="a process was started"):  # another backend is another trial
        ensure_tried(Bundle.load(model), RuntimeOptions(backend="onnx", precision="fp32"))


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a process was started")


def test_a_lower_limit_of_this_process_stays(model: Path) -> None:
    limit = 4 << 30
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))\n"
        "from groma_ros.runtime import first_load, options\n"
        "from groma_ros.runtime.bundle import Bundle\n"
        f"first_load.MEMORY = {limit} * 4\n"
        "onnx = options.RuntimeOptions(backend='onnx', device='cpu')\n"
        f"first_load.ensure_tried(Bundle.load({str(model)!r}), onnx)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_model_that_ships_and_torch_are_not_tried(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", _refuse)
    ensure_tried(Bundle.load(TINY), ONNX)
    ensure_tried(Bundle.load(small_model), RuntimeOptions(backend="torch"))


def test_beside_tensorrt_every_graph_is_tried(tmp_path: Path, model: Path, cache: Path) -> None:
    """Without a GPU: the vision graphs by ONNX Runtime on the CPU, and the language model."""
    tensorrt = RuntimeOptions(backend="tensorrt", threads=1)
    ensure_tried(Bundle.load(model), tensorrt)
    assert len(list(cache.iterdir())) == 1
    with pytest.raises(BundleError, match="did not finish within 10 s"):
        ensure_tried(endless(tmp_path / "endless", model), tensorrt, seconds=10)
    with pytest.raises(BundleError, match="did not finish within 10 s"):
        ensure_tried(endless(tmp_path / "words", model, role="language"), tensorrt, seconds=10)


def test_a_damaged_gguf_beside_tensorrt_is_refused_in_the_trial(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("llama_cpp")
    bundle = Bundle.load(shutil.copytree(model, tmp_path / "copy"))
    graphs = bundle.graphs["precisions"]
    parts = {"language": b"GGUF" + bytes(range(256)) * 40}
    bundle.with_graphs("q8_0", parts, {"language": 0.0})
    assert "q8_0" not in graphs
    with pytest.raises(BundleError, match="copy"):
        ensure_tried(Bundle.load(bundle.directory), RuntimeOptions(backend="tensorrt", precision="q8_0"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", "the process that tried it was ended by SIGABRT, it is damaged"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL, maybe it takes more memory than there is"),
        ("import sys; sys.exit('no {{}} luck')", r"ended with status 1 \(no \{\} luck\)"),
    ],
)
def test_a_process_that_dies_is_a_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(first_load, "_CODE", code)
    with pytest.raises(BundleError, match=said):
        ensure_tried(Bundle.load(model), ONNX)


def test_what_the_trial_refuses_is_raised_as_its_kind(model: Path) -> None:
    with pytest.raises(ValueError, match="There is no precision 'fp7'") as refused:
        ensure_tried(Bundle.load(model), RuntimeOptions(backend="onnx", precision="fp7"))
    assert not isinstance(refused.value, BundleError)
    with pytest.raises(BundleError, match="has no perceive graph in int4"):
        Grounder.load(model, backend="onnx", precision="int4")


def test_where_nothing_can_be_stored_it_is_tried_each_time(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    ensure_tried(Bundle.load(model), ONNX)
    assert "cannot be stored, so it is tried again next time" in caplog.text
