"""Find goals in a video, or in a webcam's pictures, and write the video with their boxes.

python examples/video.py 0 "the red mug"               # the first webcam; Ctrl-C ends it
python examples/video.py clip.mp4 "the red mug" --out out/answer.mp4
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2

from groma_ros import Grounder
from groma_ros.visualization import draw_groundings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a video file, or the number of a webcam")
    parser.add_argument("goals", nargs="+", help="what to look for, in words")
    parser.add_argument("--model", default="groma-tiny", help="a model's name or folder")
    parser.add_argument("--out", type=Path, default=Path("out/answer.mp4"))
    args = parser.parse_args()

    video = cv2.VideoCapture(int(args.source) if args.source.isdecimal() else args.source)
    if not video.isOpened():
        parser.error(f"{args.source} is no video that OpenCV reads, and no webcam")
    rate = video.get(cv2.CAP_PROP_FPS) or 30.0
    grounder = Grounder.load(args.model)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    writer, frames, start = None, 0, time.perf_counter()
    try:
        while True:
            there, bgr = video.read()
            if not there:
                break
            rgb = bgr[:, :, ::-1].copy()
            drawn = draw_groundings(rgb, grounder.ground(rgb, args.goals))[:, :, ::-1]
            if writer is None:
                size = (drawn.shape[1], drawn.shape[0])
                writer = cv2.VideoWriter(str(args.out), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
            writer.write(drawn)
            frames += 1
    except KeyboardInterrupt:
        pass
    finally:
        if writer is not None:
            writer.release()
    print(f"wrote {args.out}: {frames} frames, {frames / (time.perf_counter() - start):.1f} a second")


if __name__ == "__main__":
    main()
