"""`groma calibrate`: fit presence and box scores to scenes with ground truth."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.commands.run_options import (
    add_run_arguments,
    check_count,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation.bag_scenes import bag_scenes, is_bag
from groma_ros.evaluation.calibrate import FEWEST, Fit, calibrate, own_calibration, table, write_calibration
from groma_ros.evaluation.observations import Observations, SceneSeed, observe
from groma_ros.evaluation.scenes import TrueScene
from groma_ros.folder_lock import folder_lock
from groma_ros.grounding.calibration import Calibration
from groma_ros.runtime.bundle import Bundle
from groma_ros.simulation import other_worlds
from groma_ros.simulation.dataset import Settings, load_dataset, render_elsewhere, scene_seeds
from groma_ros.simulation.scene_records import SceneRecord
from groma_ros.simulation.worlds import DEFAULT_WORLD, MIXED, WORLDS

_WORLDS = (MIXED, *WORLDS, *other_worlds.WORLDS)


@dataclass(frozen=True)
class Source:
    """Scenes that weigh as much as those of every other source."""

    scenes: Sequence[SceneSeed | SceneRecord | TrueScene]
    settings: dict[str, Any]
    """What identifies them; the name of the source is among it."""

    @property
    def description(self) -> str:
        """What a manifest says of the source, without the folders of this machine."""
        values = {
            key: Path(value).name if key in ("data", "bag") else value for key, value in self.settings.items()
        }
        name = values.pop("name")
        if seeds := [s.seed for s in self.scenes if isinstance(s, SceneRecord) and s.seed >= 0]:
            values["scene seeds"] = f"{min(seeds)} to {max(seeds)}"
        values = {key: value for key, value in values.items() if value != name}
        return f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items()) if values else name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma calibrate`."""
    parser.add_argument(
        "data",
        type=Path,
        nargs="*",
        metavar="BAG|DIR",
        help="bags with a truth file and folders of scenes; each weighs the same, whatever its size",
    )
    add_run_arguments(parser)
    parser.add_argument("--seed", type=int, help="data seed of scenes to render, as in `groma scenes`")
    parser.add_argument(
        "--count", type=int, default=400, help="number of scenes to render of each world (default 400)"
    )
    parser.add_argument(
        "--world",
        default=DEFAULT_WORLD,
        metavar="WORLDS",
        help=f"comma-separated worlds to render: {', '.join(_WORLDS)} (default {DEFAULT_WORLD}); each weighs "
        "the same",
    )
    parser.add_argument(
        "--truth", type=Path, help="truth file of the only bag (default: truth.json beside each bag)"
    )
    parser.add_argument("--topic", help="camera topic of the bags (default: the only camera of each)")
    parser.add_argument("--every", type=int, default=1, help="use every N-th frame of a bag (default: 1)")
    parser.add_argument(
        "--signals",
        help="comma-separated signals to compute presence from, for a model that was not trained to "
        'answer "nothing fits" (default for such a model: all)',
    )
    parser.add_argument("--dry-run", action="store_true", help="fit and report without changing the manifest")


def run(args: argparse.Namespace) -> int:
    """Run `groma calibrate` with the options of `add_arguments`; returns the exit status."""
    if args.dry_run:
        return _fit(args)
    with folder_lock(args.model):
        return _fit(args)


def _fit(args: argparse.Namespace) -> int:
    names = tuple(name for name in args.signals.split(",") if name) if args.signals else None
    choice = model_choice(args)
    bundle = choice.bundle()
    with _sources(args) as sources:
        settings = {
            "task": "calibrate",
            "sources": [source.settings for source in sources],
            "signals": names is not None,
        }
        scenes = [scene for source in sources for scene in source.scenes]
        origin = [index for index, source in enumerate(sources) for _ in source.scenes]
        seen = observe(choice, scenes, plan(args), settings, names is not None, origin)
    if len(seen.kinds) < FEWEST:
        raise ValueError(
            f"The scenes hold {len(seen.kinds)} goals; a line through fewer than {FEWEST} would say nothing."
        )
    old = own_calibration(bundle, seen.precision, names)
    if not old.answers_none and not old.signals:
        given = tuple(name for name in seen.signals[0] if name != "stop")
        old = own_calibration(bundle, seen.precision, given)
    new, fits = calibrate(seen, old)
    document = _document(bundle, seen, sources, new, fits)
    if not args.dry_run:
        fitted = (
            f"{document['goals']} goals ({document['absent']} absent) of {document['scenes']} scenes "
            f"({'; '.join(source.description for source in sources)}) in {seen.precision}; error of presence "
            f"{_errors(document['presence'])}, of scores {_errors(document['scores'])}"
        )
        # Keep the manifest's own resize, not the one chosen here.
        write_calibration(Bundle.load(args.model), seen.precision, new, fitted)
        print(f"{args.model / 'manifest.json'}", file=sys.stderr)
    document["written"] = not args.dry_run
    return finish(args, document, table(document))


