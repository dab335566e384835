"""Parity with the original network, on its recorded tensors and on sets of other sizes recorded here."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from groma_ros.cli import main
from groma_ros.model.checkpoint import original_state_dict
from groma_ros.model.groma import Groma
from groma_ros.model.reference import Reference, ReferenceRun, Values, batch_pixels
from groma_ros.model.stages import DETECTOR_STAGES, INTERNAL, PROMPT_STAGES, vision_stages
from groma_ros.model.verify import STAGE_LIMIT, WHOLE_LIMIT, difference, verify
from groma_ros.network_config import GromaConfig
from groma_ros.preprocessing import ImageTransform

ROOT = Path(__file__).resolve().parents[2]
TRIMMED = ROOT / "tests" / "data" / "golden"
WHOLE = ROOT.parent / "shared" / "golden"
RUNS = {"rec", "det", "rec_forced_roi", "refer2", "train_loss", "batch2", "det_loss", "prefix_reuse"}


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["groma", "verify", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def check_report(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tensors: int,
    alone: int,
) -> None:
    assert run_command(monkeypatch, str(folder), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (
        report["ok"] is True
        and report["limit"] == WHOLE_LIMIT == 2e-4
        and report["stage_limit"] == STAGE_LIMIT == 2e-5
    )
    assert 0 < report["worst"] <= report["limit"]
    rows = {name: row for stage in report["stages"].values() for name, row in stage["tensors"].items()}
    assert {name.split(".")[0] for name in rows} - {"image"} == RUNS
    assert len(rows) == tensors and report["not_compared"] == []
    assert all(row["end_to_end"] is not None for row in rows.values())
    assert sum(row["stage_by_stage"] is not None for row in rows.values()) == alone
    assert max(row["stage_by_stage"] or 0.0 for row in rows.values()) <= report["stage_limit"]


def test_every_recorded_run_of_the_original_is_reproduced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_report(monkeypatch, capsys, TRIMMED, tensors=151, alone=98)


@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole recorded set does not lie beside the checkout")
def test_the_whole_set_is_reproduced_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_report(monkeypatch, capsys, WHOLE, tensors=172, alone=138)


def test_the_table_names_stages_and_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run_command(monkeypatch, str(TRIMMED)) == 0
    out = capsys.readouterr().out
    assert (
        "RoIAlign" in out and "detector loss" in out and "all within the limits" in out and "FAILS" not in out
    )


@pytest.fixture()
def rec() -> Reference:
    reference = Reference.load(TRIMMED)
    return dataclasses.replace(reference, runs=tuple(run for run in reference.runs if run.name == "rec"))


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("region_encoder.roi_align.updims.weight", "region features"),
        ("perceiver.ddetr_transformer.pos_trans.weight", "detector decoder"),
        ("extra_lm_head.weight", "output heads"),
        ("perceiver.vis_encoder.encoder.layer.2.mlp.fc1.bias", "backbone block 3"),
    ],
)
def test_a_weight_off_by_a_thousandth_is_found_and_located(rec: Reference, name: str, stage: str) -> None:
    dict(rec.model.named_parameters())[name].mul_(1.001)
    report = verify(rec)
    assert not report.ok
    wide = {"detector without unread heads", "generation", "prefix reuse"}  # these run several stages in one
    assert {check.stage for check in report.checks if check.alone and not check.ok} - wide == {stage}


def test_the_exact_geometry_is_not_the_published_one(rec: Reference) -> None:
    model = rec.model
    region = dataclasses.replace(model.config.region, geometry="exact")
    model.region_encoder.roi_align.config = region
    failed = {check.stage for check in verify(rec).checks if check.alone and not check.ok}
    assert failed == {"RoIAlign"}


def test_other_integers_shapes_and_counts_fail_and_do_not_crash(rec: Reference) -> None:
    run = rec.runs[0]
    shorter = {
        **run.recorded,
        "logits": run.recorded["logits"][:, :-1],
        "nms_inds.0": run.recorded["nms_inds.0"] + 1,
    }
    cut = dataclasses.replace(run, recorded=shorter, given={**run.given, "perm.0": run.given["perm.0"][:-1]})
    report = verify(dataclasses.replace(rec, runs=(cut,), prefix_positions=None))
    failed = {check.tensor for check in report.checks if not check.ok}
    assert {"rec.logits", "rec.nms_inds.0", "rec.selected_boxes.0"} <= failed


def test_unchecked_recorded_tensors_are_listed(rec: Reference) -> None:
    run = rec.runs[0]
    known = dataclasses.replace(run, recorded={**run.recorded, "mystery": torch.zeros(1)})
    assert verify(dataclasses.replace(rec, runs=(known,))).not_compared == ("rec.mystery",)


def test_difference_is_relative_and_strict_about_infinities_and_padding() -> None:
    a = torch.tensor([[1.0, -4.0], [2.0, 0.0]])
    assert difference(a + 0.004, a) == pytest.approx(0.001, rel=1e-3)
    assert difference(a + torch.tensor([[0.0], [5.0]]), a, torch.tensor([[1, 1], [0, 0]]).bool()) == 0.0
    infinite = torch.tensor([1.0, 1e30])
    assert difference(infinite, infinite) == 0.0
    assert difference(torch.tensor([1e30, 1.0]), infinite) == 1e9
    assert difference(torch.tensor([float("nan"), 1e30]), infinite) == 1e9
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 3])) == 1e9
    assert difference(torch.zeros(0, 4), torch.zeros(0, 4)) == 0.0


def other_config(side: int, levels: int) -> dict[str, object]:
    return {
        "num_new_token": 34,
        "max_region_num": 20,
        "box_score_thres": 0.05,
        "nms_thres": 0.6,
        "llm_cfg": {
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "perceiver_cfg": {
            "vis_output_layer": -2,
            "vis_encoder_cfg": {
                "hidden_size": 16,
                "num_hidden_layers": 5,
                "num_attention_heads": 2,
                "image_size": 126,
                "patch_size": side // 18,
            },
            "ddetr_cfg": {
                "two_stage": True,
                "with_box_refine": True,
                "num_feature_levels": levels,
                "d_model": 16,
                "encoder_layers": 2,
                "decoder_layers": 2,
                "encoder_ffn_dim": 16,
                "decoder_ffn_dim": 16,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "num_queries": 12,
                "two_stage_num_proposals": 12,
            },
        },
    }


def record(folder: Path, side: int, levels: int) -> None:
    """Write a reference set of another size, recorded from our own stages: a raw picture, a referring run and
    a detector run."""
    torch.manual_seed(levels)
    meta = {
        "resolution": side,
        "hardcoded_dims_in_tiny": {"gn_groups": 4, "pos_hidden": 8, "region_mid": 8, "region_out": 16},
        "roi_strides": [1.75, 3.5, 7.0],
        "roi_scale_constant": 448,
        "r0": 64 + 14,
        "runs": {},
    }
    config = other_config(side, levels)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "meta.json").write_text(json.dumps(meta))
    region = {"groups": 4, "pos_hidden": 8, "hidden": 8, "output": 16}
    model = (
        Groma(GromaConfig.from_dict({**config, "image_size": side, "region_cfg": region}))
        .eval()
        .requires_grad_(False)
    )
    for name, weight in model.named_parameters():
        weight.normal_(std=0.2).add_(1.0 if name.endswith("norm.weight") else 0.0)
    save_file(original_state_dict(model), folder / "model.safetensors")
    raw = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    images = {"raw_uint8_hwc": raw, "resized_uint8_hwc": ImageTransform(side, "bicubic").stretch(raw)}
    save_file({name: torch.from_numpy(value) for name, value in images.items()}, folder / "image.safetensors")
    pixels = Reference(
        model, {name: torch.from_numpy(value) for name, value in images.items()}, (), None
    ).pixels()["pixel_values"]
    place = {
        name: 64 + index
        for name, index in (("roi", 4), ("/roi", 5), ("image", 8), ("region", 9), ("box", 10), ("feat", 12))
    }
    prompt = [
        1,
        place["image"],
        9,
        place["region"],
        2,
        *[place["roi"], place["box"], place["/roi"], place["feat"]] * 2,
    ]
    given = {
        # The second user box hides the first: both score 1, and which goes first is the record's affair.
        "refer_boxes.0": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.38]]),
        "input_ids": torch.tensor([prompt]),
    }
    tensors: Values = {}
    for run, stages in (
        (ReferenceRun("refer", given, {"generated_ids": torch.zeros(1, 4)}), PROMPT_STAGES),
        (
            ReferenceRun(
                "det_loss.sa1b", {"gt_boxes": torch.tensor([[0.3, 0.4, 0.2, 0.2], [0.7, 0.6, 0.3, 0.1]])}, {}
            ),
            DETECTOR_STAGES,
        ),
    ):
        values: Values = {"pixels": batch_pixels(pixels, 1)}
        for _, stage in [*vision_stages(model), *stages]:
            for key, value in stage(model, run, values).items():
                values.setdefault(key, value)
        results = {
            key: value for key, value in values.items() if key.split(".")[0] not in (*INTERNAL, "pixels")
        }
        tensors |= {
            f"{run.name}.{key}": value.contiguous().clone() for key, value in {**run.given, **results}.items()
        }
    save_file(tensors, folder / "tensors.safetensors")


@pytest.mark.parametrize(("side", "levels"), [(252, 2), (108, 3), (252, 4)])
def test_other_sizes_levels_and_grids_are_read(tmp_path: Path, side: int, levels: int) -> None:
    record(tmp_path, side, levels)
    reference = Reference.load(tmp_path)
    assert reference.model.config.grid == 18 and reference.model.config.num_image_tokens == 81
    report = verify(reference)
    assert report.ok and report.not_compared == ()
    names = {check.tensor for check in report.checks}
    assert {
        "image.resized_uint8_hwc",
        f"refer.src.{levels - 1}",
        "refer.generated_ids",
        "det_loss.sa1b.loss_giou_enc",
    } <= names
    convolution: Any = reference.model.region_encoder.mlvl_fuse.fuse_convs[0]
    convolution.gn.bias.add_(0.01)
    assert not verify(reference).ok


def test_folders_that_cannot_be_used_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, str(tmp_path / "absent")) == 1
    assert "absent does not exist." in capsys.readouterr().err
    for path in TRIMMED.iterdir():
        (tmp_path / path.name).symlink_to(path)

    def error_after(name: str, content: bytes | None) -> str:
        place = tmp_path / name
        place.unlink()
        if content is not None:
            place.write_bytes(content)
        assert run_command(monkeypatch, str(tmp_path), "--json") == 1
        captured = capsys.readouterr()
        place.unlink(missing_ok=True)
        place.symlink_to(TRIMMED / name)
        assert captured.out == "" and captured.err.startswith("groma: ") and captured.err.count("\n") == 1
        return captured.err

    assert "meta.json does not exist" in error_after("meta.json", None)
    assert "tensors.safetensors is damaged" in error_after("tensors.safetensors", b"123456789")
    assert "config.json is not JSON" in error_after("config.json", b"{")
    config = json.loads((TRIMMED / "config.json").read_text())
    config["llm_cfg"]["hidden_size"] = 52
    assert "config cannot be built" in error_after("config.json", json.dumps(config).encode())
    config["llm_cfg"]["hidden_size"] = 56
    assert "of shape" in error_after("config.json", json.dumps(config).encode())
    meta = json.loads((TRIMMED / "meta.json").read_text())
    assert "puts <r0> at 5" in error_after("meta.json", json.dumps({**meta, "r0": 5}).encode())
    tensors = load_file(TRIMMED / "tensors.safetensors")
    small = {
        "other.logits": tensors["rec.final_hidden"],
        "other.input_ids": tensors["rec.input_ids"].repeat(3, 1),
    }
    save_file(small, tmp_path / "three.safetensors")
    assert "batch of 3 images" in error_after(
        "tensors.safetensors", (tmp_path / "three.safetensors").read_bytes()
    )
