"""Pictures of a data set: where they lie, and their pixels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_COCO_2014 = re.compile(r"^COCO_(train|val|test)2014_")


def read_rgb(path: Path) -> np.ndarray:
    """A picture as uint8 HxWx3 RGB, as stored (no turning by EXIF). ValueError with a sentence for one that
    cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"The picture {path} is missing or cannot be decoded.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def find_picture(folder: Path, name: str) -> Path:
    """Where a picture that annotations name lies below a folder.

    The name as it is (LVIS: the end of its coco_url), its last part, or the name COCO gave it in 2017 for one
    of 2014, since the pictures are the same. ValueError with a sentence if there is none of these.
    """
    last = name.rsplit("/", 1)[-1]
    later = _COCO_2014.sub("", last)
    tried = dict.fromkeys((name.split("images.cocodataset.org/")[-1].lstrip("/"), last, later))
    if ".." in name.split("/"):
        raise ValueError(
            f"The annotations name the picture {name!r}, which lies outside the folder {folder}."
        )
    for candidate in tried:
        if (folder / candidate).is_file():
            return folder / candidate
    raise ValueError(
        f"The folder {folder} has no picture {' or '.join(tried)}; name the folder of the pictures with "
        "--images."
    )


def read_json(path: Path) -> Any:
    """A JSON document. ValueError with a sentence for a file that cannot be read or is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}).") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply to be an annotation file.") from error
