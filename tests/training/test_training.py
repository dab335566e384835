"""Every stage takes real steps on rendered scenes; interrupted runs resume with identical results; packing
is exact."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.torch import load_torch
from groma_ros.simulation.scenes import SceneObject
from groma_ros.tokenization.prompts import TINY_TEMPLATE
from groma_ros.tokenization.sentencepiece_model import UNUSED, SentencePieceModel
from groma_ros.training.attention import NAME as ATTENTION
from groma_ros.training.config import LanguageStage, Part, Scenes, Stage, TrainConfig
from groma_ros.training.data import scenes_data
from groma_ros.training.detection import OTHERS, STRONGEST, Names, draw_batch, training_proposals
from groma_ros.training.features import OtherColours, encode, mirrored, observe
from groma_ros.training.language_stage import (
    LivePictures,
    forward,
    load_tokenizer,
    losses,
    train_language,
)
from groma_ros.training.optimiser import Schedule, save_checkpoint
from groma_ros.training.packing import ask, pack
from groma_ros.training.parallel import TrainingProcess
from groma_ros.training.pool import Shard, open_pool, render_pool
from groma_ros.training.run import TrainingRun, publish, train
from groma_ros.training.vision_stage import build, train_detection
from groma_ros.types import Intrinsics
from tests.small import NETWORK

ALONE = TrainingProcess(0, 1, torch.device("cpu"))
SHARE = {"attribute": 1.0, "absent": 1.0, "relation": 1.0, "plural": 1.0, "describe": 1.0, "caption": 1.0}
CONFIG = TrainConfig(
    # Four layers, because the third is shown where to look.
    network=GromaConfig.from_dict(
        {
            **NETWORK,
            "box_score_thres": 0.15,
            "llm_cfg": {**NETWORK["llm_cfg"], "num_hidden_layers": 4, "tie_word_embeddings": True},
        }
    ),
    pool=(Scenes(500, 4, 112), Scenes(600, 2, 112, "shelf")),
    held_out=Scenes(900, 2, 112),
    detection=Stage(steps=2, batch=2, rate=1e-3, warmup=1, size=112),
    alignment=LanguageStage(
        steps=2, batch=2, rate=1e-3, warmup=1, share=SHARE, live=True, recoloured=0.5, relit=0.5
    ),
    language=LanguageStage(steps=2, batch=2, rate=1e-3, warmup=1, share=SHARE),
    workers=1,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rendered scenes of CONFIG."""
    out = tmp_path_factory.mktemp("training")
    assert CONFIG.held_out is not None
    for scenes in (*CONFIG.pool, CONFIG.held_out):
        render_pool(out / "pool", scenes, 1)
    return out


@pytest.fixture(scope="module")
def trained(rendered: Path) -> Path:
    """The folder after all three stages."""
    train_detection(ALONE, CONFIG, rendered, resume=False)
    train_language(ALONE, CONFIG, CONFIG.alignment, "detection", "alignment", rendered, resume=False)
    train_language(ALONE, CONFIG, CONFIG.language, "alignment", "language", rendered, resume=False)
    return rendered


