"""Find goals in one picture and write the picture with their boxes.

python examples/one_picture.py demo/frame.png "the red mug" "both bottles" --out out/answer.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from groma_ros import Grounder
from groma_ros.visualization import draw_groundings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("goals", nargs="+", help="what to look for, in words")
    parser.add_argument("--model", default="groma-tiny", help="a model's name or folder")
    parser.add_argument("--out", type=Path, default=Path("out/answer.png"))
    args = parser.parse_args()

    bgr = cv2.imread(str(args.picture))
    if bgr is None:
        parser.error(f"{args.picture} is not a picture that OpenCV reads")
    rgb = bgr[:, :, ::-1].copy()

    answers = Grounder.load(args.model).ground(rgb, args.goals)
    for answer in answers:
        print(f"{answer.goal.text}: {answer.status}, presence {answer.present:.2f}")
        for box, score in zip(answer.boxes, answer.scores, strict=True):
            print("   " + " ".join(f"{value:7.1f}" for value in box) + f"   score {score:.2f}")

    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), draw_groundings(rgb, answers)[:, :, ::-1])
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