def _errors(fit: dict[str, Any]) -> str:
    """The calibration errors of a fit in a manifest."""
    if fit["kept"]:
        return f"{fit['before']['error']} (kept as it was)"
    return f"{fit['before']['error']} before, {fit['after']['error']} after"


@contextmanager
def _sources(args: argparse.Namespace) -> Iterator[list[Source]]:
    """The sources that the options name; scenes of other simulators lie in a folder that exists as long as
    this context unless --out is given."""
    if args.seed is None and not args.data:
        raise ValueError(
            "Give --seed (with --count and --world) to render scenes, or folders or bags of them."
        )
    check_count(args)
    bags = [path for path in args.data if is_bag(path)]
    if args.truth is not None and len(bags) != 1:
        raise ValueError(
            f"--truth names the truth file of one bag, not of {len(bags)}; put a truth.json beside each bag."
        )
    worlds = [world for world in args.world.split(",") if world] if args.seed is not None else []
    if args.seed is not None and not worlds:
        raise ValueError(f"--world names no world; the worlds are {', '.join(_WORLDS)}.")
    if unknown := [world for world in worlds if world not in _WORLDS]:
        raise ValueError(f"There is no world {unknown[0]!r}; the worlds are {', '.join(_WORLDS)}.")
    found = [_read(path, args) for path in args.data]
    with tempfile.TemporaryDirectory(prefix="groma-scenes-") as folder:
        found += [_rendered(world, args, args.out or Path(folder)) for world in worlds]
        yield _named(found)


def _read(path: Path, args: argparse.Namespace) -> Source:
    if is_bag(path):
        scenes = bag_scenes(path, args.truth, args.topic, args.every)
        return Source(scenes, {"name": path.stem, "bag": str(path.resolve()), "every": args.every})
    return Source(load_dataset(path), {"name": path.resolve().name, "data": str(path.resolve())})


def _rendered(world: str, args: argparse.Namespace, out: Path) -> Source:
    settings = {"name": world, "seed": args.seed, "count": args.count, "world": world}
    if world in other_worlds.WORLDS:
        folder = out / f"{world}-scenes-{args.seed}"
        wanted = Settings(args.seed, world=world)
        return Source(render_elsewhere(folder, args.count, wanted, args.jobs), settings)
    return Source([SceneSeed(seed, world) for seed in scene_seeds(args.seed, args.count)], settings)


def _named(sources: list[Source]) -> list[Source]:
    """The sources with different names: those that share theirs are numbered."""
    names = [source.settings["name"] for source in sources]
    numbered = [
        f"{name} {names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]
    return [
        Source(source.scenes, {**source.settings, "name": name})
        for source, name in zip(sources, numbered, strict=True)
    ]


def _document(
    bundle: Bundle, seen: Observations, sources: Sequence[Source], new: Calibration, fits: dict[str, Fit]
) -> dict[str, Any]:
    def counts(part: Observations) -> dict[str, int]:
        return {
            "scenes": len(np.unique(part.scene)),
            "goals": len(part.kinds),
            "absent": int((~part.present).sum()),
        }

    rows = []
    for index, source in enumerate(sources):
        pairs = {name: fit.sources[index] for name, fit in fits.items()}
        judged = {
            name: {"before": before.document(), "after": after.document()}
            for name, (before, after) in pairs.items()
        }
        rows.append({**source.settings, **counts(seen.part(seen.source == index)), **judged})
    whole = {
        name: {
            "count": fit.count,
            "before": fit.before.document(),
            "after": fit.after.document(),
            "kept": fit.kept,
        }
        for name, fit in fits.items()
    }
    ran = {"model": bundle.name, "backend": seen.backend, "precision": seen.precision}
    return {**ran, **counts(seen), **whole, "sources": rows, "calibration": new.to_manifest()}