def _weights(path: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return weights


def _changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the network whose weights differ."""
    names = {name for name, value in after.items() if not torch.equal(value, before[name])}
    return {
        ".".join(name.split(".")[:2]) if name.startswith("perceiver") else name.split(".")[0]
        for name in names
    }


def test_each_stage_trains_its_part_of_the_network(trained: Path) -> None:
    detection, alignment, language = (
        _weights(trained / f"{name}.pt") for name in ("detection", "alignment", "language")
    )
    tables = {"new_input_embs", "extra_lm_head"}
    assert _changed(detection, alignment) == {"llm", "region_encoder", "img_txt_bridge", *tables}
    assert _changed(alignment, language) == {"llm", *tables}


@pytest.mark.parametrize("stage", ["detection", "alignment", "language"])
def test_a_stopped_stage_goes_on_with_the_same_bits(stage: str, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / f"{stage}.pt").unlink()
    for steps in (1, 2):  # one step, stopped, then the second from the checkpoint
        part = dataclasses.replace(getattr(CONFIG, stage), steps=steps)
        if stage == "detection":
            train_detection(ALONE, dataclasses.replace(CONFIG, detection=part), tmp_path, resume=True)
        else:
            before = {"alignment": "detection", "language": "alignment"}[stage]
            train_language(ALONE, CONFIG, part, before, stage, tmp_path, resume=True)
    whole, resumed = _weights(trained / f"{stage}.pt"), _weights(tmp_path / f"{stage}.pt")
    assert {name for name in whole if not torch.equal(whole[name], resumed[name])} == set()


def test_the_published_bundle_is_the_checkpoint(trained: Path, tmp_path: Path) -> None:
    publish(CONFIG, trained, "language", tmp_path / "tiny")
    bundle = Bundle.load(tmp_path / "tiny")
    assert bundle.seeds["training_scenes"] == [[500, 503], [600, 601]] and bundle.seeds["step"] == 2
    _, language = load_torch(bundle)
    weights = _weights(trained / "language.pt")
    expected = weights["new_input_embs.weight"][3].half().float().numpy()
    np.testing.assert_array_equal(
        language.embed(np.array([CONFIG.network.language.vocab_size + 3]))[0], expected
    )


def test_a_bundle_may_be_the_mean_of_two_stages(trained: Path, tmp_path: Path) -> None:
    publish(
        dataclasses.replace(CONFIG, average={"alignment": 0.25, "language": 0.75}),
        trained,
        "language",
        tmp_path / "tiny",
    )
    name = "llm.model.layers.0.mlp.up_proj.weight"
    one, two = (
        torch.load(trained / f"{stage}.pt", weights_only=True)["model"][name]
        for stage in ("alignment", "language")
    )
    mean = load_file(tmp_path / "tiny" / "model.safetensors")[name]
    assert not torch.equal(one, two) and torch.allclose(mean.float(), one / 4 + two * 3 / 4, atol=1e-3)
    assert Bundle.load(tmp_path / "tiny").seeds["stage"] == "alignment and language"


def test_training_goes_on_from_a_bundle_with_its_weights_and_its_words(trained: Path, tmp_path: Path) -> None:
    publish(CONFIG, trained, "language", tmp_path / "tiny")
    whole = dataclasses.asdict(CONFIG)
    config = {name: whole[name] for name in ("pool", "held_out", "detection", "alignment", "language")}
    file = tmp_path / "config.yaml"
    plain = json.loads(json.dumps({**config, "network": CONFIG.network.to_dict(), "workers": 1}))
    file.write_text(yaml.safe_dump(plain))
    run = TrainingRun(
        file,
        tmp_path / "out",
        tmp_path / "better",
        resume=True,
        stages=("language",),
        start=tmp_path / "tiny",
    )
    train(run)
    before, after = Bundle.load(tmp_path / "tiny"), Bundle.load(tmp_path / "better")
    assert before.file("tokenizer.model").read_bytes() == after.file("tokenizer.model").read_bytes()
    old, new = (load_file(bundle.file("model.safetensors")) for bundle in (before, after))
    assert _changed(old, new) == {"llm", "new_input_embs", "extra_lm_head"}
    checkpoint = (tmp_path / "out" / "alignment.pt").read_bytes()
    publish(CONFIG, trained, "alignment", tmp_path / "other")
    train(dataclasses.replace(run, bundle=None, start=tmp_path / "other"))
    assert (tmp_path / "out" / "alignment.pt").read_bytes() == checkpoint, (
        "a checkpoint that is there is not overwritten"
    )


def test_questions_packed_behind_one_prefix_get_the_logits_they_get_alone(trained: Path) -> None:
    model = Groma(CONFIG.network)
    model.load_state_dict(_weights(trained / "language.pt"))
    model.llm.config._attn_implementation = ATTENTION
    model.eval()
    tokenizer = load_tokenizer(CONFIG, trained)
    shard = open_pool(trained / "pool", CONFIG.pool)[0]
    samples = [shard.sample(0), mirrored(shard.sample(1))]
    with torch.no_grad():
        scenes = encode(model, *observe(model, samples, ALONE.device), samples)
        asked = [
            ask(scene, tokenizer, TINY_TEMPLATE, SHARE, np.random.default_rng(i))
            for i, scene in enumerate(scenes)
        ]
        assert all(len(questions) >= 3 for questions in asked)
        packed = pack(scenes, asked, tokenizer, TINY_TEMPLATE, ALONE.device)
        together, attention = forward(model, packed, scenes)
        for b, questions in enumerate(packed.questions):
            for question, at in questions:
                alone = pack([scenes[b]], [[question]], tokenizer, TINY_TEMPLATE, ALONE.device)
                single, _ = forward(model, alone, [scenes[b]])
                (_, start) = alone.questions[0][0]
                count = len(question.ids)
                torch.testing.assert_close(
                    together[b, at : at + count], single[0, start : start + count], atol=0.08, rtol=0.05
                )
        terms = losses(together, attention, packed)
    assert float(terms["answer"]) > 0


def test_the_schedule_warms_up_stays_and_decays_to_zero() -> None:
    schedule = Schedule(steps=100, rate=1.0, warmup=10, decay=20)
    assert [round(schedule.factor(s), 3) for s in (0, 4, 9, 50, 80, 90, 99)] == [0.1, 0.5, 1, 1, 1, 0.5, 0.05]


def test_a_config_with_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("sead: 1\n")
    with pytest.raises(ValueError, match=r"bad.yaml cannot be used: unknown key 'sead'"):
        TrainConfig.load(path)


def test_the_worlds_that_a_config_calls_usual_are_in_its_pool(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "config" / "train_other_worlds.yaml"
    assert TrainConfig.load(config).usual == ("mixed", "wide")
    path = tmp_path / "other.yaml"
    path.write_text(config.read_text().replace("usual: [mixed, wide]", "usual: [mixed, kitchen]"))
    with pytest.raises(ValueError, match="usual names the world 'kitchen', which is not in pool"):
        TrainConfig.load(path)


def test_the_shipped_config_is_read() -> None:
    config = TrainConfig.load(Path(__file__).parents[2] / "config" / "train_tiny.yaml")
    assert (
        config.network.language.hidden_size % 256 == 0
        and config.network.language.intermediate_size % 256 == 0
    )
    assert config.network.proposer.num_queries >= 16 and len(config.network.region.layers) >= 2


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "config").glob("train_*.yaml")), ids=lambda path: path.stem
)
def test_every_config_is_read(path: Path) -> None:
    assert TrainConfig.load(path).network.image_size % 14 == 0


@pytest.mark.parametrize("name", ["train_answers", "finetune_tiny"])
def test_the_newest_config_and_that_for_own_pictures_have_the_network_that_ships(name: str) -> None:
    root = Path(__file__).parents[2]
    shipped = Bundle.load(root / "engines" / "groma-tiny")
    config = TrainConfig.load(root / "config" / f"{name}.yaml")
    assert config.network == GromaConfig.from_dict(shipped.network)


def assert_resumes(config: TrainConfig, folder: Path) -> None:
    """Stage 1 of two updates gives the bits it gave in a folder when it is stopped after the first one."""
    path = folder / "detection.pt"
    whole = torch.load(path, weights_only=True)["model"]
    path.unlink()
    for steps in (1, 2):
        part = dataclasses.replace(config.detection, steps=steps)
        train_detection(ALONE, dataclasses.replace(config, detection=part), folder, resume=True)
    resumed = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def config_alone(alone: Part, **network: Any) -> TrainConfig:
    """CONFIG with a part of the network that stage 1 trains alone; network: changed sections."""
    return dataclasses.replace(
        CONFIG,
        detection=dataclasses.replace(CONFIG.detection, alone=alone, cut=0.5),
        network=dataclasses.replace(CONFIG.network, **network),
    )


def train_alone(
    config: TrainConfig, before: dict[str, torch.Tensor], pool: Path, folder: Path
) -> tuple[dict[str, torch.Tensor], set[str], set[str]]:
    """Train stage 1 from weights, and check that it resumes. Returns the weights, the names of those that
    changed, and what was measured on held-out scenes."""
    shutil.copytree(pool, folder / "pool")
    save_checkpoint(folder / "start.pt", model=before, step=0)
    train_detection(ALONE, config, folder, resume=False)
    after = torch.load(folder / "detection.pt", weights_only=True)["model"]
    assert_resumes(config, folder)
    line = json.loads((folder / "detection.jsonl").read_text().splitlines()[-1])
    changed = {name for name, value in after.items() if not torch.equal(before[name], value)}
    return after, changed, set(line["held_out"])


def test_the_proposer_alone_is_trained(rendered: Path, trained: Path, tmp_path: Path) -> None:
    before = torch.load(trained / "language.pt", weights_only=True)["model"]
    _, changed, measured = train_alone(config_alone("proposer"), before, rendered / "pool", tmp_path)
    proposer = ("perceiver.ddetr_transformer.", "perceiver.input_proj.")
    assert changed and all(name.startswith(proposer) for name in changed)
    assert all(any(name.startswith(part) for name in changed) for part in proposer)
    assert not {"kind", "colour"} & measured


def test_crops_alone_are_trained_and_change_no_token(rendered: Path, tmp_path: Path) -> None:
    region = dataclasses.replace(CONFIG.network.region, crop=(4, 8), crop_side=16)
    config = config_alone("crops", region=region)
    model, _ = build(config, torch.device("cpu"))
    assert model.region_encoder.crop is not None
    with torch.no_grad():  # as a start from a bundle without crops leaves it
        for value in model.region_encoder.crop.output.parameters():
            value.zero_()
    after, changed, measured = train_alone(config, model.state_dict(), rendered / "pool", tmp_path)
    assert changed and all(name.startswith("region_encoder.crop.") for name in changed)
    maps = [torch.randn(1, *shape) for shape in config.network.map_shapes]
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.3]]])
    with torch.no_grad():
        before = model.encode_regions(maps, boxes)
        model.load_state_dict(after)
        assert torch.equal(model.encode_regions(maps, boxes), before)
    assert {"kind", "colour"} <= measured


def test_the_refiner_learns_from_the_strongest_proposals_and_some_others() -> None:
    objectness = torch.rand(2, 40, generator=torch.Generator().manual_seed(1))
    order = objectness.argsort(1, descending=True)
    drawn = [training_proposals(objectness, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert drawn[0].shape == (2, STRONGEST + OTHERS)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    for some in drawn:
        assert torch.equal(some[:, :STRONGEST], order[:, :STRONGEST])
        assert all(len(set(row)) == STRONGEST + OTHERS for row in some.tolist())
    few = training_proposals(objectness[:, :9], torch.Generator())
    assert few.shape == (2, 9)


def test_the_refiner_alone_is_trained(rendered: Path, tmp_path: Path) -> None:
    proposer = dataclasses.replace(CONFIG.network.proposer, crop=(4, 8), crop_side=16)
    config = config_alone("refiner", proposer=proposer)
    model, _ = build(config, torch.device("cpu"))
    _, changed, measured = train_alone(config, model.state_dict(), rendered / "pool", tmp_path)
    assert "perceiver.refiner.change.weight" in changed
    assert all(name.startswith("perceiver.refiner.") for name in changed)
    assert not {"kind", "colour"} & measured


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("alone: proposer", "alone: backbone", "alone is 'backbone'; the parts are proposer, crops, refiner"),
        ("alone: proposer", "alone: crops", "alone is crops, but the network has none"),
        ("alone: proposer", "alone: refiner", "alone is refiner, but the network has none"),
        (
            "alone: proposer",
            "alone: refiner, recoloured: 3.0",
            "recoloured is 3.0; it must be a number from 0 to 1",
        ),
        ("muon: false, size: 280, alone: proposer", "muon: true, alone: crops", "no matrices for Muon"),
        ("alignment: {", "alignment: {alone: proposer, ", "alignment has alone; only detection can"),
    ],
)
def test_a_part_that_cannot_be_trained_alone_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "config" / "train_proposer.yaml").read_text()
    path = tmp_path / "config.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=said):
        TrainConfig.load(path)


def test_the_proposer_alone_needs_weights_to_start_from(rendered: Path, tmp_path: Path) -> None:
    shutil.copytree(rendered / "pool", tmp_path / "pool")
    stage = dataclasses.replace(CONFIG.detection, alone="proposer")
    with pytest.raises(ValueError, match="give --start BUNDLE"):
        train_detection(ALONE, dataclasses.replace(CONFIG, detection=stage), tmp_path, resume=False)


def test_labels_stay_with_the_boxes_of_pictures_that_are_cut(rendered: Path) -> None:
    shards = open_pool(rendered / "pool", CONFIG.pool)
    names, count = Names(), 40
    rng = np.random.default_rng(2)
    batch = draw_batch(shards, names, count, 112, rng, torch.device("cpu"), 1.0, 0.3)
    whole = {tuple(sorted(o.kind for o in some)) for shard in shards for some in shard.objects}
    fewer = 0
    for boxes, kinds, colours in zip(batch.boxes, batch.kinds, batch.colours, strict=True):
        assert len(boxes) == len(kinds) == len(colours) > 0
        assert (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-4).all() and (
            boxes[:, :2] + boxes[:, 2:] / 2 < 1.0001
        ).all()
        fewer += tuple(sorted(names.kinds[int(kind)] for kind in kinds)) not in whole
    assert fewer > count // 4


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_that_cannot_be_is_named(tmp_path: Path, share: float) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "config" / "train_tiny.yaml").read_text())
    pool = config["pool"]
    config["pool"] = [{**(pool[0] if isinstance(pool, list) else pool), "share": share}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=rf"pool\[0\]: share is {share}; it must be a whole number from 1"):
        TrainConfig.load(tmp_path / "config.yaml")


def test_a_pool_with_a_larger_share_is_drawn_more_often(rendered: Path) -> None:
    tables, shelves = CONFIG.pool
    config = dataclasses.replace(CONFIG, pool=(tables, dataclasses.replace(shelves, share=3)))
    worlds = [shard.sample(0).world for shard in scenes_data(config, rendered, shared=True).pictures]
    assert worlds == ["table", "shelf", "shelf", "shelf"]
    assert len(scenes_data(config, rendered).pictures) == 2


def test_a_vocabulary_is_as_large_as_the_network_takes_it_for(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "pool").symlink_to(rendered / "pool")
    language = dataclasses.replace(CONFIG.network.language, vocab_size=4000)
    network = dataclasses.replace(CONFIG.network, language=language)
    tokenizer = load_tokenizer(dataclasses.replace(CONFIG, network=network), tmp_path)
    assert tokenizer.base == 4000
    assert tokenizer.region_id(0) == network.first_region_id
    model = SentencePieceModel.load(tmp_path / "tokenizer.model")
    ids = model.encode("<unused3>")
    assert model.decode(ids) == "<unused3>" and all(model.piece(index).type != UNUSED for index in ids)


def test_pictures_in_other_colours_are_of_objects_of_unknown_colour() -> None:
    red = np.zeros((4, 64, 64, 3), np.uint8)
    red[:, 16:48, 16:48] = (200, 20, 20)
    mug = SceneObject("mug", "red", (16.0, 16.0, 48.0, 48.0), 1.0, 1024, (0.0, 0.0, 1.0), (0.1, 0.1, 0.1))
    shard = Shard("table-0", red, [(mug,)] * 4, [], 0)
    rng = np.random.default_rng(0)
    batch = draw_batch([shard], Names(), 200, 64, rng, torch.device("cpu"), 0.0, 0.3)
    unknown = np.array([int(colour) < 0 for colour in batch.colours])
    assert 0.2 < unknown.mean() < 0.4
    assert {int(kind) for kind in batch.kinds} == {Names().kinds.index("mug")}
    # Red is the strongest channel at the object's centre wherever the colour is known.
    centres = [(box[0, :2] * 64).long() for box in batch.boxes]
    seen = torch.stack([p[:, int(y), int(x)] for p, (x, y) in zip(batch.pixels, centres, strict=True)])
    red_first = (seen.argmax(1) == 0).numpy()
    assert red_first[~unknown].all() and red_first[unknown].mean() < 0.6


def test_live_pictures_are_recoloured_and_relit_in_their_shares() -> None:
    red = np.full((1, 64, 64, 3), (200, 20, 20), np.uint8)
    mug = SceneObject("mug", "red", (16.0, 16.0, 48.0, 48.0), 1.0, 1024, (0.0, 0.0, 1.0), (0.1, 0.1, 0.1))
    shard = Shard("table-0", red, [(mug,)], [Intrinsics(60, 60, 32, 32, 64, 64)], 0)
    live = LivePictures(Groma(CONFIG.network), [shard], torch.device("cpu"), recoloured=0.3, relit=0.5)
    rng = np.random.default_rng(0)
    drawn = [features.sample for _ in range(10) for features in live.draw(20, rng)]
    other = [sample for sample in drawn if isinstance(sample, OtherColours)]
    assert 0.2 < len(other) / len(drawn) < 0.4
    assert {thing.colour for sample in other for thing in sample.objects} == {""}
    rest = [sample for sample in drawn if not isinstance(sample, OtherColours)]
    assert {thing.colour for sample in rest for thing in sample.objects} == {"red"}
    assert 0.35 < np.mean([not np.array_equal(sample.rgb, red[0]) for sample in rest]) < 0.65
