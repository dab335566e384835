"""Ask a running node for one goal and print where it is, in the image and in space.

ros2 launch groma_ros groma.launch.py image:=/camera/image_raw      # in another terminal
python examples/ros_find.py "the red mug left of the bowl"
"""

from __future__ import annotations

import argparse
import sys
import time

from groma_ros.client import GromaClient


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("goal", help="what to look for, in words")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds to look for it (default: 10)")
    parser.add_argument("--node", default="groma", help="name of the node (default: groma)")
    args = parser.parse_args()

    try:
        with GromaClient(args.node) as groma:
            groma.wait_until_active()
            groma.find(args.goal, timeout=args.timeout)
            stage = ""
            while not groma.is_done():
                if groma.feedback()[0] != stage:
                    stage = groma.feedback()[0]
                    print(f"... {stage}")
                time.sleep(0.05)
            result = groma.result()
    except (TimeoutError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if not result.success:
        print(result.message)
        return 1
    for box, score in zip(result.grounding.boxes, result.grounding.scores, strict=True):
        print(" ".join(f"{value:.1f}" for value in box) + f"   score {score:.2f}")
    if result.target_pose is not None:
        place = result.target_pose.pose.position
        frame = result.target_pose.header.frame_id
        print(f"target pose in {frame}: {place.x:.3f} {place.y:.3f} {place.z:.3f} m")
    return 0


if __name__ == "__main__":
    sys.exit(main())
