"""Fit `grounding.familiarity` to the pictures and words of a training run, and put it into a bundle.

`groma train --bundle` does this for the bundle it writes. For one that exists:
`python -m groma_ros.training.familiarity BUNDLE --config config/train_words.yaml --out runs/words`, where
`out` holds the rendered scenes of the config.
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
from groma_ros.training.pool import Pictures

PICTURES = 1500
"""Number of pictures used, evenly from all files and shards."""
SAYINGS = 6
"""Number of wordings of each goal from which words are collected."""
KNOWN = tuple(kind for kind in MORE_TYPES if kind not in ("unknown", "missing"))
"""The two others are goals about everyday words that the model has learned to call absent but does not
know."""


def fit(model: Groma, data: Data, seen: str = "", pictures: int = PICTURES) -> Familiarity | None:
    """Fit to pictures and words of training data; None for fewer than `FEWEST` pictures.

    seen: name prefixes of the shards or files whose pictures the backbone was trained on, if not all; words
    are collected from all.
    """
    samples = [(some, index) for some in data.pictures for index in range(len(some.objects))]
    chosen = [samples[int(i)] for i in np.linspace(0, len(samples) - 1, min(pictures, len(samples)))]
    if sum(some.name.startswith(seen) for some, _ in chosen) < FEWEST:
        return None
    size, tokens, words = model.config.image_size, [], set[str]()
    rng = np.random.default_rng(0)
    # Neighbours are of one world, and every fifth picture sets the limit, so shuffle.
    for some, index in (chosen[int(i)] for i in rng.permutation(len(chosen))):
        if some.name.startswith(seen):
            pixels = normalise(square(some.sample(index), size)[None], torch.device("cpu"))
            with torch.no_grad():
                states = model.perceiver.hidden(pixels)
                tokens.append(model.image_tokens(states)[0].mean(0).float().numpy())
        words |= _words(some, index, rng)
    return Familiarity.fit(np.stack(tokens), frozenset(words))


def _words(some: Pictures, index: int, rng: np.random.Generator) -> set[str]:
    sample = some.sample(index)
    if isinstance(sample, FileSample):
        goals = [goal for kind in KINDS for goal in sample.draw(rng, len(sample.told), kind)]
        return {word for goal in goals for word in words_of(goal.text)}
    names = names_of(sample.world)
    goals = [*draw_goals(sample, rng, 1, words=names), *draw_more_goals(sample, rng, 1, KNOWN, names)]
    texts = [goal.text for goal in goals]
    texts += [say(goal, rng, typos=False).text for goal in goals for _ in range(SAYINGS)]
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
    parser.add_argument(
        "--seen",
        default="",
        metavar="WORLD",
        help="judge pictures of this world only, if the backbone was trained on no other world of the config",
    )
    args = parser.parse_args(arguments)
    found = fit(
        load_model(Bundle.load(args.bundle)), scenes_data(TrainConfig.load(args.config), args.out), args.seen
    )
    if found is None:
        raise SystemExit(f"The run has fewer than {FEWEST} pictures, too few to say what is usual.")
    add(args.bundle, found)
    print(f"{args.bundle / FILE}: {len(found.words)} words, limit {found.limit:.2f}")


if __name__ == "__main__":
    main()
