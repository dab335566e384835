"""`python -m groma_ros.client.demo`, run by `make demo`."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module
from pathlib import Path

LOG_WIDTH = 130
ROOT = Path(__file__).resolve().parents[3]
NEEDED = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "mcap": "mcap",
    "rich": "rich",
    "rclpy": "rclpy (ROS 2)",
    "sensor_msgs.msg": "sensor_msgs (ROS 2)",
    "diagnostic_msgs.msg": "diagnostic_msgs (ROS 2)",
    "vision_msgs.msg": "vision_msgs (ROS 2)",
    "groma_ros.msg": "groma_ros's own messages, built by `make setup` or colcon",
}
"""Modules that the demonstration imports, and the packages that provide them."""


def main() -> int:
    """Run the demonstration. Returns 0 on success, else 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m groma_ros.client.demo",
        description="A ROS 2 node answers goals in words on a recorded camera, over DDS.",
        epilog="Example: python -m groma_ros.client.demo --out out",
    )
    parser.add_argument(
        "--bag", type=Path, default=ROOT / "demo" / "tabletop.mcap", help="MCAP bag with a compressed camera"
    )
    parser.add_argument(
        "--goals", type=Path, default=ROOT / "demo" / "goals.yaml", help="YAML file of the goals to send"
    )
    parser.add_argument(
        "--truth", type=Path, default=ROOT / "demo" / "truth.json", help="file with the true boxes"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for demo.json, demo.png and demo.mcap"
    )
    parser.add_argument(
        "--model", default="", help="folder or name of a model bundle (default: the shipped groma-tiny)"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="playback speed relative to the recording")
    options = parser.parse_args()
    # Make SIGTERM raise KeyboardInterrupt, like SIGINT, so that the child processes are ended before this
    # one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failure = missing_package() or _run(options)
    if failure:
        print(f"demo: {failure}", file=sys.stderr)
    return 1 if failure else 0


def missing_package() -> str:
    """Return a sentence naming the first package that cannot be imported, or ""."""
    for module, package in NEEDED.items():
        try:
            import_module(module)
        except ImportError as error:
            return f"The package {package} cannot be imported ({error}); run `make setup`, or install it."
    return ""


def _run(options: argparse.Namespace) -> str:
    """Return the reason of a failed run as a sentence, or ""."""
    from rich.console import Console

    from groma_ros.client.demo.run import Inputs, run

    try:
        terminal = Console()
        run(Inputs(**vars(options)), terminal if terminal.is_terminal else Console(width=LOG_WIDTH))
    except (ValueError, TimeoutError, OSError, RuntimeError) as error:
        return str(error)
    except KeyboardInterrupt:
        return "It was interrupted."
    return ""


if __name__ == "__main__":
    sys.exit(main())
