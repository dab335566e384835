"""The network cut into the recorded stages: every stage is a function from named tensors to named tensors.

Run in sequence on their own results, the stages form the whole network; run on recorded tensors, each stands
alone. A stage whose inputs are missing raises KeyError. Names are those of the recorded sets
(`tests/data/golden/README.md`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from groma_ros.model.backbone import merge_tokens, to_map
from groma_ros.model.deformable import Shapes
from groma_ros.model.detection_loss import Source, detection_loss, to_corners
from groma_ros.model.groma import Groma
from groma_ros.model.language import IGNORE, expand
from groma_ros.model.proposer import EncoderOutput, Proposals, cell_centres
from groma_ros.model.reference import ReferenceRun, Values
from groma_ros.proposal_selection import USER_BOX_SCORE, Selection, SelectionRule, select_regions

Stage = Callable[[Groma, ReferenceRun, Values], Values]
INTERNAL = ("fused", "expanded_labels")  # intermediate results that no recorded set contains
SOURCES: dict[str, Source] = {"coco": "coco", "sa1b": "sa1b"}
INFINITE = 1e30  # representation of +inf in a set


def patch_embedding(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return {"vis_hidden.0": model.perceiver.vis_encoder.embeddings(v["pixels"])}


def backbone_block(index: int) -> Stage:
    """The stage of one ViT block."""

    def stage(model: Groma, run: ReferenceRun, v: Values) -> Values:
        out = model.perceiver.vis_encoder.encoder.layer[index](v[f"vis_hidden.{index}"])
        return {f"vis_hidden.{index + 1}": out[0] if isinstance(out, tuple) else out}

    return stage


def input_projection(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return numbered("src", model.perceiver.levels(_states(model, v)))


def detector_encoder(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return {"enc_last": model.perceiver.ddetr_transformer.encode(_levels(model, v)).memory}


def first_boxes(model: Groma, run: ReferenceRun, v: Values) -> Values:
    shapes = _shapes(model, v)
    detr = model.perceiver.ddetr_transformer
    out = detr._first_boxes(v["enc_last"], cell_centres(shapes, v["enc_last"].device), shapes)
    return {"enc_class": out.objectness, "enc_coord_logits": out.box_logits.clamp(max=INFINITE)}


def query_selection(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return {"init_reference": model.perceiver.ddetr_transformer.select_queries(_encoder_output(model, v))}


def decoder(model: Groma, run: ReferenceRun, v: Values) -> Values:
    encoder = EncoderOutput(v["enc_last"], v["enc_last"], v["enc_last"], _shapes(model, v))
    states = model.perceiver.ddetr_transformer.decode(encoder, v["init_reference"])
    return {"dec_intermediate": torch.stack(states, 1)}


def heads(model: Groma, run: ReferenceRun, v: Values) -> Values:
    out = _proposals(model, v)
    return {
        "dec_intermediate_refs": out.refined.transpose(0, 1),
        "pred_boxes_cxcywh": out.boxes[-1],
        "logits_coco": out.coco[-1],
        "logits_sa1b": out.sa1b[-1],
    }


def fast_heads(model: Groma, run: ReferenceRun, v: Values) -> Values:
    """The production path to boxes and objectness, which skips unused heads, of networks without refiner."""
    boxes, objectness = model.perceiver.ddetr_transformer.infer(_levels(model, v))
    joined = [_joined(model, run, image, one)[0] for image, one in enumerate(objectness)]
    return {"pred_boxes_cxcywh": boxes, **numbered("nms_scores", joined)}


def scores(model: Groma, run: ReferenceRun, v: Values) -> Values:
    objectness = model.perceiver.ddetr_transformer.objectness(v["logits_coco"], v["logits_sa1b"])
    out: Values = {}
    for i, boxes in enumerate(v["pred_boxes_cxcywh"]):
        out[f"nms_scores.{i}"], extra = _joined(model, run, i, objectness[i])
        out[f"nms_boxes_xyxy.{i}"] = to_corners(torch.cat([boxes, extra]))
    return out


def selection(model: Groma, run: ReferenceRun, v: Values) -> Values:
    out: Values = {}
    counts = []
    for i, boxes in enumerate(v["pred_boxes_cxcywh"]):
        chosen, candidates = _select(model, run, i, boxes, v[f"nms_scores.{i}"][: len(boxes)])
        order = run.given.get(f"perm.{i}")
        out[f"nms_inds.{i}"] = (
            candidates[order.argsort()] if order is not None and len(order) == len(candidates) else candidates
        )
        out[f"selected_boxes.{i}"] = torch.from_numpy(chosen.boxes)
        counts.append(len(candidates))
    return {**out, "n_regions": torch.tensor(counts)}


def token_merge(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return {
        "image_tokens_merged": merge_tokens(
            _states(model, v)[model.config.vis_output_layer], model.config.token_merge
        )
    }


def bridge(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return {"image_tokens_llm": model.img_txt_bridge(v["image_tokens_merged"])}


def level_fusion(model: Groma, run: ReferenceRun, v: Values) -> Values:
    fused = model.region_encoder.mlvl_fuse(
        [to_map(_states(model, v)[layer]) for layer in model.config.region.layers]
    )
    out = numbered("fused", fused)
    for level, m in enumerate(fused):
        out[f"fused_map_slice.{level}"] = m[:, :, ::7, ::5]
        out[f"fused_map_shape.{level}"] = torch.tensor(m.shape)
        out[f"fused_map_stats.{level}"] = torch.stack([m.mean(), m.std(), m.abs().max()])
    return out


def roi_align(model: Groma, run: ReferenceRun, v: Values) -> Values:
    pooling = model.region_encoder.roi_align
    boxes = _per_image(v, "selected_boxes", run.images)
    image = torch.cat([torch.full((len(b), 1), float(i)) for i, b in enumerate(boxes)])
    fed = torch.cat([image, torch.cat(boxes) * model.config.region.box_scale], 1)
    maps = [v[f"fused.{level}"] for level in range(len(model.config.region.layers))]
    pooled = [pooling.pool([m[i : i + 1] for m in maps], b[None]) for i, b in enumerate(boxes)]
    joined = [torch.cat([part[level][0] for part in pooled]) for level in range(len(maps))]
    return {"rois_fed_to_roialign": fed, **numbered("roi_align_out", joined)}


def pooled_features(model: Groma, run: ReferenceRun, v: Values) -> Values:
    levels = [v[f"roi_align_out.{level}"][None] for level in range(len(model.config.region.layers))]
    return {"flatten_linear_out": model.region_encoder.roi_align.flatten(levels)[0]}


def box_embedding(model: Groma, run: ReferenceRun, v: Values) -> Values:
    boxes = torch.cat(_per_image(v, "selected_boxes", run.images))
    return {"pos_embedding": model.region_encoder.roi_align.pos_embedd(boxes)}


def region_features(model: Groma, run: ReferenceRun, v: Values) -> Values:
    tokens = model.region_encoder.roi_align.updims(v["flatten_linear_out"] + v["pos_embedding"])
    return numbered(
        "region_features", list(tokens.split([len(b) for b in _per_image(v, "selected_boxes", run.images)]))
    )


def sequence(model: Groma, run: ReferenceRun, v: Values) -> Values:
    ids, labels = run.given["input_ids"], run.given.get("labels")
    pad = model.config.token_id("[PAD]")
    sequences, embeddings = [], []
    for i, row in enumerate(ids):
        length = int((row != pad).nonzero().max()) + 1
        sequences.append(
            expand(
                row[:length],
                v[f"selected_boxes.{i}"],
                v["image_tokens_llm"].shape[1],
                model.config,
                run.given.get(f"refer_boxes.{i}"),
                run.given.get(f"ground_boxes.{i}"),
                None if labels is None else labels[i, :length],
            )
        )
        embeddings.append(model.assemble(sequences[-1], v["image_tokens_llm"][i], v[f"region_features.{i}"]))
    longest = max(len(e) for e in embeddings)
    return {
        "input_ids_after_placeholder_substitution": torch.stack(
            [_pad(s.substituted, ids.shape[1], pad) for s in sequences]
        ),
        "inputs_embeds": torch.stack([F.pad(e, (0, 0, 0, longest - len(e))) for e in embeddings]),
        "attention_mask": torch.stack(
            [_pad(torch.ones(len(e), dtype=torch.uint8), longest, 0) for e in embeddings]
        ),
        "expanded_labels": torch.stack([_pad(s.labels, longest, IGNORE) for s in sequences]),
        "expanded_len": torch.tensor([longest]),
    }


def language_model(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return {"final_hidden": model.hidden(v["inputs_embeds"], v["attention_mask"].long())}


def output_heads(model: Groma, run: ReferenceRun, v: Values) -> Values:
    return {"logits": model.logits(v["final_hidden"])}


def answer_logits(model: Groma, run: ReferenceRun, v: Values) -> Values:
    first = model.config.first_region_id
    return {
        "region_token_logits_last_position": v["logits"][0, -1, first : first + len(v["selected_boxes.0"])]
    }


def language_loss(model: Groma, run: ReferenceRun, v: Values) -> Values:
    if "labels" not in run.given:
        return {}
    logits, labels = v["logits"], v["expanded_labels"]
    return {
        "loss": F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)[
            None
        ]
    }


def generation(model: Groma, run: ReferenceRun, v: Values) -> Values:
    if "generated_ids" not in run.recorded:
        return {}
    ids, steps = model.generate(v["inputs_embeds"][0], run.recorded["generated_ids"].shape[1])
    return {"generated_ids": torch.tensor([ids]), "generated_step_logits": steps[None]}


def detector_loss(model: Groma, run: ReferenceRun, v: Values) -> Values:
    source = SOURCES.get(run.name.rpartition(".")[2])
    if source is None:
        raise ValueError(
            f"The recorded run {run.name} is of no known training source; {' and '.join(SOURCES)} are."
        )
    boxes = run.given["gt_boxes"]
    total, terms = detection_loss(_proposals(model, v), [boxes], source, model.config.proposer)
    return {"loss": total[None], **{name: value[None] for name, value in terms.items()}}


def prefix_reuse(model: Groma, inputs_embeds: Tensor, positions: int) -> Tensor:
    """Logits after the goal-independent prefix, computed from its cached keys and values."""
    cache = DynamicCache()
    model.hidden(inputs_embeds[:, :positions], cache=cache)
    return model.logits(model.hidden(inputs_embeds[:, positions:], cache=cache))


def vision_stages(model: Groma) -> list[tuple[str, Stage]]:
    """The stages from pixels to detector heads, in order, with their names in reports."""
    blocks = range(model.config.backbone.num_hidden_layers)
    return [
        ("patch embedding", patch_embedding),
        *((f"backbone block {index + 1}", backbone_block(index)) for index in blocks),
        ("input projection", input_projection),
        ("detector encoder", detector_encoder),
        ("first boxes", first_boxes),
        ("query selection", query_selection),
        ("detector decoder", decoder),
        ("detector heads", heads),
    ]


PROMPT_STAGES: tuple[tuple[str, Stage], ...] = (
    ("scores", scores),
    ("detector without unread heads", fast_heads),
    ("selection", selection),
    ("token merge", token_merge),
    ("bridge", bridge),
    ("level fusion", level_fusion),
    ("RoIAlign", roi_align),
    ("pooled features", pooled_features),
    ("box embedding", box_embedding),
    ("region features", region_features),
    ("sequence", sequence),
    ("language model", language_model),
    ("output heads", output_heads),
    ("forced answer", answer_logits),
    ("language loss", language_loss),
    ("generation", generation),
)
DETECTOR_STAGES: tuple[tuple[str, Stage], ...] = (("detector loss", detector_loss),)


def numbered(name: str, tensors: list[Tensor]) -> Values:
    """Name the tensors of a list name.0, name.1, ..."""
    return {f"{name}.{index}": tensor for index, tensor in enumerate(tensors)}


def _states(model: Groma, v: Values) -> list[Tensor]:
    return [v[f"vis_hidden.{index}"] for index in range(model.config.backbone.num_hidden_layers + 1)]


def _levels(model: Groma, v: Values) -> list[Tensor]:
    return [v[f"src.{level}"] for level in range(model.config.proposer.num_feature_levels)]


def _shapes(model: Groma, v: Values) -> Shapes:
    return [(m.shape[-2], m.shape[-1]) for m in _levels(model, v)]


def _encoder_output(model: Groma, v: Values) -> EncoderOutput:
    box_logits = v["enc_coord_logits"]
    return EncoderOutput(
        v["enc_last"],
        v["enc_class"],
        box_logits.masked_fill(box_logits >= INFINITE, float("inf")),
        _shapes(model, v),
    )


def _proposals(model: Groma, v: Values) -> Proposals:
    states = list(v["dec_intermediate"].unbind(1))
    return model.perceiver.ddetr_transformer.read_heads(
        _encoder_output(model, v), v["init_reference"], states
    )


def _given(run: ReferenceRun, name: str, image: int) -> Tensor:
    """Given boxes (M, 4) of one image; empty if the run has none."""
    return run.given.get(f"{name}.{image}", torch.zeros(0, 4))


def _select(
    model: Groma, run: ReferenceRun, image: int, boxes: Tensor, objectness: Tensor
) -> tuple[Selection, Tensor]:
    """Regions of one image in the recorded order, and the candidate each one is.

    Given boxes share one score, and their recorded order depended on the sort of the recording machine; so
    they are passed in the order of the record.
    """
    c = model.config
    user, true = _given(run, "refer_boxes", image), _given(run, "ground_boxes", image)
    recorded = run.recorded.get(f"nms_inds.{image}", torch.zeros(0, dtype=torch.long)).tolist()
    places = list(range(len(boxes), len(boxes) + len(user) + len(true)))
    places.sort(
        key=lambda place: (
            place >= len(boxes) + len(user),
            recorded.index(place) if place in recorded else len(recorded),
        )
    )
    origin = torch.tensor([*range(len(boxes)), *places])
    candidates = torch.cat([boxes, user, true])[origin]
    order = run.given.get(f"perm.{image}")

    def select(permutation: Tensor | None) -> Selection:
        return select_regions(
            boxes.numpy(),
            objectness.numpy(),
            SelectionRule(c.box_score_thres, c.nms_thres, c.max_region_num),
            candidates[len(boxes) : len(boxes) + len(user)].numpy(),
            None if permutation is None else permutation.numpy(),
            candidates[len(boxes) + len(user) :].numpy(),
            c.ground_box_score,
        )

    try:
        chosen = select(order)
    except ValueError:  # another number of regions than recorded; the comparison reports it
        chosen = select(None)
    return chosen, origin[torch.from_numpy(chosen.candidates)]


def _joined(model: Groma, run: ReferenceRun, image: int, objectness: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N,) of the proposals and the given boxes of one image, and those boxes (M, 4)."""
    user, true = _given(run, "refer_boxes", image), _given(run, "ground_boxes", image)
    given = torch.cat(
        [torch.full((len(user),), USER_BOX_SCORE), torch.full((len(true),), model.config.ground_box_score)]
    )
    return torch.cat([objectness, given]), torch.cat([user, true])


def _per_image(v: Values, name: str, count: int) -> list[Tensor]:
    return [v[f"{name}.{index}"] for index in range(count)]


def _pad(row: Tensor, length: int, value: int) -> Tensor:
    return F.pad(row, (0, length - len(row)), value=value)
