"""Answers in words: which regions they mention, with what certainty, and where in the text."""

from __future__ import annotations

from groma_ros.grounding.answers import Written
from groma_ros.prompts import Answer
from groma_ros.tokenizer import GromaTokenizer
from groma_ros.types import TextSpan


def mention_scores(tokenizer: GromaTokenizer, written: Written) -> dict[int, float]:
    """For every region named in a free answer the highest probability with which it was named."""
    scores: dict[int, float] = {}
    for token, chance in zip(written.ids, written.chances, strict=True):
        region = tokenizer.region_index(token)
        if region is not None:
            scores[region] = max(chance, scores.get(region, 0.0))
    return scores


def text_spans(answer: Answer) -> tuple[TextSpan, ...]:
    """The answer's phrases with the regions each one points at."""
    return tuple(TextSpan(answer.phrase(span), span.start, span.end, span.regions) for span in answer.spans)
