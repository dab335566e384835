"""The executable `groma_node`."""

from __future__ import annotations

import sys


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. 0 after a clean end, 1 with one sentence on stderr when it could
    not start."""
    try:
        from groma_ros.node.process import run
    except ImportError as error:
        advice = (
            "run `make setup`, or source your ROS 2 distribution and the workspace groma_ros was built in"
        )
        print(f"groma_node: {error}; {advice}.", file=sys.stderr)
        return 1
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
