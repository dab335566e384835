"""Download a checkpoint or a bundle from the Hugging Face Hub: one commit, verified, resumable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groma_ros.atomic_write import replacing, take_over
from groma_ros.file_checks import check_disk, refuse_pointer
from groma_ros.json_files import load_object
from groma_ros.network_config import check_family
from groma_ros.runtime.model_paths import CHECKPOINTS, MANIFEST, PUBLISHED, models_folder

try:
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars
except ImportError as error:
    raise ValueError(
        "Downloading needs the Python package huggingface_hub; install it with python -m pip install "
        "huggingface_hub."
    ) from error

RECORD = "fetched.json"
"""File in a downloaded folder that records its origin."""
WANTED = ("config.json", "tokenizer.model", MANIFEST)
BESIDE = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "README.md",
)
KNOWN_COMMITS = {
    "FoundationVision/groma-7b-finetune": "a98d0e2",
    "FoundationVision/groma-7b-pretrain": "e407d25",
}
"""First digits of the commits of the published checkpoints whose files this project knows."""
NEVER = ("training_args.bin", "trainer_state.json", "optimizer.pt", "scheduler.pt")
"""Left-overs of training: pickles of classes, and states that no network reads."""
BUNDLE_ENDINGS = (".onnx", ".gguf", ".npy")
SPARE = 64 << 20
PUBLISHED_LICENCE = (
    "Groma's code is under Apache-2.0. Its published weights are derived from Vicuna-7B v1.5 and so fall "
    "under the terms of Llama 2; their card on the Hub names no licence."
)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    """For files in large file storage; "" for small ones."""
    blob: str
    """Git's hash of a small file; "" if the server lists none."""


@dataclass(frozen=True)
class Source:
    """A commit of a repository, and the files of it to download."""

    repository: str
    """owner/name on the Hub."""
    commit: str
    """The full hash."""
    licence: str
    """As named by the repository's card; "" if it names none."""
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def is_bundle(self) -> bool:
        """Whether it is a bundle, which runs as it is, rather than a checkpoint."""
        return any(file.name == MANIFEST for file in self.files)


def folder_name(name: str) -> str:
    """Name under which a download is stored: the short name, or the repository's without its owner."""
    return name.rsplit("/", 1)[-1]


def target_folder(name: str, source: Source) -> Path:
    """Folder of a finished download: beside other bundles, or among the checkpoints."""
    base = models_folder() if source.is_bundle else models_folder() / CHECKPOINTS
    return base / folder_name(name)


def partial_folder(name: str) -> Path:
    """Folder of an unfinished download."""
    return models_folder() / CHECKPOINTS / f".{folder_name(name)}.partial"


def find_source(name: str, revision: str | None = None) -> Source:
    """Find the source of a short name of `PUBLISHED` or an owner/name.

    revision: a branch, a tag or a full commit hash; None for the commit of an unfinished download, else the
    known one of a published checkpoint, else the newest. Raises ValueError for a repository, revision or
    content that cannot be used, and if the Hub cannot be reached.
    """
    repository = PUBLISHED.get(name, name)
    if repository.count("/") != 1:
        raise ValueError(
            f"{name!r} is no model to fetch; name one of {', '.join(PUBLISHED)}, a repository as "
            "owner/name, or a local folder."
        )
    started = _record(partial_folder(name))
    if revision is None and started.get("repository") == repository:
        revision = str(started.get("commit"))
    with _sentences(repository, revision):
        revision = revision or _known_commit(repository)
        info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    listed = {item.rfilename: item for item in info.siblings or ()}
    chosen = choose_files(repository, sorted(listed))
    files = tuple(_remote_file(listed[name]) for name in chosen)
    licence = getattr(info.card_data, "license", None) or ""
    return Source(repository, str(info.sha), str(licence), files)


def _known_commit(repository: str) -> str | None:
    """Full hash of the commit of `KNOWN_COMMITS`, which the Hub does not take abbreviated; None if the
    repository's history does not list it (any more), as on a mirror without history."""
    known = KNOWN_COMMITS.get(repository)
    if known is None:
        return None
    try:
        history = huggingface_hub.HfApi().list_repo_commits(repository)
    except errors.RepositoryNotFoundError:
        raise
    except errors.HfHubHTTPError:
        return None
    return next((item.commit_id for item in history if item.commit_id.startswith(known)), None)


def _remote_file(item: huggingface_hub.hf_api.RepoSibling) -> RemoteFile:
    """A file as listed by the Hub."""
    sha256 = item.lfs.sha256 if item.lfs else ""
    return RemoteFile(item.rfilename, item.size or 0, sha256, "" if sha256 else item.blob_id or "")


def choose_files(repository: str, names: Sequence[str]) -> list[str]:
    """Select the files of a checkpoint or a bundle; safetensors are preferred to pickles.

    Raises ValueError if the repository is neither.
    """
    top = [name for name in names if "/" not in name and name not in NEVER]
    if MANIFEST in top:
        return [
            name
            for name in top
            if name in (*WANTED, *BESIDE) or name.endswith((*BUNDLE_ENDINGS, ".safetensors"))
        ]
    for ending in (".safetensors", ".bin"):
        weights = [name for name in top if name.endswith((ending, f"{ending}.index.json"))]
        if weights and "config.json" in top:
            return [name for name in top if name in (*WANTED, *BESIDE, *weights)]
    lacks = "config.json" if "config.json" not in top else "weights (.bin or .safetensors)"
    raise ValueError(f"The repository {repository} holds no checkpoint of Groma: it has no {lacks}.")


