"""Results of the paper's 7B model, for comparison with measurements on the same data.

Ma et al., Groma: Localized Visual Tokenization for Grounding Multimodal Large Language Models, ECCV 2024
(arXiv 2404.13013): tables 1 to 3 and the repository's README. Shares in percent; CIDEr times 100.
"""

from __future__ import annotations

REC_ACCURACY = {
    ("refcoco", "val"): 89.53,
    ("refcoco", "testA"): 92.09,
    ("refcoco", "testB"): 86.26,
    ("refcoco+", "val"): 83.90,
    ("refcoco+", "testA"): 88.91,
    ("refcoco+", "testB"): 78.05,
    ("refcocog", "val"): 86.37,
    ("refcocog", "test"): 87.01,
}
REC_EXPRESSIONS = {
    ("refcoco", "val"): 10834,
    ("refcoco", "testA"): 5657,
    ("refcoco", "testB"): 5095,
    ("refcoco+", "val"): 10758,
    ("refcoco+", "testA"): 5726,
    ("refcoco+", "testB"): 4889,
    ("refcocog", "val"): 4896,
    ("refcocog", "test"): 9602,
}
"""Sizes of the published splits, by which they are recognised; RefCOCO and RefCOCO+ split by UNC, RefCOCOg by
UMD."""
LVIS_GROUND = {"AR": 28.8, "AR50": 37.9, "AR75": 30.3, "ARs": 8.7, "ARm": 35.6, "ARl": 64.3}
CAPTION_CIDER = {"vg": 158.4, "refcocog": 107.3}


def rec_accuracy(name: str, split: str, expressions: int) -> float | None:
    """The paper's accuracy on a split of a data set; None for other data."""
    whole = REC_EXPRESSIONS.get((name, split), 0)
    return REC_ACCURACY[name, split] if whole and abs(expressions - whole) <= whole / 100 else None


def beside(measured: float | None, paper: float | None) -> dict[str, float | None]:
    """Format a percentage with the paper's value and the difference, where both exist."""
    apart = None if measured is None or paper is None else round(measured - paper, 2)
    return {"measured": None if measured is None else round(measured, 2), "paper": paper, "difference": apart}


def row(name: str, entry: dict[str, float | None], tail: str = "") -> str:
    """Format a table row: name, measured, paper, difference."""

    def cell(value: float | None, sign: str = "") -> str:
        return f"{'-' if value is None else format(value, sign + '.2f'):>10}"

    figures = cell(entry["measured"]) + cell(entry["paper"]) + cell(entry["difference"], "+")
    return f"{name:<24}{figures}{tail}".rstrip()


HEAD = f"{'':<24}{'measured':>10}{'paper':>10}{'apart':>10}"
