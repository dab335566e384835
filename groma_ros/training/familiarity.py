"""Fit `grounding.familiarity` to the pictures and words of a training run, and put it into a bundle.

`groma train --bundle` does this for the bundle it writes. For one that exists:
`python -m groma_ros.training.familiarity BUNDLE --config CONFIG --out runs`, where `out` holds the rendered
scenes of the config; the bundle keeps the words that it knows already.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from groma_ros.grounding.familiarity import FEWEST, FILE, Familiarity, words_of
from groma_ros.model.groma import Groma
from groma_ros.runtime.bundle import MANIFEST, Bundle
from groma_ros.runtime.torch import load_model
from groma_ros.simulation.goal_generator import draw_goals
from groma_ros.simulation.more_goals import MORE_TYPES, draw_more_goals
from groma_ros.simulation.wording import say
from groma_ros.simulation.worlds import words_of as names_of
from groma_ros.training.config import TrainConfig
from groma_ros.training.data import Data, scenes_data
from groma_ros.training.data_files import KINDS, FileSample
from groma_ros.training.detection import normalise
from groma_ros.training.features import square
from groma_ros.training.pool import Pictures, Shard
from groma_ros.types import FloatArray

PICTURES = 750
"""Most pictures used of each world, evenly from its shards; all files together count as one world."""
SAYINGS = 6
"""Number of wordings of each goal from which words are collected."""
FILES = "files"
"""Name of the world of all pictures that were not rendered."""
KNOWN = tuple(kind for kind in MORE_TYPES if kind not in ("unknown", "missing"))
"""The two others are goals about everyday words that the model has learned to call absent but does not
know."""


def fit(model: Groma, data: Data, usual: Sequence[str] = (), pictures: int = PICTURES) -> Familiarity | None:
    """Fit to pictures and words of training data, world by world; None for fewer than `FEWEST` pictures.

    usual: the worlds whose pictures are fitted, all if the data has none of them; words are taken from all.
    """
    size, words, rng = model.config.image_size, set[str](), np.random.default_rng(0)
    worlds = _worlds(data.pictures)
    tokens: dict[str, list[FloatArray]] = {name: [] for name in worlds if name in usual}
    tokens = tokens or {name: [] for name in worlds}
    for world, samples in worlds.items():
        for index in np.linspace(0, len(samples) - 1, min(pictures, len(samples))):
            some, number = samples[int(index)]
            if world in tokens:
                pixels = normalise(square(some.sample(number), size)[None], torch.device("cpu"))
                with torch.no_grad():
                    states = model.perceiver.hidden(pixels)
                    tokens[world].append(model.image_tokens(states)[0].mean(0).float().numpy())
            words |= _words(some, number, rng)
    if sum(map(len, tokens.values())) < FEWEST:
        return None
    return Familiarity.fit({name: np.stack(lines) for name, lines in tokens.items()}, frozenset(words))


def _worlds(pictures: Sequence[Pictures]) -> dict[str, list[tuple[Pictures, int]]]:
    """The pictures of each world. A world of too few to be judged by themselves is part of the largest."""
    found: dict[str, list[tuple[Pictures, int]]] = {}
    for some in pictures:
        world = some.world if isinstance(some, Shard) else FILES
        found.setdefault(world, []).extend((some, index) for index in range(len(some.objects)))
    largest = max(found, key=lambda world: len(found[world]))
    for world in [name for name in found if name != largest and len(found[name]) < FEWEST]:
        found[largest] += found.pop(world)
    return found


def _words(some: Pictures, index: int, rng: np.random.Generator) -> set[str]:
    sample = some.sample(index)
    if isinstance(sample, FileSample):
        goals = [goal for kind in KINDS for goal in sample.draw(rng, len(sample.told), kind)]
        return {word for goal in goals for word in words_of(goal.text)}
    names = names_of(sample.world)
    goals = [*draw_goals(sample, rng, 1, words=names), *draw_more_goals(sample, rng, 1, KNOWN, names)]
    texts = [goal.text for goal in goals]
    texts += [say(goal, rng, real_words=True).text for goal in goals for _ in range(SAYINGS)]
    return {word for text in texts for word in words_of(text)}


def add(directory: Path, familiarity: Familiarity) -> None:
    """Add the statistics to a bundle: its table as a file, the rest in the manifest."""
    stream = io.BytesIO()
    np.save(stream, familiarity.table)
    bundle = dataclasses.replace(Bundle.load(directory), familiarity=familiarity.to_manifest())
    files = json.loads((directory / MANIFEST).read_text())["files"]
    bundle.write_manifest({**files, **bundle.write_files({FILE: stream.getvalue()})})


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit to the rendered scenes of a training config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, with its rendered scenes")
    args = parser.parse_args(arguments)
    bundle = Bundle.load(args.bundle)
    config = TrainConfig.load(args.config)
    found = fit(load_model(bundle), scenes_data(config, args.out), config.usual)
    if found is None:
        raise SystemExit(f"The run has fewer than {FEWEST} pictures, too few to say what is usual.")
    earlier = Familiarity.load(bundle)
    if earlier is not None:
        found = dataclasses.replace(found, words=found.words | earlier.words)
    add(args.bundle, found)
    limits = ", ".join(f"{world.name} {world.limit:.2f}" for world in found.worlds)
    print(f"{args.bundle / FILE}: {len(found.words)} words; limits {limits}")


if __name__ == "__main__":
    main()