def fetch(name: str, source: Source) -> Path:
    """Download a source and verify every file. Returns the folder of the download.

    An interrupted download, also by Ctrl-C, leaves its finished part in `partial_folder`, and the next call
    continues it. The folder appears only when everything is complete and verified. Raises ValueError or
    OSError if the disk is too small, the connection breaks, or a file does not match its checksum.
    """
    target, partial = target_folder(name, source), partial_folder(name)
    if _record(target).get("commit") == source.commit and not missing_files(target, source):
        return target
    if target.exists():
        raise ValueError(
            f"{target} is there already and is not {source.repository} at {source.commit[:12]}; delete it "
            "first, or name its commit with --revision."
        )
    have = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    check_disk(partial, source.size - have + SPARE, f"{source.repository} ({source.size / 1e9:.2f} GB)")
    _start(partial, source)
    if not os.isatty(2):
        disable_progress_bars()
    if not source.is_bundle:
        _download(source, partial, ["config.json"])
        _check(partial, next(file for file in source.files if file.name == "config.json"))
        check_family(load_object(partial / "config.json"), partial / "config.json", whole=False)
    small = [file.name for file in source.files if not file.sha256]
    _download(source, partial, small)
    for file in source.files:
        if file.sha256:
            _download_large(source, partial, file)
    for file in source.files:
        _check(partial, file)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    take_over(partial, target)
    return target


def _download(source: Source, partial: Path, names: Sequence[str]) -> None:
    """Download files of a source into a folder with the Hub's client, or continue a download."""
    with _sentences(source.repository, source.commit, partial):
        huggingface_hub.snapshot_download(
            source.repository,
            revision=source.commit,
            local_dir=partial,
            allow_patterns=list(names),
            max_workers=4,
        )


def _download_large(source: Source, partial: Path, file: RemoteFile) -> None:
    """Download a large file, resuming the last attempt: recent clients restart their own downloads in each
    process."""
    place, part = partial / file.name, partial / f"{file.name}.incomplete"
    if place.is_file() and place.stat().st_size == file.size:
        return
    if part.is_file() and part.stat().st_size > file.size:
        part.unlink()
    url = huggingface_hub.hf_hub_url(source.repository, file.name, revision=source.commit)
    with _sentences(source.repository, source.commit, partial), part.open("ab") as stream:
        http_get(
            url,
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.name,
        )
    take_over(part, place)


def missing_files(folder: Path, source: Source) -> list[str]:
    """The files of a source that a folder lacks, or has in another size."""
    return [
        file.name
        for file in source.files
        if not (folder / file.name).is_file() or (folder / file.name).stat().st_size != file.size
    ]


def _record(folder: Path) -> dict[str, Any]:
    """Read the `RECORD` of a folder; empty if there is none or it cannot be read."""
    try:
        return load_object(folder / RECORD)
    except (OSError, ValueError):
        return {}


def _start(partial: Path, source: Source) -> None:
    """Create the folder of a download and its record. Files of another commit in it are deleted."""
    if partial.exists() and _record(partial).get("commit") != source.commit:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    published = source.repository in PUBLISHED.values()
    record = {
        "repository": source.repository,
        "commit": source.commit,
        "licence": source.licence or (PUBLISHED_LICENCE if published else ""),
        "files": [asdict(file) for file in source.files],
    }
    with replacing(partial / RECORD) as stream:
        stream.write(json.dumps(record, indent=1).encode() + b"\n")


def _check(folder: Path, file: RemoteFile) -> None:
    """Raise ValueError if a file does not match the repository's listing; it is deleted, so that it is
    downloaded again."""
    path = folder / file.name
    refuse_pointer(path)
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    wanted = file.sha256 or file.blob
    if wanted and digest.hexdigest() != wanted:
        path.unlink()
        raise ValueError(
            f"{file.name} was damaged on its way: its checksum is not the one that the repository lists; "
            "it was deleted, run the same command again to fetch it anew."
        )


@contextmanager
def _sentences(repository: str, revision: str | None, partial: Path | None = None) -> Iterator[None]:
    """Convert errors of the Hub's client to one sentence. partial: where an interrupted download is
    stored."""
    again = "run the same command again to go on from where it stopped" if partial else "try again later"
    where = huggingface_hub.constants.ENDPOINT
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"The repository {repository} has no revision {revision} (any more); name another with "
            "--revision, such as main for the newest."
        ) from error
    except errors.GatedRepoError as error:
        raise ValueError(
            f"The repository {repository} is gated: ask for access on its page at {where}, then set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"The repository {repository} does not exist at {where} or is private; check its name, or set "
            "HF_TOKEN to a token that may read it."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ValueError(
            f"HF_HUB_OFFLINE is set, so {repository} cannot be fetched; unset it, or copy the model folder "
            "from another machine."
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(
            f"{repository!r} is no name of a repository: {str(error).splitlines()[0]}"
        ) from error
    except (ValueError, KeyboardInterrupt):
        raise
    except Exception as error:  # the client's HTTP library depends on its version
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            reason = f"{error.filename}: {error.strerror}"
        elif isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno) if error.errno > 0 else str(error)
        else:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(
            f"{repository} could not be fetched from {where}: {reason.rstrip('.')}; {again}."
        ) from error
