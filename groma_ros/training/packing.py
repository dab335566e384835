"""Pack many questions behind one shared prefix into a sequence: equivalent to one prompt each for a causal
model, and far cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groma_ros.model.language import IGNORE
from groma_ros.simulation.goal_generator import GOAL_TYPES, SceneGoal, draw_goals
from groma_ros.simulation.more_goals import MORE_TYPES, draw_more_goals
from groma_ros.simulation.other_worlds import WORLDS
from groma_ros.simulation.paraphrases import paraphrase
from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.simulation.vocabulary import COLOUR_NAMES, with_article
from groma_ros.simulation.wording import say
from groma_ros.simulation.world_objects import avoided_among, is_clear
from groma_ros.simulation.worlds import words_of
from groma_ros.tokenization.prompts import PromptTemplate, expand
from groma_ros.tokenization.tokenizer import GromaTokenizer
from groma_ros.training.data_files import FileSample
from groma_ros.training.features import OtherColours, SceneFeatures


@dataclass(frozen=True)
class TrainingQuestion:
    """A question with its answer, as token ids after the prefix."""

    kind: str
    """Kind of the goal, `describe` or `caption`."""
    ids: list[int]
    answer: int
    """Index in `ids` at which the answer starts."""
    refer: int = -1
    """Region that a `describe` question refers to, -1 for none."""
    found: bool = True
    """Every target is among the regions."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch of B sequences of L tokens. Shapes are (B, L) unless stated."""

    ids: Tensor
    labels: Tensor
    positions: Tensor
    source: Tensor
    """Row of the scene's features (image tokens, then regions) that replaces the embedding, or -1."""
    mask: Tensor
    """Additive attention mask (B, 1, L, L)."""
    pointer: Tensor
    """Where the next token names a region: position of that region's feature; -1 elsewhere."""
    questions: list[list[tuple[TrainingQuestion, int]]]
    """Questions of each sequence with their positions in it."""


def phrase(thing: SceneObject) -> str:
    """Describe an object with an article: "a red mug", "an orange box"; without a colour "a person"."""
    return with_article(f"{thing.colour} {thing.kind}".strip())


def called(sample: SceneSample, index: int, rng: np.random.Generator) -> str:
    """Return a description of an object, drawn from its phrases if it has some."""
    if isinstance(sample, FileSample) and index in sample.phrases:
        return sample.phrase(index, rng)
    return phrase(sample.objects[index])


def caption(features: SceneFeatures) -> str:
    """Describe the scene from left to right with its regions: `<p>a red mug</p><roi><r0></roi> ...`."""
    shown = sorted((region, i) for i, region in enumerate(features.region_of) if region >= 0)
    return " ".join(
        f"<p>{phrase(features.sample.objects[i])}</p><roi><r{region}></roi>" for region, i in shown
    )


def _goals(sample: SceneSample, rng: np.random.Generator, count: int, kind: str) -> list[SceneGoal]:
    """Draw goals of one kind: `KINDS` for pictures of a file, `GOAL_TYPES` or `MORE_TYPES` for rendered
    scenes. Empty for a kind of the other source."""
    if isinstance(sample, FileSample):
        return sample.draw(rng, count, kind)
    words = words_of(sample.world)
    if kind in MORE_TYPES:
        goals = draw_more_goals(sample, rng, count, (kind,), words)
    else:
        goals = draw_goals(sample, rng, count, (kind,), words) if count and kind in GOAL_TYPES else []
    if sample.world not in WORLDS:
        return goals
    avoided = avoided_among(sample.objects)
    return [goal for goal in goals if is_clear(goal.text, [item.kind for item in sample.objects], avoided)]


def ask(
    features: SceneFeatures,
    tokenizer: GromaTokenizer,
    template: PromptTemplate,
    share: Mapping[str, float],
    rng: np.random.Generator,
    reworded: float = 0.0,
    said: float = 0.0,
) -> list[TrainingQuestion]:
    """Draw questions about one scene. share, reworded, said: as in `LanguageStage`."""
    questions = []
    counts = {kind: int(n) + int(rng.random() < n % 1) for kind, n in share.items()}
    for kind, count in counts.items():
        if kind in ("describe", "caption"):
            continue
        for goal in _goals(features.sample, rng, count, kind):
            if reworded and rng.random() < reworded:
                goal = paraphrase(goal, rng)
            elif said and rng.random() < said:
                goal = say(goal, rng)
            regions = sorted(int(features.region_of[t]) for t in goal.targets)
            ids = template.goal_ids(tokenizer, "auto", goal.text)
            answer = [tokenizer.region_id(r) for r in regions if r >= 0] + [
                tokenizer.id("</roi>"),
                tokenizer.eos_id,
            ]
            questions.append(
                TrainingQuestion(kind, ids + answer, len(ids), found=all(r >= 0 for r in regions))
            )
    shown = [i for i, region in enumerate(features.region_of) if region >= 0]
    for i in rng.permutation(shown)[: counts.get("describe", 0)]:
        region = int(features.region_of[i])
        opened = expand(tokenizer, template.goal_ids(tokenizer, "describe"), 0, 0, (region,)).ids.tolist()
        if isinstance(features.sample, OtherColours):
            answer, given = _kind_after_any_colour(features.sample.objects[i], tokenizer, rng)
        else:
            answer, given = tokenizer.encode_template(called(features.sample, int(i), rng) + "</s>"), 0
        questions.append(TrainingQuestion("describe", opened + answer, len(opened) + given, refer=region))
    if counts.get("caption") and shown and not isinstance(features.sample, OtherColours):
        ids = template.goal_ids(tokenizer, "caption")
        questions.append(
            TrainingQuestion("caption", ids + tokenizer.encode_template(caption(features) + "</s>"), len(ids))
        )
    return questions


