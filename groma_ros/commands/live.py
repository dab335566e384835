"""`groma live`: a web page that shows the answers on live pictures."""

from __future__ import annotations

import argparse
import re
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.errors import printable
from groma_ros.folder_lock import folder_lock
from groma_ros.live import LOOPBACK

if TYPE_CHECKING:
    from groma_ros.live.engine import Engine
    from groma_ros.types import Goal

ROS = "ros"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma live`."""
    parser.add_argument(
        "--source",
        required=True,
        metavar="SOURCE",
        help="number of a camera, a video, a picture, a folder of pictures, a bag, or ros for a running node",
    )
    parser.add_argument(
        "--goal", action="append", default=[], metavar="TEXT", help="goal to search for; may be repeated"
    )
    parser.add_argument("--topic", help="camera topic of a bag (default: its only camera)")
    add_model_arguments(parser, device=True)
    parser.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    ros = parser.add_argument_group("with --source ros")
    ros.add_argument("--node", default="groma", help="name of the node, with its namespace (default: groma)")
    ros.add_argument("--camera", default="", help="camera name, for a node with several cameras")
    ros.add_argument("--image-topic", help="image topic of the camera (default: as reported by the node)")
    page = parser.add_argument_group("page")
    page.add_argument(
        "--out",
        type=Path,
        default=Path("out/live"),
        help="folder for labels, saved frames and bags, with one subfolder per source (default: out/live)",
    )
    page.add_argument(
        "--port", type=int, default=8470, help="port to listen on, 0 for a free one (default: 8470)"
    )
    page.add_argument(
        "--host",
        default=LOOPBACK[0],
        help="address to listen on; other than this machine's own it needs --token (default: 127.0.0.1)",
    )
    page.add_argument("--token", default="", help="secret that everybody who opens the page must know")
    page.add_argument(
        "--no-browser", action="store_true", help="print the address without opening the browser"
    )


def run(args: argparse.Namespace) -> int:
    """Run `groma live` with the options of `add_arguments`; returns the exit status."""
    from groma_ros.types import Goal

    _check(args)
    try:
        from groma_ros.live.serve import PageServer
        from groma_ros.live.session import LiveSession
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "websockets"):
            raise
        raise ValueError(
            f"The page needs the package {error.name}: python -m pip install 'groma_ros[live]'."
        ) from error
    out = args.out / _folder(args.source)
    with folder_lock(out):
        goals = [Goal(text.strip()) for text in args.goal]
        engine = _node_engine(args, goals) if args.source == ROS else _pipeline_engine(args, goals)
        try:
            session = LiveSession(engine, out)
            server = PageServer(session, args.host, args.port, args.token)
        except BaseException:
            engine.close()
            raise
        _announce(args, server.address)
        server.run()
    return 0


def _announce(args: argparse.Namespace, address: str) -> None:
    """Print the page's address, with a warning if other machines can reach it, and open it in the browser."""
    if args.host not in LOOPBACK:
        print(
            f"groma live: listening on {args.host} opens the camera to the network: whoever has the token "
            "sees it, over a connection that is not encrypted.",
            file=sys.stderr,
        )
    print(f"groma live: {address} (Ctrl-C ends it)", flush=True)
    if not args.no_browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port is {args.port}; it must be from 0 to 65535.")
    if args.token and not (len(args.token) >= 8 and args.token.isascii() and args.token.isprintable()):
        raise ValueError("--token must have 8 characters or more, all of them printable ASCII.")
    if args.host not in LOOPBACK and not args.token:
        raise ValueError(
            f"--host {printable(args.host)} opens the camera to the network, so it needs a --token of 8 "
            "characters or more that whoever opens the page must know."
        )


def _folder(source: str) -> str:
    """Return the name of a source's folder in --out."""
    name = Path(source).resolve().name if source not in (ROS,) and not source.isdigit() else source
    name = f"camera-{source}" if source.isdigit() else name
    return re.sub(r"[/\\\x00-\x1f]", "_", name).lstrip(".") or "source"


def _pipeline_engine(args: argparse.Namespace, goals: list[Goal]) -> Engine:
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.live.pipeline_engine import PipelineEngine
    from groma_ros.live.sources import open_source
    from groma_ros.runtime.model_paths import shipped_model

    source = open_source(args.source, args.topic)  # before loading the model, which takes longer
    model = args.model or shipped_model()
    grounder = Grounder.load(model, runtime_options(args), min_presence=args.min_presence)
    backend = f", {grounder.runtime.backend}" if grounder.runtime is not None else ""
    engine = PipelineEngine(grounder, source, f"{Path(model).name}{backend}")
    engine.set_goals(goals)
    return engine


def _node_engine(args: argparse.Namespace, goals: list[Goal]) -> Engine:
    try:
        from groma_ros.live.node_engine import NodeEngine
    except ImportError as error:
        raise ValueError(f"--source ros needs ROS 2 and the messages of groma_ros: {error}.") from error
    return NodeEngine(args.node, goals, args.camera, args.image_topic)
