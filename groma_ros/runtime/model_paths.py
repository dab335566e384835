"""Folders of models on this machine, and the folder that a model's name refers to."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from groma_ros.io.message_definitions import share

DEFAULT_MODEL = "groma-tiny"
MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"
"""Subfolder of the models folder for downloaded checkpoints, the input of `groma convert`."""
PUBLISHED = {
    "groma-7b": "FoundationVision/groma-7b-finetune",
    "groma-7b-pretrain": "FoundationVision/groma-7b-pretrain",
    "groma-det": "FoundationVision/groma-det-pretrain",
}
"""Short names of the published checkpoints, and their repositories on the Hugging Face Hub."""
PACKAGE = Path(__file__).resolve().parents[1]


def models_folder() -> Path:
    """The models folder of this machine: $GROMA_MODELS, else groma_ros/models in the XDG data folder.

    It need not exist. Raises ValueError if neither variable is set and there is no home folder.
    """
    named = os.environ.get("GROMA_MODELS", "")
    if named:
        return Path(named).expanduser().absolute()
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        base = data if data.is_absolute() else Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise ValueError(
            "There is no home folder to keep models in; set GROMA_MODELS to a folder."
        ) from error
    return base / "groma_ros" / "models"


def cache_folder() -> Path:
    """The cache folder: groma_ros in $XDG_CACHE_HOME, or in ~/.cache if the variable is not set to an
    absolute path.

    It need not exist. Raises ValueError if there is no home folder either.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise ValueError(
            "There is no home folder to keep a cache in; set XDG_CACHE_HOME to a folder."
        ) from error
    return base / "groma_ros"


def shipped_folders() -> list[Path]:
    """Folders of the shipped models: in a checkout, a wheel, a ROS workspace."""
    folders = [PACKAGE.parent / "engines", PACKAGE / "shipped" / "engines"]
    with contextlib.suppress(ValueError):
        folders.append(share("groma_ros") / "engines")
    return [folder for folder in folders if folder.is_dir()]


def shipped_model() -> Path:
    """The folder of groma-tiny, which is shipped with the package. Raises ValueError if it is not found."""
    for folder in shipped_folders():
        if (folder / DEFAULT_MODEL).is_dir():
            return folder / DEFAULT_MODEL
    raise ValueError("The model groma-tiny was not found where the package is; name the folder of a model.")


def find_model(name_or_folder: str | Path = "") -> Path:
    """Find the folder of a model bundle.

    An empty text is the shipped model, groma-tiny. A text with a slash, or starting with a dot or ~, is a
    folder; anything else is a name, looked up in `models_folder()`, then beside the package, then in the
    working folder. Only the location is resolved here; `Bundle.load` checks the content. Raises ValueError
    for a folder that does not exist, and for a name that is unknown, that means two different models, or that
    means a checkpoint which has not been converted yet.
    """
    text = str(name_or_folder)
    if not text:
        return shipped_model()
    return _named(text) if is_name(text) else _existing(Path(text).expanduser())


def is_name(text: str) -> bool:
    """Whether a text can be the name of a model rather than a path."""
    return bool(text) and os.sep not in text and not text.startswith((".", "~"))


def find_checkpoint(name: str) -> Path | None:
    """The folder of a downloaded checkpoint by its name; None if there is none."""
    folder = models_folder() / CHECKPOINTS / name
    return folder if is_name(name) and (folder / "config.json").is_file() else None


def known_models() -> Iterator[Path]:
    """The bundles that `find_model` finds by name, except those in the working folder."""
    try:
        folders = [models_folder(), *shipped_folders()]
    except ValueError:
        folders = shipped_folders()
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"The model folder {folder} {what}; name a folder that holds a {MANIFEST}.")
    return folder


def _named(name: str) -> Path:
    """Find a bundle by name. Raises ValueError as `find_model`."""
    here = Path(name)
    places = [path for path in known_models() if path.name == name]
    places += [here] if (here / MANIFEST).is_file() else []
    found: dict[bytes, Path] = {}
    for place in places:
        found.setdefault((place / MANIFEST).read_bytes(), place)
    if len(found) > 1:
        listed = " and ".join(str(place) for place in found.values())
        raise ValueError(
            f"The name {name} stands for two different models, {listed}; name one by its folder."
        )
    if found:
        return next(iter(found.values()))
    if here.is_dir():
        return here  # Bundle.load reports what is missing.
    if find_checkpoint(name):
        raise ValueError(
            f"The checkpoint {name} was fetched but not converted yet; run groma convert {name} first."
        )
    if name in PUBLISHED:
        raise ValueError(
            f"The model {name} is not on this machine; groma fetch {name} downloads it and groma convert "
            f"{name} makes it ready to run."
        )
    names = sorted({path.name for path in known_models()})
    near = difflib.get_close_matches(name, [*names, *PUBLISHED], 1)
    hint = f"did you mean {near[0]}? Known are" if near else "known are"
    raise ValueError(
        f"There is no model {name!r} on this machine ({hint} {', '.join(names) or 'none'}); "
        "name one of them, or the folder of a model bundle."
    )
