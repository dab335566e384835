"""Stages 2 and 3, which train the language model.

Stage 2 aligns region encoder, bridge and new tokens with the language model on live pictures, with backbone
and proposer frozen; stage 3 trains the language model on cached regions of many more scenes.

There is no pretrained language model of this size, so it is trained in both. A small one does not learn by
itself to find the matching feature and name its region, so one attention head of the third layer is
supervised with the region to attend to.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groma_ros.atomic_write import write_file
from groma_ros.model.groma import Groma
from groma_ros.model.language import IGNORE
from groma_ros.simulation.scenes import SceneSample
from groma_ros.tokenization.prompts import PromptTemplate
from groma_ros.tokenization.tokenizer import GromaTokenizer
from groma_ros.training.attention import FROZEN_ATTENTION
from groma_ros.training.attention import NAME as ATTENTION
from groma_ros.training.augment import relit
from groma_ros.training.config import LanguageStage, TrainConfig
from groma_ros.training.data import Data, corpus, scenes_data
from groma_ros.training.data_files import FileSample
from groma_ros.training.features import (
    FeatureCache,
    SceneFeatures,
    cache_features,
    encode,
    in_other_colours,
    mirrored,
    observe,
    vision_digest,
)
from groma_ros.training.optimiser import Optimiser, Schedule, fast, save_checkpoint
from groma_ros.training.packing import Packed, TrainingQuestion, ask, pack
from groma_ros.training.parallel import TrainingProcess
from groma_ros.training.pool import Pictures
from groma_ros.training.vision_stage import log

POINTING_LAYER, POINTING_HEAD = 2, 0
LOG_EVERY, SAVE_EVERY, MEASURE_EVERY = 10, 40, 400


def embeddings(model: Groma, packed: Packed, scenes: list[SceneFeatures]) -> Tensor:
    """Return the input embeddings (B, L, D) of a packed batch."""
    rows = [torch.cat([s.image_tokens, model.region_slot_embeddings(s.region_tokens)]) for s in scenes]
    most = max(len(r) for r in rows)
    table = torch.stack([F.pad(r, (0, 0, 0, most - len(r))) for r in rows])
    index = packed.source.clamp(min=0)[..., None].expand(-1, -1, table.shape[-1])
    return torch.where((packed.source >= 0)[..., None], table.gather(1, index), model.embed(packed.ids))


def forward(
    model: Groma, packed: Packed, scenes: list[SceneFeatures], pointing: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Logits (B, L, V) and, where it is wanted, the pointing head's attention (B, L, L)."""
    with fast(packed.ids.device):
        out = model.llm.model(
            inputs_embeds=embeddings(model, packed, scenes),
            attention_mask=packed.mask,
            position_ids=packed.positions,
            output_attentions=pointing,
            use_cache=False,
        )
        logits = model.logits(out.last_hidden_state)
    return logits.float(), out.attentions[POINTING_LAYER][:, POINTING_HEAD].float() if pointing else None


def losses(logits: Tensor, attention: Tensor | None, packed: Packed) -> dict[str, Tensor]:
    """Cross-entropy of the answers, and the negative log attention from naming positions to the named feature
    (0 for none)."""
    wanted = packed.labels[:, 1:].flatten()
    answer = F.cross_entropy(logits[:, :-1].flatten(0, 1), wanted, ignore_index=IGNORE, reduction="sum")
    rows, places = (packed.pointer >= 0).nonzero(as_tuple=True)
    if attention is None or not len(rows):
        looked = torch.ones(1, device=logits.device)
    else:
        looked = attention[rows, places, packed.pointer[rows, places]]
    # A batch without any question has a loss of zero instead of a division by zero.
    return {
        "answer": answer / (wanted != IGNORE).sum().clamp(min=1),
        "pointing": -(looked + 1e-6).log().mean(),
    }


