"""Where models lie on this machine."""

from __future__ import annotations

from pathlib import Path

from groma_ros.io.message_definitions import share

DEFAULT_MODEL = "groma-tiny"


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
