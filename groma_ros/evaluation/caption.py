"""`groma eval caption`: descriptions of given regions, on Visual Genome, RefCOCOg or any COCO-style file with captions."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.evaluation.caption_scores import cider, exact, rouge_l
from groma_ros.evaluation.options import add_picture_arguments, add_run_arguments, figure, finish, model_choice, plan, rounded
from groma_ros.evaluation.pictures import corners, find_picture, read_coco, read_rgb
from groma_ros.evaluation.published import CAPTION_CIDER, HEAD, beside, row
from groma_ros.evaluation.workers import Record, run
from groma_ros.files import replacing
from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame

CAPTIONS = "captions.json"
KINDS = {"vg": "describe", "refcocog": "describe_in_detail"}
"""The queries with which the original asks on each data set."""
MAX_TOKENS = 100
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class DescribedRegion:
    """A box (xyxy pixels) of the picture `image` (its id) and what people said of it."""

    image: int
    box: Box
    references: tuple[str, ...]


@dataclass(frozen=True)
class DescribedPicture:
    """A picture, by the name the annotations give it, with its regions."""

    name: str
    regions: tuple[DescribedRegion, ...]


@dataclass(frozen=True)
class Describe:
    """The work on one picture: each region joins the proposals by itself, as the original does, and is described."""

    images: Path
    kind: str
    seed: int

    def __call__(self, grounder: Grounder, picture: DescribedPicture) -> Record:
        grounder.max_answer_tokens = MAX_TOKENS
        scene = grounder.perceive(Frame(read_rgb(find_picture(self.images, picture.name))))
        count = grounder.wordings(self.kind)
        texts = []
        for region in picture.regions:
            own, (place,) = grounder.refer(scene, np.array([region.box], np.float32))
            wording = random.Random(f"{self.seed} {region.image} {region.box}").randrange(max(1, count))
            (text,) = grounder.describe(own, [place], self.kind, [wording])
            texts.append(" ".join(text.split()).strip("'").strip())
        return {"texts": texts}


def read_regions(path: Path) -> list[DescribedPicture]:
    """The pictures of a COCO-style file whose annotations have captions; equal boxes of a picture are one region with several references.

    Raises ValueError with a sentence for another file.
    """
    document = read_coco(path, "images", "annotations")
    try:
        names = {entry["id"]: entry["file_name"] for entry in document["images"]}
        said: dict[tuple[Any, Box], list[str]] = {}
        for entry in document["annotations"]:
            if not entry.get("ignore", False) and min(entry["bbox"][2:]) >= 1:
                said.setdefault((entry["image_id"], corners(entry["bbox"])), []).append(str(entry["caption"]))
        by_name: dict[str, list[DescribedRegion]] = {}
        for (image, box), lines in said.items():
            by_name.setdefault(names[image], []).append(DescribedRegion(image, box, tuple(lines)))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a file of described regions: {type(error).__name__} {error}.") from error
    return [DescribedPicture(name, tuple(regions)) for name, regions in by_name.items()]


def report(name: str, texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The scores of descriptions against what people said. CIDEr is times 100, as papers print it."""
    alike = 100 * float(np.mean(cider(texts, references))) if texts else None
    rouge = [rouge_l(*pair) for pair in zip(texts, references, strict=True)]
    return {
        "regions": len(texts),
        "cider": beside(alike, CAPTION_CIDER.get(name)),
        "rouge_l": rounded(float(np.mean(rouge))) if texts else None,
        "exact": rounded(float(np.mean([exact(*pair) for pair in zip(texts, references, strict=True)]))) if texts else None,
    }


def table(document: dict[str, Any]) -> str:
    """The report as lines to read."""
    head = f"{document['model']}: {document['regions']} regions in {document['pictures']} pictures"
    rest = f"ROUGE-L {figure(document['rouge_l'])}   exactly a reference {figure(document['exact'])}   (METEOR: not computed)"
    return "\n".join([head, HEAD, row("CIDEr x 100", document["cider"]), rest])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval caption`."""
    add_run_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="COCO-style file whose annotations have captions, as vg_test.json")
    add_picture_arguments(parser)
    parser.add_argument("--dataset", choices=sorted(KINDS), help="the data is this: its queries, and the paper's figure beside")


def run_eval_caption(args: argparse.Namespace) -> int:
    """`groma eval caption` with the options of `add_arguments`; returns the exit status."""
    pictures = read_regions(args.data)[: args.limit]
    choice = model_choice(args)
    kind = KINDS.get(args.dataset, "describe")
    settings = {"task": "caption", "data": str(args.data.resolve()), "kind": kind, "seed": args.seed}
    records = run(Describe(args.images, kind, args.seed), pictures, "picture", choice, plan(args), settings)
    texts = [text for record in records for text in record["texts"]]
    regions = [region for picture in pictures for region in picture.regions]
    asked = {"model": choice.bundle().name, "resize": choice.bundle().image.resize, "seed": args.seed, "pictures": len(pictures)}
    document = {**asked, **report(args.dataset or "", texts, [region.references for region in regions])}
    if args.out:
        results = [{"image_id": region.image, "caption": text} for region, text in zip(regions, texts, strict=True)]
        with replacing(args.out / CAPTIONS) as stream:
            stream.write(json.dumps(results).encode())
    return finish(args, document, table(document))
