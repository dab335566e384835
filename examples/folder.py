"""Find goals in every picture of a folder and write one JSON line a picture.

python examples/folder.py demo "the red mug" --out out/answers.jsonl
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from groma_ros import Frame, Grounder
from groma_ros.errors import printable

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("goals", nargs="+", help="what to look for, in words")
    parser.add_argument("--model", default="groma-tiny", help="a model's name or folder")
    parser.add_argument("--out", type=Path, default=Path("out/answers.jsonl"))
    args = parser.parse_args()
    pictures = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not pictures:
        parser.error(f"{args.folder} holds no picture ({', '.join(sorted(ENDINGS))})")
    grounder = Grounder.load(args.model)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w") as lines:
        for path in pictures:
            try:
                # All goals share one encoding of the image.
                answers = grounder.ground(read_frame(path), args.goals)
            except ValueError as error:
                print(printable(f"{path}: skipped. {error}"))
                continue
            record = {"picture": str(path), "answers": [item.to_dict() for item in answers]}
            lines.write(json.dumps(record) + "\n")
            found = [item.goal.text for item in answers if item.status == "present"]
            print(printable(f"{path}: {', '.join(found) or 'nothing'}"))
    print(f"wrote {args.out}")


def read_frame(path: Path) -> Frame:
    """Raises ValueError for a file that OpenCV cannot decode."""
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        bgr = None
    if bgr is None:
        raise ValueError("OpenCV cannot decode it.")
    return Frame(np.ascontiguousarray(bgr[:, :, ::-1], np.uint8))


if __name__ == "__main__":
    main()
