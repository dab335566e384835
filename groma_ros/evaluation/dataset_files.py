"""Find the pictures of a data set."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from groma_ros.errors import printable, quoted

_COCO_2014 = re.compile(r"^COCO_(train|val|test)2014_")


def find_picture(folder: Path, name: str) -> Path:
    """Find a picture named in annotations below a folder.

    Tries the name as it is (for LVIS the end of coco_url), its last part, and the 2017 name of a COCO 2014
    picture, which is the same picture. Raises ValueError if none exists.
    """
    last = name.rsplit("/", 1)[-1]
    later = _COCO_2014.sub("", last)
    tried = dict.fromkeys((name.split("images.cocodataset.org/")[-1].lstrip("/"), last, later))
    if ".." in name.split("/"):
        raise ValueError(
            f"The annotations name the picture {quoted(name)}, which lies outside the folder {folder}."
        )
    for candidate in tried:
        with suppress(OSError):  # a name that no file can have
            if (folder / candidate).is_file():
                return folder / candidate
    names = printable(" or ".join(tried), 300)
    raise ValueError(
        f"The folder {folder} has no picture {names}; name the folder of the pictures with --images."
    )
