"""Message types of the node's topics, read from their .msg files, so that they can be written without ROS."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

_ROOT = Path(__file__).resolve().parents[2]
_WHEEL = Path(__file__).resolve().parents[1] / "shipped" / "messages"
_CHECKOUT = {"groma_ros": _ROOT / "msg", "vision_msgs": _ROOT / "interfaces" / "vision_msgs" / "msg"}


@cache
def typestore() -> Typestore:
    """Return ROS 2's common types and those of the node's topics. Raises ValueError if the .msg files are not
    found."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for package in _CHECKOUT:
        for path in sorted(_folder(package).glob("*.msg")):
            store.register(get_types_from_msg(path.read_text(encoding="utf-8"), f"{package}/msg/{path.stem}"))
    return store


def _folder(package: str) -> Path:
    """Folder of a package's .msg files: in a checkout, in a wheel, or in an installed ROS package."""
    for folder in (_CHECKOUT[package], _WHEEL / package):
        if folder.is_dir():
            return folder
    folder = share(package) / "msg"
    if not folder.is_dir():
        raise ValueError(
            f"The messages of {package} were not found in {folder}; install it, or run from a checkout of "
            "groma_ros."
        )
    return folder


def share(package: str) -> Path:
    """Return the share folder of an installed ROS package, found through AMENT_PREFIX_PATH.

    Raises ValueError if there is none.
    """
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (Path(prefix) / "share/ament_index/resource_index/packages" / package).is_file():
            return Path(prefix) / "share" / package
    raise ValueError(f"The package {package} is not installed, or its workspace is not sourced.")
