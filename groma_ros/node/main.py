"""The executable `groma_node`."""

from __future__ import annotations

import sys

from groma_ros import __version__

INTERRUPTED = 130
"""Exit status after SIGINT, by the convention of shells."""
HELP = """usage: groma_node [--ros-args [-p NAME:=VALUE] [-r FROM:=TO] [--params-file FILE]]

The perception node: finds in camera images what goals in words ask for.

  --help, --version   this text; the version
  -p NAME:=VALUE      a parameter: model, backend, precision, goals, ... (docs/parameters.md lists all)
  -r FROM:=TO         another topic, such as image:=/camera/color/image_raw
  --params-file FILE  parameters from a YAML file

example: groma_node --ros-args -p model:=groma-tiny -p "goals:=['the red mug']" -r image:=/camera/image
`groma doctor` says what this machine lacks to run a model."""


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns 0 after a clean exit, 1 if it could not start (one
    sentence on stderr)."""
    given = sys.argv[1:] if args is None else args
    if "--help" in given or "-h" in given:
        print(HELP)
        return 0
    if "--version" in given:
        print(f"groma_node {__version__}")
        return 0
    try:
        from groma_ros.node.process import run
    except ImportError as error:
        advice = (
            "run `make setup`, or source your ROS 2 distribution and the workspace groma_ros was built in"
        )
        print(f"groma_node: {error}; {advice}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # interrupted during imports, before `run` handles signals
        return INTERRUPTED
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
