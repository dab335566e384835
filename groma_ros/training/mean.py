"""Make a bundle whose weights are the mean of several bundles of one network.

    python -m groma_ros.training.mean BUNDLE BUNDLE ... --out DIR

The runs must have started from the same weights, or the mean says nothing. The last bundle gives everything
that is not a weight; its graphs, accuracy table and calibration are not copied, because they are of other
weights. docs/training.md has the commands that follow.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from groma_ros.grounding.familiarity import Familiarity
from groma_ros.model.checkpoint import load_weights, original_state_dict
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import TOKENIZER, WEIGHTS, Bundle
from groma_ros.training.familiarity import add


def mean_bundle(sources: Sequence[Path], out: Path) -> None:
    """Write the bundle `out`. Raises ValueError for bundles of different networks or vocabularies."""
    bundles = [Bundle.load(path) for path in sources]
    last = bundles[-1]
    for path, one in zip(sources, bundles, strict=True):
        if one.network != last.network:
            raise ValueError(f"{path} has another network than {sources[-1]}, so they have no mean.")
        if one.file(TOKENIZER).read_bytes() != last.file(TOKENIZER).read_bytes():
            raise ValueError(f"{path} has another vocabulary than {sources[-1]}, so they have no mean.")
    model = Groma(GromaConfig.from_dict(last.network))
    total: dict[str, torch.Tensor] = {}
    for one in bundles:
        load_weights(model, one.file(WEIGHTS), torch.float32)
        for name, value in model.state_dict().items():
            total[name] = total.get(name, torch.zeros(())) + value / len(bundles)
    model.load_state_dict(total)
    seeds = {**last.seeds, "mean_of": [one.weights for one in bundles]}
    mean = dataclasses.replace(
        last, directory=out, name=out.name, seeds=seeds, graphs={}, test={}, calibration={}, familiarity={}
    )
    tensors = {name: value.float().numpy() for name, value in original_state_dict(model).items()}
    mean.write(tensors, last.file(TOKENIZER).read_bytes())
    if (known := Familiarity.load(last)) is not None:
        add(out, known)


def main(arguments: Sequence[str] | None = None) -> None:
    """Average the bundles that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        mean_bundle(args.bundles, args.out)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(f"{args.out}: the mean of {len(args.bundles)} bundles")


if __name__ == "__main__":
    main()
