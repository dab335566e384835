"""How alike a description and its references are: exact equality, CIDEr and ROUGE-L, over words cut as the field cuts them.

METEOR, which some papers report too, needs a word list with synonyms and paraphrases, and is left to its own tool.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_GRAMS = 4
_SIGMA = 6.0  # of the length penalty
_BETA = 1.2  # ROUGE-L leans to recall by this
_WORD = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|[a-z0-9]+(?:[-.][a-z0-9]+)*?(?=n't\b)|[a-z0-9]+(?:[-.][a-z0-9]+)*")

Words = tuple[str, ...]
Vector = list[dict[Words, float]]


def words(text: str) -> Words:
    """Lower-case words without punctuation, contractions split off: the Penn Treebank's cut as far as captions need it."""
    return tuple(_WORD.findall(text.lower()))


def exact(text: str, references: Sequence[str]) -> bool:
    """Whether the words equal those of one of the references."""
    return words(text) in {words(reference) for reference in references}


def rouge_l(text: str, references: Sequence[str]) -> float:
    """ROUGE-L of a text against several references: F of the best precision and the best recall of the longest common subsequence.

    Lin, ROUGE: a package for automatic evaluation of summaries, 2004; the weight of recall is that of the COCO caption evaluation.
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
    """CIDEr-D of each text against its references, times 10 as its authors scale it; the mean is the score of the set.

    Cosines of n-grams of one to four words, weighed by how few items' references hold them, counts clipped to the reference's, times a
    Gaussian of the difference in length. Vedantam et al., CIDEr, CVPR 2015; "CIDEr" in the COCO caption evaluation is this variant.
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
    return Counter(line[start : start + size] for size in range(1, _GRAMS + 1) for start in range(len(line) - size + 1))


def _likeness(said: Counter[Words], line: Counter[Words], held: Counter[Words], items: float) -> float:
    ours, theirs = _vector(said, held, items), _vector(line, held, items)
    # The authors' code takes the number of pairs of words for the length.
    apart = sum(count for gram, count in said.items() if len(gram) == 2) - sum(count for gram, count in line.items() if len(gram) == 2)
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