def _kind_after_any_colour(
    thing: SceneObject, tokenizer: GromaTokenizer, rng: np.random.Generator
) -> tuple[list[int], int]:
    """A description with a colour drawn at random, and the number of its first tokens, up to the colour, that
    are no part of the loss. The kind is then learnt whatever the colour."""
    opening = with_article(str(rng.choice(COLOUR_NAMES)))
    answer = tokenizer.encode_template(f"{opening} {thing.kind}</s>")
    alone = tokenizer.encode_template(opening)
    given = next((i for i, pair in enumerate(zip(answer, alone)) if pair[0] != pair[1]), len(alone))
    return answer, given


def pack(
    scenes: list[SceneFeatures],
    asked: list[list[TrainingQuestion]],
    tokenizer: GromaTokenizer,
    template: PromptTemplate,
    device: torch.device,
) -> Packed:
    """Concatenate prefix and questions of every scene; a question attends to the prefix and itself, and its
    positions continue those of the prefix."""
    opened = [
        expand(tokenizer, template.prefix_ids(tokenizer), len(s.image_tokens), len(s.region_tokens))
        for s in scenes
    ]
    length = max(len(o.ids) + sum(len(q.ids) for q in qs) for o, qs in zip(opened, asked, strict=True))
    batch = len(scenes)
    ids = np.zeros((batch, length), np.int64)
    labels = np.full((batch, length), IGNORE, np.int64)
    positions = np.zeros((batch, length), np.int64)
    source = np.full((batch, length), -1, np.int64)
    pointer = np.full((batch, length), -1, np.int64)
    part = np.full((batch, length), -1, np.int64)  # 0: prefix; k: tail k; -1: padding
    feature = tokenizer.id("<refer_feat>")
    kept: list[list[tuple[TrainingQuestion, int]]] = []
    for b, (scene, prefix, questions) in enumerate(zip(scenes, opened, asked, strict=True)):
        at = len(prefix.ids)
        ids[b, :at], positions[b, :at], part[b, :at] = prefix.ids, np.arange(at), 0
        source[b, prefix.image_slots] = np.arange(len(prefix.image_slots))
        first_region = len(scene.image_tokens)
        source[b, prefix.region_slots] = first_region + np.arange(len(prefix.region_slots))
        kept.append([])
        for number, question in enumerate(questions, 1):
            count = len(question.ids)
            where = slice(at, at + count)
            ids[b, where], part[b, where] = question.ids, number
            positions[b, where] = len(prefix.ids) + np.arange(count)
            labels[b, at + question.answer : at + count] = question.ids[question.answer :]
            source[b, where][np.array(question.ids) == feature] = first_region + question.refer
            _point(pointer[b], labels[b], at + question.answer, at + count, prefix.region_slots, tokenizer)
            kept[-1].append((question, at))
            at += count
    on_device = [torch.from_numpy(a).to(device) for a in (ids, labels, positions, source, part, pointer)]
    ids_, labels_, positions_, source_, part_, pointer_ = on_device
    return Packed(ids_, labels_, positions_, source_, _mask(part_), pointer_, kept)


def _point(
    pointer: NDArray[np.int64],
    labels: NDArray[np.int64],
    start: int,
    end: int,
    slots: NDArray[np.int64],
    tokenizer: GromaTokenizer,
) -> None:
    for place in range(start, end):
        region = tokenizer.region_index(int(labels[place]))
        if region is not None:
            pointer[place - 1] = slots[region]


def _mask(part: Tensor) -> Tensor:
    length = part.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=part.device).tril()
    same = (part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)
    seen = causal & same | torch.eye(length, dtype=torch.bool, device=part.device)
    return torch.zeros(seen.shape, device=part.device).masked_fill(~seen, torch.finfo(torch.float32).min)[
        :, None
    ]
