"""From parameters to a model that answers."""

from __future__ import annotations

from pathlib import Path

from groma_ros.grounding.grounder import Grounder

DEFAULT_MODEL = "groma-tiny"


def load_grounder(
    model: str,
    backend: str = "auto",
    device: str | None = None,
    precision: str = "auto",
    threads: int | None = None,
) -> Grounder:
    """The grounder of the bundle in a folder, or of the one that ships for ""; the rest as in
    `Grounder.load`.

    Raises ValueError with a sentence.
    """
    try:
        folder = Path(model).expanduser() if model else shipped_model()
        return Grounder.load(folder, device=device, backend=backend, threads=threads, precision=precision)
    except ImportError as error:
        raise ValueError(
            f"The model needs the Python package {error.name}, which is not installed; run `make setup`."
        ) from error


def shipped_model() -> Path:
    """The folder of groma-tiny: beside the package in a checkout, in the share folder where colcon installed
    it."""
    beside = Path(__file__).resolve().parents[2] / "engines" / DEFAULT_MODEL
    if beside.is_dir():
        return beside
    try:
        return share("groma_ros") / "engines" / DEFAULT_MODEL
    except ValueError as error:
        raise ValueError(
            "The model groma-tiny was not found where the package is; name the folder of a model."
        ) from error


def share(package: str) -> Path:
    """The share folder of an installed ROS package. Raises ValueError with a sentence where there is none."""
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory(package))
    except (ImportError, LookupError, OSError) as error:
        raise ValueError(
            f"The package {package} is not installed, or its workspace is not sourced."
        ) from error