def right(logits: Tensor, packed: Packed, tokenizer: GromaTokenizer) -> dict[str, list[bool]]:
    """Return by kind, for every question, whether each answer token is the most likely legal one. A question
    about a missing region is answered wrong."""
    guess = logits.argmax(-1).cpu()
    legal = [
        *range(tokenizer.region_id(0), tokenizer.region_id(0) + tokenizer.max_regions),
        tokenizer.id("</roi>"),
    ]
    named = torch.tensor(legal)[logits[..., legal].argmax(-1).cpu()]
    found: dict[str, list[bool]] = defaultdict(list)
    for b, questions in enumerate(packed.questions):
        for question, at in questions:
            start, end = at + question.answer, at + len(question.ids)
            free = question.kind in ("describe", "caption")
            wanted = packed.labels[b, start:end].cpu()
            said = (guess if free else named)[b, start - 1 : end - 1]
            count = len(wanted) if free else len(wanted) - 1
            found[question.kind].append(question.found and bool((said[:count] == wanted[:count]).all()))
    return found


def load_tokenizer(config: TrainConfig, out: Path, data: Data | None = None) -> GromaTokenizer:
    """Load the vocabulary in `out`, or learn it from the questions about the first pictures."""
    from groma_ros.training.vocabulary import train_bpe

    path = out / "tokenizer.model"
    if not path.exists():
        said = any(stage.said for stage in (config.alignment, config.language, config.joint) if stage)
        data = data or scenes_data(config, out, scenes=250 if said else 1000)
        texts = corpus(data.pictures, config.template, said=said)
        vocabulary = train_bpe(texts, config.network.language.vocab_size)
        write_file(path, vocabulary.to_bytes())
    return GromaTokenizer.load(path, config.network.num_new_token)


class LivePictures:
    """Features computed from pictures at every step, with gradients into region encoder and bridge.

    recoloured, relit: as in `LanguageStage`.
    """

    def __init__(
        self,
        model: Groma,
        pictures: Sequence[Pictures],
        device: torch.device,
        inject: bool = False,
        recoloured: float = 0.0,
        relit: float = 0.0,
    ) -> None:
        self._model, self._pictures, self._device, self._inject = model, pictures, device, inject
        self._recoloured, self._relit = recoloured, relit

    def draw(self, count: int, rng: np.random.Generator) -> list[SceneFeatures]:
        samples = [self._sample(rng) for _ in range(count)]
        return encode(self._model, *observe(self._model, samples, self._device, self._inject), samples)

    def _sample(self, rng: np.random.Generator) -> SceneSample:
        some = self._pictures[int(rng.integers(len(self._pictures)))]
        sample = some.sample(int(rng.integers(len(some.objects))))
        if some.mirrors and rng.random() < 0.5:
            sample = mirrored(sample)
        if self._recoloured and not isinstance(sample, FileSample) and rng.random() < self._recoloured:
            return in_other_colours(sample, rng)
        if self._relit and rng.random() < self._relit:
            return dataclasses.replace(sample, rgb=relit(sample.rgb, rng))
        return sample


class CachedScenes:
    """Cached features, for which no vision network runs."""

    def __init__(self, cache: FeatureCache, device: torch.device) -> None:
        self._cache, self._device = cache, device

    def draw(self, count: int, rng: np.random.Generator) -> list[SceneFeatures]:
        return [self._cache.get(int(rng.integers(len(self._cache))), self._device) for _ in range(count)]


def tie(model: Groma) -> None:
    """Use one table as input and output embeddings of the new tokens during training. A checkpoint contains
    it twice, as in Groma's layout."""
    model.extra_lm_head.weight = model.new_input_embs.weight


