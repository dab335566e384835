"""`groma fetch` with the real client of the Hugging Face Hub, against a local server of the same protocol."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from groma_ros.model.weights import Weights
from tests.published import SMALL, make_checkpoint
from tests.runtime.hub_server import COMMIT, Repository, serve

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "FoundationVision/groma-7b-finetune"
WEIGHTS = "pytorch_model.bin"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small checkpoint in the published layout, with left-overs of its training."""
    folder = tmp_path_factory.mktemp("published") / "checkpoint"
    make_checkpoint(SMALL, folder, torch.bfloat16, single=True, extra=200_000)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("added_tokens.json", "special_tokens_map.json", "preprocessor_config.json", "README.md"):
        found[name] = b"{}"
    return found | {"training_args.bin": b"a pickle of classes", "trainer_state.json": b"{}"}


@pytest.fixture
def repository(files: dict[str, bytes]) -> Repository:
    return Repository(REPOSITORY, dict(files))


@pytest.fixture
def endpoint(repository: Repository) -> Iterator[str]:
    with serve(repository) as address:
        yield address


def fetch(
    folder: Path, endpoint: str, *options: str, file_limit: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {
        **kept,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"),
        "GROMA_MODELS": str(folder / "models"),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "groma_ros.cli", "fetch", *options],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        preexec_fn=limit,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The last line on standard error of a failed command, which is its sentence."""
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_the_published_layout_arrives_whole_and_is_checked(
    tmp_path: Path, endpoint: str, repository: Repository
) -> None:
    refused = fetch(tmp_path, endpoint, "groma-7b")
    assert said(refused) == "groma: Nobody is there to accept the terms; run it on a terminal, or add --yes."
    assert "derived from Vicuna-7B v1.5" in refused.stderr and "terms of Llama 2" in refused.stderr
    assert "This is not commit a98d0e2, the one whose config and files" in refused.stderr
    assert repository.requests == [] and not (tmp_path / "models").exists()

    done = fetch(tmp_path, endpoint, "groma-7b", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "checkpoints" / "groma-7b"
    report = json.loads(done.stdout)
    assert report["folder"] == str(folder) and report["commit"] == COMMIT and report["runs"] is False
    left_out = {"training_args.bin", "trainer_state.json"}
    assert {path.name for path in folder.iterdir()} == {*repository.files, "fetched.json"} - left_out
    assert not left_out & {file for _, file, _ in repository.requests}
    assert all(
        (folder / name).read_bytes() == repository.files[name] for name in set(repository.files) - left_out
    )
    record = json.loads((folder / "fetched.json").read_text())
    assert (
        record["repository"] == REPOSITORY and record["commit"] == COMMIT and "Llama 2" in record["licence"]
    )
    assert len(Weights(SMALL, folder)) > 100

    before = len(repository.requests)
    again = fetch(tmp_path, endpoint, "groma-7b", "--yes")
    assert again.returncode == 0 and len(repository.requests) == before
    assert "next: groma convert groma-7b" in again.stdout


def test_the_known_commit_of_a_published_checkpoint_is_fetched(
    tmp_path: Path, endpoint: str, repository: Repository
) -> None:
    known = "a98d0e2" + "0" * 33
    repository.earlier = ("b" * 40, known, "c" * 40)
    done = fetch(tmp_path, endpoint, "groma-7b", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commit"] == known and "This is not commit" not in done.stderr
    newest = fetch(tmp_path, endpoint, "groma-7b", "--yes", "--json", "--revision", "main")
    assert f"is not {REPOSITORY} at {COMMIT[:12]}; delete it first" in said(newest)

    repository.history = False
    other = tmp_path / "without_history"
    done = fetch(other, endpoint, "groma-7b", "--yes", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["commit"] == COMMIT, done.stderr
    assert "This is not commit a98d0e2" in done.stderr


def test_interrupted_download_resumes(tmp_path: Path, endpoint: str, repository: Repository) -> None:
    # The client passes on data in chunks of 10 MiB.
    assert len(repository.files[WEIGHTS]) > 12_000_000
    repository.break_after[WEIGHTS] = [12_000_000, *[0] * 50]
    message = said(fetch(tmp_path, endpoint, REPOSITORY, "--yes"))
    assert f"{REPOSITORY} could not be fetched from {endpoint}: " in message
    assert message.endswith("run the same command again to go on from where it stopped.")
    assert not (tmp_path / "models" / "checkpoints" / "groma-7b-finetune").exists()

    repository.break_after.clear()
    repository.requests.clear()
    done = fetch(tmp_path, endpoint, REPOSITORY, "--yes")
    assert done.returncode == 0, done.stderr
    assert [span for kind, file, span in repository.requests if kind == "GET" and file == WEIGHTS] == [
        f"bytes={10 << 20}-"
    ]
    folder = tmp_path / "models" / "checkpoints" / "groma-7b-finetune"
    assert (folder / WEIGHTS).read_bytes() == repository.files[WEIGHTS]
    assert not list((tmp_path / "models" / "checkpoints").glob(".*"))


def test_a_file_of_another_checksum_is_deleted_and_fetched_anew(
    tmp_path: Path, endpoint: str, repository: Repository
) -> None:
    for name in ("config.json", WEIGHTS):
        repository.altered = {name}
        assert said(fetch(tmp_path, endpoint, "groma-7b", "--yes")) == (
            f"groma: {name} was damaged on its way: its checksum is not the one that the repository lists; "
            "it was deleted, run the same command again to fetch it anew."
        )
    assert not (tmp_path / "models" / "checkpoints" / "groma-7b").exists()
    repository.altered = set()
    assert fetch(tmp_path, endpoint, "groma-7b", "--yes").returncode == 0
    folder = tmp_path / "models" / "checkpoints" / "groma-7b"
    assert (folder / WEIGHTS).read_bytes() == repository.files[WEIGHTS]


def test_a_disk_that_is_too_small(tmp_path: Path, endpoint: str, repository: Repository) -> None:
    message = said(fetch(tmp_path, endpoint, "groma-7b", "--yes", file_limit=1_000_000))
    assert f"{REPOSITORY} could not be fetched from {endpoint}: " in message and "File too large" in message
    assert not (tmp_path / "models" / "checkpoints" / "groma-7b").exists()
    repository.listed_sizes[WEIGHTS] = 10**15
    message = said(fetch(tmp_path / "other", endpoint, "groma-7b", "--yes"))
    assert f"{REPOSITORY} (1000000." in message and "GB) needs 1000000." in message
    assert message.endswith("GB are free; free some, or name a folder on another disk.")
    assert not (tmp_path / "other" / "models" / "checkpoints").exists()


def test_a_revision_that_is_gone(tmp_path: Path, endpoint: str, repository: Repository) -> None:
    repository.break_after[WEIGHTS] = [1_000_000, *[0] * 50]
    fetch(tmp_path, endpoint, "groma-7b", "--yes")
    repository.break_after.clear()
    repository.gone = True
    assert said(fetch(tmp_path, endpoint, "groma-7b", "--yes")) == (
        f"groma: The repository {REPOSITORY} has no revision {COMMIT} (any more); name another with "
        "--revision, such as main for the newest."
    )
    repository.gone, repository.commit = False, COMMIT[::-1]
    done = fetch(tmp_path, endpoint, "groma-7b", "--yes", "--revision", "main", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["commit"] == COMMIT[::-1], done.stderr


def test_places_that_cannot_be_reached(tmp_path: Path, endpoint: str, repository: Repository) -> None:
    assert said(fetch(tmp_path, endpoint, "groma-7b", "--yes", HF_HUB_OFFLINE="1")) == (
        f"groma: HF_HUB_OFFLINE is set, so {REPOSITORY} cannot be fetched; unset it, or copy the model "
        "folder from another machine."
    )
    message = said(fetch(tmp_path, "http://127.0.0.1:9", "groma-7b", "--yes"))
    assert f"{REPOSITORY} could not be fetched from http://127.0.0.1:9: " in message
    assert message.endswith("; try again later.")
    assert "does not exist at http" in said(fetch(tmp_path, endpoint, "someone/else", "--yes"))
    repository.private = True
    assert "is private; check its name, or set HF_TOKEN" in said(
        fetch(tmp_path, endpoint, "groma-7b", "--yes")
    )
    assert "'groma-8b' is no model to fetch; name one of groma-7b," in said(
        fetch(tmp_path, endpoint, "groma-8b")
    )
    assert not (tmp_path / "models").exists()


def test_repositories_of_something_else(tmp_path: Path, endpoint: str, repository: Repository) -> None:
    true = dict(repository.files)
    repository.files["config.json"] = b'{"model_type": "llava"}'
    message = said(fetch(tmp_path, endpoint, "groma-7b", "--yes"))
    assert message.endswith("config.json describes a model of the family 'llava' and not Groma.")
    assert {file for _, file, _ in repository.requests} == {"config.json"}  # nothing large was downloaded
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n"
    repository.files, repository.commit = {**true, "tokenizer.model": pointer}, COMMIT[::-1]
    message = said(fetch(tmp_path, endpoint, "groma-7b", "--yes", "--revision", "main"))
    assert "tokenizer.model is a Git LFS pointer and not the file itself" in message
    repository.files = {"README.md": b"a data set", "config.json": b"{}"}
    assert said(fetch(tmp_path, endpoint, "groma-7b", "--yes", "--revision", "main")) == (
        f"groma: The repository {REPOSITORY} holds no checkpoint of Groma: it has no weights (.bin or "
        ".safetensors)."
    )
    assert not (tmp_path / "models" / "checkpoints" / "groma-7b").exists()


def test_a_local_folder_gets_a_name(tmp_path: Path) -> None:
    done = fetch(tmp_path, "http://127.0.0.1:9", str(ROOT / "engines" / "groma-tiny"), "--json")
    assert done.returncode == 0, done.stderr
    place = tmp_path / "models" / "groma-tiny"
    assert json.loads(done.stdout) == {"name": "groma-tiny", "folder": str(place), "runs": True}
    assert place.resolve() == ROOT / "engines" / "groma-tiny"
    other = tmp_path / "elsewhere" / "groma-tiny"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text("{}")
    message = said(fetch(tmp_path, "http://127.0.0.1:9", str(other)))
    assert "A model named groma-tiny is there already: " in message
