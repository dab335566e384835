"""`groma eval caption`: descriptions of given regions, on Visual Genome, RefCOCOg or any COCO-style file with
captions."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.coco_files import Key, corners, find_picture, read_coco, refuse
from groma_ros.errors import quoted
from groma_ros.evaluation.published_figures import CAPTION_CIDER, HEAD, beside, row
from groma_ros.evaluation.statistics import figure, rounded
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_annotated
from groma_ros.types import Frame

_GRAMS = 4
_SIGMA = 6.0  # standard deviation of the length penalty
_BETA = 1.2  # weight of recall in ROUGE-L
_WORD = re.compile(
    r"n't\b|'(?:s|re|ve|ll|d|m)\b|[a-z0-9]+(?:[-.][a-z0-9]+)*?(?=n't\b)|[a-z0-9]+(?:[-.][a-z0-9]+)*"
)

Words = tuple[str, ...]
Vector = list[dict[Words, float]]


def words(text: str) -> Words:
    """Lower-case words without punctuation, contractions split off, as in the tokenization of the Penn
    Treebank."""
    return tuple(_WORD.findall(text.lower()))


def exact(text: str, references: Sequence[str]) -> bool:
    """Whether the words equal those of one of the references."""
    return words(text) in {words(reference) for reference in references}


def rouge_l(text: str, references: Sequence[str]) -> float:
    """ROUGE-L of a text against several references: F-measure of the best precision and best recall of the
    longest common subsequence.

    Lin, ROUGE: a package for automatic evaluation of summaries, 2004; the weight of recall is that of the
    COCO caption evaluation.
    """
    said = words(text)
    common = [(_common(said, own), len(own)) for own in map(words, references)]
    precision = max((length / len(said) for length, _ in common), default=0.0) if said else 0.0
    recall = max((length / count for length, count in common if count), default=0.0)
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common(a: Words, b: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for place, other in enumerate(b, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def cider(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of a set of texts: mean over texts of the scores against their references, times 10 as defined
    by its authors.

    Cosine similarity of n-grams of one to four words, weighted by inverse document frequency over the
    references, counts clipped to the reference's, times a Gaussian of the difference in length. Vedantam et
    al., CIDEr, CVPR 2015; "CIDEr" in the COCO caption evaluation is this variant.
    """
    cut = [[_grams(words(line)) for line in lines] for lines in references]
    held = Counter(gram for lines in cut for gram in set().union(*lines))
    items = math.log(max(len(cut), 1))
    scores = []
    for text, lines in zip(texts, cut, strict=True):
        said = _grams(words(text))
        shares = [_likeness(said, line, held, items) for line in lines]
        scores.append(10 * sum(shares) / len(shares) if shares else 0.0)
    return scores


def _grams(line: Words) -> Counter[Words]:
    return Counter(
        line[start : start + size] for size in range(1, _GRAMS + 1) for start in range(len(line) - size + 1)
    )


def _likeness(said: Counter[Words], line: Counter[Words], held: Counter[Words], items: float) -> float:
    ours, theirs = _vector(said, held, items), _vector(line, held, items)
    # The authors' code uses the number of bigrams as the length.
    apart = sum(count for gram, count in said.items() if len(gram) == 2) - sum(
        count for gram, count in line.items() if len(gram) == 2
    )
    cosines = []
    for own, other in zip(ours, theirs, strict=True):
        product = sum(min(value, other[gram]) * other[gram] for gram, value in own.items() if gram in other)
        lengths = _length(own) * _length(other)
        cosines.append(product / lengths if lengths else 0.0)
    return math.exp(-(apart**2) / (2 * _SIGMA**2)) * sum(cosines) / _GRAMS


def _vector(grams: Counter[Words], held: Counter[Words], items: float) -> Vector:
    vector: Vector = [{} for _ in range(_GRAMS)]
    for gram, count in grams.items():
        vector[len(gram) - 1][gram] = count * (items - math.log(max(1, held[gram])))
    return vector


def _length(vector: dict[Words, float]) -> float:
    return math.sqrt(sum(value**2 for value in vector.values()))


CAPTIONS = "captions.json"
KINDS = {"vg": "describe", "refcocog": "describe_in_detail"}
"""Queries of the original evaluation, by data set."""
MAX_TOKENS = 100
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class DescribedRegion:
    """A region of a picture with reference captions."""

    image: Key
    """Id of the picture in the file."""
    box: Box
    """xyxy pixels."""
    references: tuple[str, ...]
    """Captions written by people."""


@dataclass(frozen=True)
class DescribedPicture:
    """A picture, under its name in the annotations, with its regions."""

    name: str
    regions: tuple[DescribedRegion, ...]


@dataclass(frozen=True)
class Describe:
    """Describe the regions of a picture, each added to the proposals separately, as in the original."""

    images: Path
    kind: str
    seed: int

    def __call__(self, grounder: Grounder, picture: DescribedPicture) -> Record:
        grounder.max_answer_tokens = MAX_TOKENS
        scene = grounder.perceive(Frame(read_annotated(find_picture(self.images, picture.name))))
        count = grounder.wordings(self.kind)
        texts = []
        for region in picture.regions:
            own, (place,) = grounder.refer(scene, np.array([region.box], np.float32))
            wording = random.Random(f"{self.seed} {region.image} {region.box}").randrange(max(1, count))
            (text,) = grounder.describe(own, [place], self.kind, [wording])
            texts.append(" ".join(text.split()).strip("'").strip())
        return {"texts": texts}


def read_regions(path: Path) -> list[DescribedPicture]:
    """Read the pictures of a COCO-style file whose annotations have captions; equal boxes of a picture become
    one region with several references.

    Raises ValueError for another file.
    """
    document = read_coco(path, "images", "annotations")
    names = {entry["id"]: str(entry.get("file_name") or entry["coco_url"]) for entry in document["images"]}
    said: dict[tuple[Key, Box], list[str]] = {}
    for place, entry in enumerate(document["annotations"]):
        if entry["ignore"] or min(entry["bbox"][2:]) < 1:
            continue
        words_of = entry.get("caption")
        if not isinstance(words_of, str):
            refuse(
                path, "annotations", place, entry, f"has the caption {quoted(words_of)} and must have a text"
            )
        said.setdefault((entry["image_id"], corners(entry["bbox"])), []).append(words_of)
    by_name: dict[str, list[DescribedRegion]] = {}
    for (image, box), lines in said.items():
        by_name.setdefault(names[image], []).append(DescribedRegion(image, box, tuple(lines)))
    if not by_name:
        raise ValueError(f"{path} has no annotations with a caption, so there is nothing to describe.")
    return [DescribedPicture(name, tuple(regions)) for name, regions in by_name.items()]


def report(name: str, texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Scores of descriptions against the references. CIDEr is times 100, as in papers."""
    alike = 100 * float(np.mean(cider(texts, references))) if texts else None
    rouge = [rouge_l(*pair) for pair in zip(texts, references, strict=True)]
    return {
        "regions": len(texts),
        "cider": beside(alike, CAPTION_CIDER.get(name)),
        "rouge_l": rounded(float(np.mean(rouge))) if texts else None,
        "exact": rounded(float(np.mean([exact(*pair) for pair in zip(texts, references, strict=True)])))
        if texts
        else None,
    }


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    head = f"{document['model']}: {document['regions']} regions in {document['pictures']} pictures"
    rest = (
        f"ROUGE-L {figure(document['rouge_l'])}   exactly a reference {figure(document['exact'])}   "
        "(METEOR: not computed)"
    )
    return "\n".join([head, HEAD, row("CIDEr x 100", document["cider"]), rest])
