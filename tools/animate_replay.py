"""Draws docs/demo.gif: the camera of a bag with the answers that `groma replay` gave to it.

.venv/bin/groma replay demo/tabletop.mcap --goals demo/goals.yaml --out out/replay
.venv/bin/python tools/animate_replay.py demo/tabletop.mcap out/replay --out docs/demo.gif
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from mcap.reader import make_reader
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from groma_ros.io.images import compressed_to_rgb
from groma_ros.replay.records import FrameRecord, read_records
from groma_ros.types import Detection, Goal, Grounding
from groma_ros.visualization import draw_groundings

MAX_BYTES = 3_000_000
TOPIC = "/camera/image/compressed"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bag", type=Path, help="an .mcap file with compressed images")
    parser.add_argument("run", type=Path, help="folder given as --out to groma replay on that bag")
    parser.add_argument("--out", type=Path, required=True, help="a .gif or .png (APNG) file")
    parser.add_argument("--topic", default=TOPIC, help=f"camera topic (default: {TOPIC})")
    parser.add_argument("--goals", type=int, default=4, help="number of goals to show (default: 4)")
    parser.add_argument("--every", type=int, default=2, help="show every N-th image (default: 2)")
    parser.add_argument("--width", type=int, default=480, help="pixels (default: 480)")
    parser.add_argument("--rate", type=float, default=10.0, help="image rate of the bag in Hz (default: 10)")
    arguments = parser.parse_args()
    records = read_records(arguments.run / "detections.jsonl")
    images = read_images(arguments.bag, arguments.topic)
    if len(records) != len(images):
        parser.error(f"{arguments.run} has {len(records)} images and {arguments.bag} has {len(images)}.")
    frames = [
        picture(image, record, arguments.goals, arguments.width)
        for image, record in list(zip(images, records, strict=True))[:: arguments.every]
    ]
    write_animation(arguments.out, frames, round(1000 * arguments.every / arguments.rate))
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {len(frames)} images, {size / 1e6:.2f} MB")
    if size > MAX_BYTES:
        parser.exit(1, f"{arguments.out} is over {MAX_BYTES / 1e6:.0f} MB: raise --every or lower --width.\n")


def read_images(bag: Path, topic: str) -> list[NDArray[Any]]:
    """The images of a topic of sensor_msgs/CompressedImage, uint8 HxWx3 RGB, in recording order."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with bag.open("rb") as stream:
        messages: list[Any] = [
            store.deserialize_cdr(message.data, "sensor_msgs/msg/CompressedImage")
            for _, _, message in make_reader(stream).iter_messages(topics=[topic])
        ]
    return [compressed_to_rgb(message.data, message.format) for message in messages]


def picture(image: NDArray[Any], record: FrameRecord, goals: int, width: int) -> NDArray[Any]:
    """The image, scaled to a width in pixels, with the answers to the first goals drawn on it."""
    scale = width / image.shape[1]
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    groundings = []
    for goal in record.goals[:goals]:
        detections = []
        for index, found in enumerate(goal.detections):
            x1, y1, x2, y2 = (scale * value for value in found.box)
            detections.append(Detection((x1, y1, x2, y2), found.score, index, found.id))
        groundings.append(Grounding(Goal(goal.goal), tuple(detections), goal.present, goal.margin))
    return draw_groundings(small, groundings)


def write_animation(path: Path, frames: Sequence[NDArray[Any]], milliseconds: int) -> None:
    """Write RGB images as an endless animation; the suffix of the path chooses the format."""
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames]
    animation.durations = [milliseconds] * len(frames)
    if not cv2.imwriteanimation(str(path), animation):
        raise OSError(f"{path} could not be written.")


if __name__ == "__main__":
    main()