def train_language(
    worker: TrainingProcess,
    config: TrainConfig,
    stage: LanguageStage,
    before: str,
    name: str,
    out: Path,
    resume: bool,
    data: Data | None = None,
) -> None:
    """Run stage 2 (stage.live) or 3 from the checkpoint `before`.pt to `name`.pt.

    data: training data (default: the config's scenes, rendered in `out`).
    """
    torch.manual_seed(config.seed)
    model = Groma(config.network).to(worker.device)
    path = out / f"{name}.pt"
    going_on = resume and path.exists()
    saved = torch.load(
        path if going_on else out / f"{before}.pt", map_location=worker.device, weights_only=True
    )
    model.load_state_dict(saved["model"])
    if stage.tied:
        tie(model)
    model.llm.config._attn_implementation = ATTENTION
    model.perceiver.vis_encoder.config._attn_implementation = FROZEN_ATTENTION
    model.perceiver.requires_grad_(False)
    trained: list[nn.Module] = [model.new_input_embs, *([] if stage.tied else [model.extra_lm_head])]
    if stage.language:
        trained.insert(0, model.llm)
    if stage.live:
        trained += [model.region_encoder, model.img_txt_bridge]
    optimiser = Optimiser(trained, Schedule.of(stage), stage.weight_decay, stage.muon)
    first = 0
    if going_on:
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    tokenizer = load_tokenizer(config, out, data)
    data = data or scenes_data(config, out, stage.scenes)
    source: LivePictures | CachedScenes = LivePictures(
        model, data.pictures, worker.device, stage.inject, stage.recoloured, stage.relit
    )
    check = LivePictures(model, data.held_out, worker.device, stage.inject)
    if not stage.live:
        folder = out / f"features_{vision_digest(model)}"
        cache_features(model, data.pictures, folder, worker, data.mirrors, stage.inject)
        worker.wait()
        source = CachedScenes(FeatureCache(data.pictures, folder, data.mirrors), worker.device)
    started = time.time()
    for step in worker.steps(first, stage.steps, name):
        rng = np.random.default_rng((config.seed, worker.rank, step, 7))
        numbers = _step(
            model,
            optimiser,
            source.draw(stage.batch, rng),
            tokenizer,
            config.template,
            stage,
            step,
            worker,
            rng,
        )
        if not worker.speaks:
            continue
        done = step + 1
        if done % LOG_EVERY == 0:
            rate = (done - first) * stage.batch * worker.count / (time.time() - started)
            log(out / f"{name}.jsonl", {"step": done, "scenes_per_second": round(rate, 1), **numbers})
        if done % SAVE_EVERY == 0 or done == stage.steps:
            save_checkpoint(path, model=model.state_dict(), optimiser=optimiser.state_dict(), step=done)
        if data.held_out and (done % MEASURE_EVERY == 0 or done == stage.steps):
            log(
                out / f"{name}.jsonl",
                {"step": done, "held_out": measure(model, check, tokenizer, config.template, stage.share)},
            )


def _step(
    model: Groma,
    optimiser: Optimiser,
    scenes: list[SceneFeatures],
    tokenizer: GromaTokenizer,
    template: PromptTemplate,
    stage: LanguageStage,
    step: int,
    worker: TrainingProcess,
    rng: np.random.Generator,
) -> dict[str, float]:
    asked = [
        [q for q in ask(s, tokenizer, template, stage.share, rng, stage.reworded, stage.said) if q.found]
        for s in scenes
    ]
    packed = pack(scenes, asked, tokenizer, template, worker.device)
    terms = losses(*forward(model, packed, scenes, stage.pointing > 0), packed)
    (terms["answer"] + stage.pointing * terms["pointing"]).backward()
    worker.average_gradients(optimiser.parameters)
    norm = optimiser.step(step)
    return {"norm": norm, **{name: float(value.detach()) for name, value in terms.items()}}


@torch.no_grad()
def measure(
    model: Groma,
    source: LivePictures,
    tokenizer: GromaTokenizer,
    template: PromptTemplate,
    share: Mapping[str, float],
    batches: int = 6,
) -> dict[str, float]:
    """Measure the share of questions answered exactly on held-out pictures, for the kinds in `share`, with
    teacher forcing."""
    rng = np.random.default_rng(99)
    found: dict[str, list[bool]] = defaultdict(list)
    for _ in range(batches):
        scenes = source.draw(16, rng)
        asked: list[list[TrainingQuestion]] = [
            ask(s, tokenizer, template, {kind: 2 for kind in share}, rng) for s in scenes
        ]
        packed = pack(scenes, asked, tokenizer, template, scenes[0].image_tokens.device)
        logits, _ = forward(model, packed, scenes)
        for kind, answers in right(logits, packed, tokenizer).items():
            found[kind] += answers
    table = {kind: float(np.mean(answers)) for kind, answers in found.items()}
    goals = [a for kind, answers in found.items() if kind not in ("describe", "caption") for a in answers]
    return {**{k: round(v, 3) for k, v in table.items()}, "all": round(float(np.mean(goals)), 3)}
