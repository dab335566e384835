"""A larger network starts from a smaller one's weights; the joint stage trains all parts and resumes with
identical results."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from groma_ros.export.convert import convert
from groma_ros.grounding.grounder import Grounder
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import TOKENIZER, Bundle
from groma_ros.runtime.torch import load_model
from groma_ros.training.config import LanguageStage, Scenes, TrainConfig
from groma_ros.training.joint_stage import train_joint
from groma_ros.training.optimiser import save_checkpoint
from groma_ros.training.parallel import TrainingProcess
from groma_ros.training.pool import open_pool, render_pool, sized
from groma_ros.training.run import TrainingRun, train
from groma_ros.training.vocabulary import train_bpe
from groma_ros.training.warm_start import finer_patches, grown_table, load_start
from groma_ros.types import Frame
from tests.small import NETWORK, blocks, write_small_bundle

ALONE = TrainingProcess(0, 1, torch.device("cpu"))
ROOT = Path(__file__).parents[2]


def _grown(config: GromaConfig, vocab: int) -> GromaConfig:
    """Half as large again an input in as many patches, a fine level, more words."""
    return dataclasses.replace(
        config,
        image_size=config.image_size * 3 // 2,
        backbone=dataclasses.replace(
            config.backbone,
            patch_size=config.backbone.patch_size * 3 // 2,
            image_size=config.image_size * 3 // 2,
        ),
        region=dataclasses.replace(config.region, geometry="exact", fine=(4, 8, config.region_channels)),
        language=dataclasses.replace(config.language, vocab_size=vocab),
    )


def test_a_patch_kernel_sees_the_average_of_a_finer_picture() -> None:
    torch.manual_seed(0)
    kernel, picture = torch.randn(5, 3, 14, 14), torch.rand(1, 3, 42, 42)
    # Averaged down by area: every coarse pixel covers one and a half fine ones.
    coarse = F.interpolate(F.interpolate(picture, scale_factor=2, mode="nearest"), size=(28, 28), mode="area")
    wanted = F.conv2d(coarse, kernel, stride=14)
    torch.testing.assert_close(
        F.conv2d(picture, finer_patches(kernel, 21), stride=21), wanted, atol=1e-4, rtol=1e-4
    )


def test_pieces_that_both_vocabularies_have_keep_their_embedding() -> None:
    before = train_bpe(["the red mug"] * 9, 280)
    after = train_bpe(["the red mug, the golden mug"] * 9, 300)
    table = torch.arange(len(before.pieces) * 2.0).reshape(-1, 2)
    grown = grown_table(table, before, after)
    old = {piece.text: index for index, piece in enumerate(before.pieces)}
    shared = [index for index, piece in enumerate(after.pieces) if piece.text in old]
    assert len(shared) > 250 and len(grown) == len(after.pieces)
    for index in shared:
        assert torch.equal(grown[index], table[old[after.pieces[index].text]])
    new = next(index for index, piece in enumerate(after.pieces) if piece.text.startswith("▁gold"))
    ids = before.encode(" " + after.pieces[new].text[1:], dummy_prefix=False)
    assert torch.allclose(grown[new], table[ids].mean(0))


def test_a_grown_network_gives_the_tokens_of_the_one_it_starts_from(small_model: Path) -> None:
    bundle = Bundle.load(small_model)
    config = GromaConfig.from_dict(bundle.network)
    old = load_model(bundle)
    new = Groma(_grown(config, config.language.vocab_size)).eval()
    load_start(new, bundle, bundle.file(TOKENIZER))
    torch.manual_seed(1)
    fine = torch.rand(1, 3, 168, 168)
    coarse = F.interpolate(F.interpolate(fine, scale_factor=2, mode="nearest"), size=(112, 112), mode="area")
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.3], [0.3, 0.6, 0.1, 0.1]]])
    with torch.no_grad():
        before, after = old.perceive(coarse), new.perceive(fine)
        tokens = [model.encode_regions(seen.maps, boxes) for model, seen in ((old, before), (new, after))]
    torch.testing.assert_close(after.image_tokens, before.image_tokens, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(tokens[1], tokens[0], atol=2e-3, rtol=1e-3)
    assert len(after.maps) == len(before.maps) + 1


@pytest.mark.parametrize("before", [{}, {"fine": (8, 16)}], ids=repr)
def test_convolutions_over_the_pixels_of_boxes_start_without_effect(
    before: dict[str, Any], tmp_path: Path
) -> None:
    bundle = Bundle.load(write_small_bundle(tmp_path, region=before))
    config = GromaConfig.from_dict(bundle.network)
    region = dataclasses.replace(config.region, fine=(), crop=(4, 8), crop_side=16)
    old = load_model(bundle)
    new = Groma(dataclasses.replace(config, region=region)).eval()
    load_start(new, bundle, bundle.file(TOKENIZER))
    pixels, boxes = torch.randn(1, 3, 112, 112), torch.tensor([[[0.5, 0.5, 0.2, 0.3]]])
    with torch.no_grad():
        maps = [model.perceive(pixels).maps for model in (old, new)]
        coarse = len(config.region.layers)
        for level in old.region_encoder.roi_align.pconvs[coarse:]:  # the fine level is left behind
            assert isinstance(level, torch.nn.Conv2d) and level.bias is not None
            level.weight.zero_()
            level.bias.zero_()
        tokens = [model.encode_regions(seen, boxes) for model, seen in zip((old, new), maps, strict=True)]
        assert new.region_encoder.crop is not None
        seen = new.region_encoder.crop.features(new.region_encoder.crop.crops(pixels, boxes)[0], boxes[0])
    torch.testing.assert_close(tokens[1], tokens[0])
    assert float(seen.abs().max()) > 0 and torch.equal(maps[1][-1], pixels)


def test_the_refiner_of_proposals_starts_as_the_identity(small_model: Path) -> None:
    bundle = Bundle.load(small_model)
    config = GromaConfig.from_dict(bundle.network)
    proposer = dataclasses.replace(config.proposer, crop=(4, 8), crop_side=16)
    old, new = load_model(bundle), Groma(dataclasses.replace(config, proposer=proposer)).eval()
    load_start(new, bundle, bundle.file(TOKENIZER))
    side = config.image_size
    with torch.no_grad():
        before, after = (model.perceive(torch.ones(1, 3, side, side)) for model in (old, new))
    assert new.perceiver.refiner is not None
    torch.testing.assert_close(after.boxes, before.boxes)
    torch.testing.assert_close(after.objectness, before.objectness, atol=2e-4, rtol=1e-3)


def test_pixels_of_boxes_at_another_side_give_the_same_for_one_colour(tmp_path: Path) -> None:
    bundle = Bundle.load(write_small_bundle(tmp_path, region={"crop": (4, 8), "crop_side": 16}))
    config = GromaConfig.from_dict(bundle.network)
    region = dataclasses.replace(config.region, crop_side=24)
    old, new = load_model(bundle), Groma(dataclasses.replace(config, region=region)).eval()
    load_start(new, bundle, bundle.file(TOKENIZER))
    before, after = old.region_encoder.crop, new.region_encoder.crop
    assert before is not None and after is not None
    maps = torch.rand(1, 8, 1, 1)
    with torch.no_grad():
        seen = [
            crop.flatten(maps.expand(-1, -1, crop.shape.side // 2, crop.shape.side // 2).flatten(1))
            for crop in (before, after)
        ]
    torch.testing.assert_close(seen[1], seen[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("part", "named"), [("region", "region encoder"), ("proposer", "proposer")])
def test_crops_that_are_trained_cannot_change(part: str, named: str, tmp_path: Path) -> None:
    crops: dict[str, Any] = {part: {"crop": (8, 8, 8), "crop_side": 16}}
    bundle = Bundle.load(write_small_bundle(tmp_path, **crops))
    config = GromaConfig.from_dict(bundle.network)
    changes: list[tuple[str, Any]] = [("crop", (8, 8, 8, 8)), ("crop_margin", 1.5), ("crop", ())]
    for field, value in changes:
        changed: Any = {part: dataclasses.replace(getattr(config, part), **{field: value})}
        with pytest.raises(ValueError, match=f"The {named} of small has {field} .* crops that are trained"):
            load_start(Groma(dataclasses.replace(config, **changed)), bundle, bundle.file(TOKENIZER))


def test_a_deeper_proposer_starts_with_copies_of_its_last_layers(small_model: Path) -> None:
    bundle = Bundle.load(small_model)
    config = GromaConfig.from_dict(bundle.network)
    before = config.proposer
    after = dataclasses.replace(
        before,
        encoder_layers=before.encoder_layers + 1,
        decoder_layers=before.decoder_layers + 2,
        num_queries=before.num_queries + 3,
        two_stage_num_proposals=before.two_stage_num_proposals + 3,
    )
    new = Groma(dataclasses.replace(config, proposer=after))
    load_start(new, bundle, bundle.file(TOKENIZER))
    old, grown = (model.state_dict() for model in (load_model(bundle), new))
    start, last = "perceiver.ddetr_transformer.", before.decoder_layers - 1
    for made, source in (
        (
            f"encoder.layers.{before.encoder_layers}.fc1.weight",
            f"encoder.layers.{before.encoder_layers - 1}.fc1.weight",
        ),
        (f"decoder.layers.{last + 2}.fc1.weight", f"decoder.layers.{last}.fc1.weight"),
        (f"class_embed_sa1b.{last + 1}.bias", f"class_embed_sa1b.{last}.bias"),
        (f"bbox_embed.{last + 2}.layers.0.weight", f"bbox_embed.{last}.layers.0.weight"),
        # The head of stage one, which is the last.
        (f"bbox_embed.{last + 3}.layers.0.weight", f"bbox_embed.{last + 1}.layers.0.weight"),
    ):
        assert torch.equal(grown[start + made], old[start + source]), made
    queries = start + "query_position_embeddings.weight"
    assert torch.equal(grown[queries], torch.cat([old[queries], old[queries][:3]]))
    # The rest reads what it was trained on.
    same = [name for name in old if not name.startswith(start)]
    assert all(torch.equal(grown[name], old[name]) for name in same)


def test_a_proposer_cannot_shrink(small_model: Path) -> None:
    bundle = Bundle.load(small_model)
    config = GromaConfig.from_dict(bundle.network)
    fewer = dataclasses.replace(config.proposer, num_queries=config.proposer.num_queries - 1)
    with pytest.raises(
        ValueError, match=r"The proposer of small has num_queries \d+ and the config asks for \d+"
    ):
        load_start(Groma(dataclasses.replace(config, proposer=fewer)), bundle, bundle.file(TOKENIZER))


def test_what_cannot_grow_is_named(small_model: Path) -> None:
    bundle = Bundle.load(small_model)
    config = GromaConfig.from_dict(bundle.network)
    wider = dataclasses.replace(config, language=dataclasses.replace(config.language, intermediate_size=128))
    with pytest.raises(
        ValueError, match=r"The weight llm\.model\.layers\.0\.mlp\.gate_proj\.weight of small has the shape"
    ):
        load_start(Groma(wider), bundle, bundle.file(TOKENIZER))


SHARE = {"attribute": 1.0, "absent": 1.0, "plural": 1.0, "describe": 1.0, "unknown": 1.0, "near": 1.0}


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    """A config, and the folder in which its joint stage took two steps from weights of chance."""
    network = {**NETWORK, "box_score_thres": 0.15, "region_cfg": {**NETWORK["region_cfg"], "fine": (8, 16)}}
    network["llm_cfg"] = {**NETWORK["llm_cfg"], "num_hidden_layers": 4, "tie_word_embeddings": True}
    none = LanguageStage(steps=0, batch=1, rate=1e-3, live=True, share=SHARE)
    stage = LanguageStage(steps=2, batch=2, rate=1e-3, warmup=1, share=SHARE, said=0.7, muon=False, frozen=1)
    config = TrainConfig(
        GromaConfig.from_dict(network),
        none,
        none,
        none,
        (Scenes(500, 3, 112, "wide"),),
        Scenes(900, 2, 112, "wide"),
        joint=stage,
        workers=1,
    )
    out = tmp_path_factory.mktemp("joint")
    for scenes in (*config.pool, config.held_out):
        assert scenes is not None
        render_pool(out / "pool", scenes, 1)
    torch.manual_seed(0)
    save_checkpoint(out / "start.pt", model=Groma(config.network).state_dict(), step=0)
    train_joint(ALONE, config, out, resume=False)
    return config, out


def test_the_joint_stage_trains_all_but_the_frozen_blocks(joint: tuple[TrainConfig, Path]) -> None:
    _, out = joint
    before, after = (
        torch.load(out / f"{name}.pt", weights_only=True)["model"] for name in ("start", "joint")
    )
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    for part in (
        "region_encoder.fine.",
        "region_encoder.roi_align.",
        "perceiver.ddetr_transformer.",
        "llm.",
        "img_txt_bridge.",
    ):
        assert any(name.startswith(part) for name in changed), part
    blocks = "perceiver.vis_encoder.encoder.layer."
    assert not any(name.startswith((f"{blocks}0.", "perceiver.vis_encoder.embeddings.")) for name in changed)
    assert any(name.startswith(f"{blocks}1.") for name in changed)


def test_a_stopped_joint_stage_goes_on_with_the_same_bits(
    joint: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, out = joint
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    (tmp_path / "joint.pt").unlink()
    assert config.joint is not None
    for steps in (1, 2):
        train_joint(
            ALONE,
            dataclasses.replace(config, joint=dataclasses.replace(config.joint, steps=steps)),
            tmp_path,
            resume=True,
        )
    whole, resumed = (
        torch.load(folder / "joint.pt", weights_only=True)["model"] for folder in (out, tmp_path)
    )
    assert {name for name in whole if not torch.equal(whole[name], resumed[name])} == set()


def test_a_picture_at_the_networks_size_keeps_its_boxes_in_place(joint: tuple[TrainConfig, Path]) -> None:
    config, out = joint
    sample = open_pool(out / "pool", config.pool)[0].sample(0)
    half = sized(sample, 56)
    assert half.rgb.shape == (56, 56, 3) and half.intrinsics.width == 56
    for whole, small in zip(sample.objects, half.objects, strict=True):
        np.testing.assert_allclose(small.box, np.array(whole.box) / 2)
    assert sized(sample, 112) is sample


def test_the_shipped_wide_config_is_read_and_its_seeds_were_never_used(
    joint: tuple[TrainConfig, Path],
) -> None:
    config = TrainConfig.load(ROOT / "config" / "train_wide.yaml")
    assert config.joint is not None and config.network.region.fine and config.network.grid == 16
    spans = [
        (s.first_seed, s.first_seed + s.scenes)
        for s in (*config.pool, *config.earlier, *([config.held_out] if config.held_out else []))
    ]
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_stage_that_the_config_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no stage joint"):
        train(TrainingRun(ROOT / "config" / "train_tiny.yaml", tmp_path, stages=("joint",)))


CROPS: dict[str, Any] = {"crop": (8, 16, 16), "crop_side": 16}


@pytest.mark.parametrize(
    ("region", "proposer"),
    [({"fine": (8, 16)}, {}), (CROPS, {}), (CROPS, CROPS), ({}, {**CROPS, "crop_queries": 3})],
    ids=repr,
)
def test_a_converted_bundle_that_sees_pixels_answers_as_its_network(
    region: dict[str, Any], proposer: dict[str, Any], tmp_path: Path
) -> None:
    plain = write_small_bundle(tmp_path / "plain", calm=True, region=region, proposer=proposer)
    bundle = convert(plain, tmp_path / "made")
    frame = Frame(blocks(4))
    scenes = [
        Grounder.load(bundle.directory, backend=backend).perceive(frame) for backend in ("onnx", "torch")
    ]
    np.testing.assert_allclose(scenes[0].boxes, scenes[1].boxes, atol=0.05)
    np.testing.assert_allclose(scenes[0].region_tokens, scenes[1].region_tokens, atol=2e-3)
