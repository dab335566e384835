"""Answer goals about a scene: one prefix per scene, one branch per goal, answers read from region tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.grounding.calibration import NEEDS_NULLS, PROBE, Calibration, ProbeBatch, probe_tokens
from groma_ros.grounding.conversation import Conversation, Turn, mention_scores, referring, text_spans
from groma_ros.grounding.decoding import RegionAnswer, RegionTokens, Written, choose_regions, write
from groma_ros.grounding.familiarity import Familiarity
from groma_ros.grounding.goals import as_goals, check_goal
from groma_ros.runtime.bundle import TOKENIZER, Bundle, BundleError
from groma_ros.runtime.interfaces import LanguageModel, VisionTokenizer
from groma_ros.runtime.load import Runtime
from groma_ros.runtime.model_paths import DEFAULT_MODEL, find_model
from groma_ros.runtime.options import RuntimeChoice, RuntimeOptions
from groma_ros.tokenization.prompts import PLACEHOLDERS, REGION_KINDS, PromptTemplate, expand, parse_answer
from groma_ros.tokenization.tokenizer import GromaTokenizer
from groma_ros.types import (
    Detection,
    FloatArray,
    Frame,
    Goal,
    Grounding,
    GroundingStatus,
    Scene,
    TextSpan,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

MIN_SIDE = 2
MAX_SIDE = 16384


def check_image(rgb: NDArray[Any]) -> None:
    """Raise ValueError unless `rgb` is a uint8 HxWx3 image with sides of 2 to 16384 pixels.

    A black image is valid: nothing is visible, so every goal is absent.
    """
    if rgb.size == 0:
        raise ValueError(f"The image is empty (shape {rgb.shape}).")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"An image must be height x width x 3 (RGB), not of shape {rgb.shape}.")
    if rgb.dtype != np.uint8:
        raise ValueError(f"An image must hold uint8 values, not {rgb.dtype}; scale it to 0..255 first.")
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"The image of {width}x{height} pixels is too small; each side needs {MIN_SIDE} or more."
        )
    if max(height, width) > MAX_SIDE:
        raise ValueError(f"The image of {width}x{height} pixels is too large; no side may exceed {MAX_SIDE}.")


def perceive(vision: VisionTokenizer, frame: Frame) -> Scene:
    """Find and encode the regions of a frame. Raises ValueError for an image that cannot be used."""
    check_image(frame.rgb)
    return vision.encode(frame)


MIN_PRESENCE = 0.5
MIN_MARGIN = 0.0
MAX_GOAL_TOKENS = 128
MAX_ANSWER_TOKENS = 256
MIN_ANSWER_TOKENS = 64
"""Positions that earlier turns of a conversation must leave for an answer."""
_GOAL_CACHE_SIZE = 1024  # goals whose token ids are cached


class Grounder:
    """Answers goals about images.

    `min_presence` (0 to 1): a goal with a lower presence is absent and gets no detection. `min_margin` (0 to
    1): if one object is wanted and the margin to the runner-up is lower, the answer is ambiguous.
    `max_answer_tokens`: limit for answers in words. `ground_chat`: ask chat to refer to regions, if the model
    can. These may be changed between calls. `max_goal_tokens`: longer goals are refused. `runtime`: backend
    and device that run the model, and why; None if unknown. `familiarity`: statistics of the training data;
    None if the bundle has none.

    The last scene's prefix is cached, so `ground`, `answers`, `describe` and `converse` are for one thread at
    a time; another may call `perceive` meanwhile, and `check` and `can` may be called from any thread.
    """

    def __init__(
        self,
        vision: VisionTokenizer,
        language: LanguageModel,
        tokenizer: GromaTokenizer,
        template: PromptTemplate,
        calibration: Calibration | None = None,
        min_presence: float = MIN_PRESENCE,
        max_goal_tokens: int = MAX_GOAL_TOKENS,
        runtime: Runtime | None = None,
        familiarity: Familiarity | None = None,
    ) -> None:
        self._vision = vision
        self._language = language
        self._tokenizer = tokenizer
        self._template = template
        self._calibration = calibration or Calibration()
        if not 0 <= min_presence <= 1:
            raise ValueError(f"min_presence is {min_presence}; it must be between 0 and 1.")
        self.min_presence = min_presence
        self.min_margin = MIN_MARGIN
        self.max_answer_tokens = MAX_ANSWER_TOKENS
        self.ground_chat = True
        self.runtime = runtime
        self.familiarity = familiarity
        if PROBE in self._calibration.signals and not self.can(PROBE):
            raise ValueError(
                f"The calibration reads the signal {PROBE!r}, but the prompt template has no such query."
            )
        self._max_goal_tokens = max_goal_tokens
        self._prefix_ids = template.prefix_ids(tokenizer)
        # Standing goals are asked on every frame, so their token ids are cached. Thread-safe.
        self._encode_goal = lru_cache(_GOAL_CACHE_SIZE)(
            lambda *asked: tuple(template.goal_ids(tokenizer, *asked))
        )
        self._cached_prefix: tuple[Scene, Any, int] | None = None
        self._placeholders = {tokenizer.id(name) for name in PLACEHOLDERS}
        self._vision_lock = threading.Lock()

    @classmethod
    def load(
        cls,
        model: str | Path | Bundle = DEFAULT_MODEL,
        options: RuntimeOptions | None = None,
        *,
        min_presence: float | None = None,
        calibration: Calibration | None = None,
        **named: Unpack[RuntimeChoice],
    ) -> Self:
        """Load a model.

        model: its name (such as groma-tiny), its folder, or a loaded bundle; options: runtime options; the
        keywords backend, device, precision and threads override its fields; min_presence: None for
        `MIN_PRESENCE`; calibration: replaces the manifest's. The chosen backend and the reason are logged.

        Raises ValueError for a model that cannot be found, a bundle that cannot be used (BundleError), a
        presence outside 0 to 1, and an unavailable backend, device or precision.
        """
        from groma_ros.runtime.load import load_runtime

        bundle = model if isinstance(model, Bundle) else Bundle.load(find_model(model))
        try:
            runtime = load_runtime(bundle, replace(options or RuntimeOptions(), **named))
        except ModuleNotFoundError as error:
            raise ValueError(
                f"The model needs the Python package {error.name}, which is not installed; install it "
                "with pip, or with `make setup` in a checkout."
            ) from error
        language = runtime.language
        try:
            tokenizer = GromaTokenizer.load(
                bundle.file(TOKENIZER), language.vocabulary - language.base_vocabulary
            )
            template = PromptTemplate.from_dict(bundle.prompt)
            calibration = calibration or Calibration.from_manifest(bundle.calibration, runtime.precision)
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleError(f"The bundle {bundle.name} cannot be used: {error}") from error
        if tokenizer.base != language.base_vocabulary:
            raise BundleError(
                f"The tokenizer of {bundle.name} has {tokenizer.base} pieces, its network config "
                f"{language.base_vocabulary}."
            )
        least = MIN_PRESENCE if min_presence is None else min_presence
        familiarity = Familiarity.load(bundle)
        if familiarity is not None and familiarity.features != language.width:
            raise BundleError(
                f"The familiarity statistics of {bundle.name} have {familiarity.features} features, its "
                f"image tokens {language.width}: they belong to another model; fetch the bundle again."
            )
        return cls(
            runtime.vision,
            language,
            tokenizer,
            template,
            calibration,
            least,
            runtime=runtime,
            familiarity=familiarity,
        )

    def perceive(self, frame: Frame | NDArray[Any]) -> Scene:
        """Find and encode the regions of a frame, or of uint8 HxWx3 RGB. Raises ValueError for an image that
        cannot be used."""
        with self._vision_lock:
            return perceive(self._vision, frame if isinstance(frame, Frame) else Frame(np.asarray(frame)))

    def check(self, goal: Goal) -> None:
        """Raise ValueError for a goal that this model cannot answer."""
        check_goal(goal)
        self._goal_ids(goal)

    def ground(
        self, view: NDArray[Any] | Frame | Scene, goals: str | Goal | Sequence[str | Goal]
    ) -> list[Grounding]:
        """Answer every goal about one image, in order.

        view: uint8 HxWx3 RGB, a frame, or a scene that was already perceived. Goals of kind auto, one and all
        get detections. A goal of kind describe gets text about its regions, or about the whole scene if it
        has none; kind chat gets text whose mentioned regions are its detections. Raises ValueError, before
        any work on the image, if a goal cannot be answered.
        """
        wanted = as_goals(goals)
        for goal in wanted:
            self.check(goal)
        scene = view if isinstance(view, Scene) else self.perceive(view)
        found: dict[int, Grounding] = {}
        pointing = [
            i for i, goal in enumerate(wanted) if goal.kind in REGION_KINDS and not _has_regions(goal)
        ]
        for index, answer in zip(pointing, self.answers(scene, [wanted[i] for i in pointing]), strict=True):
            found[index] = self._region_grounding(wanted[index], scene, answer)
        for index, goal in enumerate(wanted):
            if index not in found:
                found[index] = self._ground_alone(scene, goal)
        return [found[index] for index in range(len(wanted))]

    def answers(
        self, scene: Scene, goals: Sequence[Goal], wordings: Sequence[int] | None = None
    ) -> list[RegionAnswer]:
        """Constrained answers to goals of kind auto, one or all about a scene, in one batch; goal.regions are
        ignored.

        wordings: index of the template's wording for each goal, default 0.
        """
        if not goals:
            return []
        tokens = RegionTokens(self._tokenizer.region_id(0), len(scene.boxes), self._tokenizer.id("</roi>"))
        asked = zip(goals, wordings or [0] * len(goals), strict=True)
        tails = [self._embed(self._goal_ids(goal, wording), scene) for goal, wording in asked]
        prompts = self._presence_prompts(scene, goals)
        beside = [] if prompts is None else [*prompts.nulls, *prompts.probes]
        prefix = self._prefix(scene, max(map(len, [*tails, *beside])) + len(scene.boxes) + 1)
        single = [goal.kind == "one" for goal in goals]
        return choose_regions(
            self._language, prefix, tails, single, tokens, self._calibration, self.min_presence, prompts
        )

    def _presence_prompts(self, scene: Scene, goals: Sequence[Goal]) -> ProbeBatch | None:
        """Prompts for the presence signals of the goals; None for a model that was trained to answer "nothing
        fits"."""
        read = set() if self._calibration.answers_none else set(self._calibration.signals)
        if not read:
            return None
        nulls = [Goal(text) for text in self._calibration.null_goals] if NEEDS_NULLS & read else []
        tokens = probe_tokens(self._tokenizer, self._template) if PROBE in read else None
        asked = (
            []
            if tokens is None
            else [self._template.goal_ids(self._tokenizer, PROBE, goal.text) for goal in goals]
        )
        lead = [] if tokens is None else list(tokens.lead)
        return ProbeBatch(
            [self._embed(self._goal_ids(goal), scene) for goal in nulls],
            [self._embed([*ids, *lead], scene) for ids in asked],
            tokens,
        )

    def _ground_alone(self, scene: Scene, goal: Goal) -> Grounding:
        """Answer a goal that needs a scene of its own, with the user's regions added to the proposals, or an
        answer in words."""
        if goal.kind == "chat":
            return self.converse(Conversation.about(scene), goal)[0]
        own, referred = (
            (scene, []) if goal.regions is None or not len(goal.regions) else self.refer(scene, goal.regions)
        )
        if goal.kind in REGION_KINDS:
            return self._region_grounding(goal, own, self.answers(own, [goal])[0])
        if referred:
            return self._describe(own, goal, referred)
        return self._text_grounding(goal, own, self._write(own, [self._goal_ids(goal)])[0])

    def converse(self, conversation: Conversation, goal: Goal) -> tuple[Grounding, Conversation]:
        """Answer a goal of kind chat within a conversation. Returns the answer and the extended conversation.

        Earlier turns are part of the prompt; if the model's context is too short, the oldest are dropped
        permanently. `{1}` in the goal's text refers to its first region, see `conversation.referring`. Raises
        ValueError for a goal that cannot be answered.
        """
        self.check(goal)
        referred: tuple[int, ...] = ()
        if goal.regions is not None and len(goal.regions):
            conversation, own = conversation.joined(goal.regions, self.refer, self._tokenizer)
            referred = tuple(own[index] for index in referring(goal.text, len(own))[1])
        scene, asked = conversation.scene, self._goal_ids(goal)
        self._prefix(scene, len(asked) + 1)
        conversation = conversation.fitting(
            self._language.context - self._length() - len(asked) - MIN_ANSWER_TOKENS
        )
        ids = [*(token for turn in conversation.turns for token in turn.ids), *asked]
        shown = [*(region for turn in conversation.turns for region in turn.referred), *referred]
        written = self._write(scene, [ids], [shown])[0]
        # Remove placeholders written by the model: the next prompt would expand them.
        said = [token for token in written.ids if token not in self._placeholders]
        return self._text_grounding(goal, scene, written), conversation.with_turn(
            Turn((*asked, *said, self._tokenizer.eos_id), referred)
        )

    def _region_grounding(self, goal: Goal, scene: Scene, answer: RegionAnswer) -> Grounding:
        """Convert a constrained answer to a grounding with boxes and status."""
        pairs = zip(answer.regions, answer.scores, strict=True)
        detections = _above(tuple(_detection(scene, region, score) for region, score in pairs), goal)
        if not detections:
            return Grounding(goal, (), answer.present, answer.margin, status="absent")
        alternatives: tuple[Detection, ...] = ()
        if len(answer.regions) == 1 and goal.kind != "all" and answer.margin < self.min_margin:
            alternatives = _above(self._runners_up(scene, answer), goal)
        status: GroundingStatus = "ambiguous" if alternatives else "present"
        return Grounding(
            goal, detections, answer.present, answer.margin, status=status, alternatives=alternatives
        )

    def _runners_up(self, scene: Scene, answer: RegionAnswer) -> tuple[Detection, ...]:
        """The regions whose probability is less than `min_margin` below that of the best one, best first."""
        best = answer.regions[0]
        near = np.flatnonzero(answer.first > answer.first[best] - self.min_margin)
        order = sorted(
            (int(index) for index in near if index != best), key=lambda index: -answer.first[index]
        )
        return tuple(
            _detection(scene, index, float(self._calibration.score(answer.first[index]))) for index in order
        )

    def _text_grounding(self, goal: Goal, scene: Scene, written: Written) -> Grounding:
        """Convert an answer in words to a grounding with the regions it mentions."""
        answer = parse_answer(self._tokenizer, written.ids, len(scene.boxes))
        scores = mention_scores(self._tokenizer, written)
        detections = tuple(_detection(scene, region, scores[region]) for region in answer.regions)
        return Grounding(goal, _above(detections, goal), 1.0, 0.0, answer.text, text_spans(answer))

    def describe(
        self,
        scene: Scene,
        regions: Sequence[int],
        kind: str = "describe",
        wordings: Sequence[int] | None = None,
    ) -> list[str]:
        """Describe regions of a scene, given by index, in one batch. kind, wordings: query kind, and index of
        its wording for each region, in the prompt template."""
        asked = [
            self._template.goal_ids(self._tokenizer, kind, wording=wording)
            for wording in wordings or [0] * len(regions)
        ]
        written = self._write(scene, asked, [[region] for region in regions])
        return [parse_answer(self._tokenizer, line.ids, len(scene.boxes)).text for line in written]

    def refer(self, scene: Scene, boxes: FloatArray) -> tuple[Scene, list[int]]:
        """Add the user's boxes (Mx4 xyxy, camera pixels) to the regions of a scene. Returns the scene and the
        region for each box. Raises ValueError for a box outside the image."""
        for x1, y1, x2, y2 in boxes:
            if not (x1 < scene.width and y1 < scene.height and x2 > 0 and y2 > 0):
                raise ValueError(
                    f"The region from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) lies outside the image of "
                    f"{scene.width}x{scene.height} pixels."
                )
        with self._vision_lock:
            own = self._vision.refer(scene, np.asarray(boxes, np.float32))
        return own, [int(best) for best in box_iou(np.asarray(boxes), own.boxes).argmax(1)]

    def can(self, kind: str) -> bool:
        """Whether the model's prompt template has a wording for a kind of goal."""
        return self.wordings(kind) > 0

    def wordings(self, kind: str) -> int:
        """Number of wordings the model's prompt template has for a kind of goal."""
        return len(self._template.queries.get(kind, ()))

    def _describe(self, scene: Scene, goal: Goal, regions: Sequence[int]) -> Grounding:
        """One line of text for each region of the goal, with the regions as detections."""
        detections = tuple(_detection(scene, region, float(scene.objectness[region])) for region in regions)
        lines = self.describe(scene, regions)
        ends = [int(end) for end in np.cumsum([len(line) + 1 for line in lines]) - 1]
        pairs = zip(lines, ends, regions, strict=True)
        spans = tuple(TextSpan(line, end - len(line), end, (region,)) for line, end, region in pairs)
        return Grounding(goal, detections, 1.0, 0.0, "\n".join(lines), spans)

    def _write(
        self, scene: Scene, ids: Sequence[Sequence[int]], referred: Sequence[Sequence[int]] | None = None
    ) -> list[Written]:
        tails = [
            self._embed(line, scene, shown)
            for line, shown in zip(ids, referred or [()] * len(ids), strict=True)
        ]
        prefix = self._prefix(scene, max(map(len, tails)) + 1)
        limit = min(self.max_answer_tokens, self._language.context - self._length() - max(map(len, tails)))
        missing = range(self._tokenizer.region_id(0) + len(scene.boxes), len(self._tokenizer))
        return write(self._language, prefix, tails, self._tokenizer.eos_id, limit, missing)

    def _goal_ids(self, goal: Goal, wording: int = 0) -> tuple[int, ...]:
        kind: str = goal.kind
        if kind == "describe" and not _has_regions(goal):
            kind = "caption"
        if kind == "chat" and self.ground_chat and self.can("grounded_chat"):
            kind = "grounded_chat"
        words = (
            referring(goal.text, 0 if goal.regions is None else len(goal.regions))[0]
            if goal.kind == "chat"
            else goal.text
        )
        ids = self._encode_goal(kind, words, wording)
        if len(ids) > self._max_goal_tokens:
            raise ValueError(
                f"The goal {goal.text[:40]!r} has {len(ids)} tokens; the limit is {self._max_goal_tokens}. "
                "Shorten the goal."
            )
        return ids

    def _embed(self, ids: Sequence[int], scene: Scene, referred: Sequence[int] = ()) -> FloatArray:
        """Embeddings (L, D) of ids, with the scene's image tokens, region tokens and referred features in
        their slots."""
        if not referred and self._placeholders.isdisjoint(ids):
            return self._language.embed(np.array(ids, np.int64))
        opened = expand(self._tokenizer, ids, len(scene.image_tokens), len(scene.boxes), referred)
        embeddings = np.array(self._language.embed(opened.ids))
        if len(opened.image_slots):
            embeddings[opened.image_slots] = scene.image_tokens
        if len(opened.region_slots):
            embeddings[opened.region_slots] = scene.region_tokens
        embeddings[opened.feature_slots] = scene.region_tokens[opened.feature_regions]
        return embeddings

    def _prefix(self, scene: Scene, room: int) -> Any:
        """The prefilled prefix of a scene, cached until the scene changes. Raises ValueError if fewer than
        `room` positions are left."""
        if self._cached_prefix is None or self._cached_prefix[0] is not scene:
            if self._cached_prefix is not None:
                self._language.release(self._cached_prefix[1])
                self._cached_prefix = None
            embeddings = self._embed(self._prefix_ids, scene)
            self._cached_prefix = (scene, self._language.prefill(embeddings), len(embeddings))
        if self._length() + room > self._language.context:
            raise ValueError(
                f"The scene and the goal need {self._length() + room} positions and this model has "
                f"{self._language.context}: shorten the goal."
            )
        return self._cached_prefix[1]

    def _length(self) -> int:
        return self._cached_prefix[2] if self._cached_prefix is not None else 0


def _has_regions(goal: Goal) -> bool:
    return goal.regions is not None and len(goal.regions) > 0


def _detection(scene: Scene, region: int, score: float) -> Detection:
    x1, y1, x2, y2 = (float(value) for value in scene.boxes[region])
    return Detection((x1, y1, x2, y2), score, region)


def _above(detections: tuple[Detection, ...], goal: Goal) -> tuple[Detection, ...]:
    return tuple(item for item in detections if item.score >= goal.min_score)
