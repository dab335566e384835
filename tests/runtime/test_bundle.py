"""Loading of bundles, and errors for invalid ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from groma_ros.grounding.grounder import Grounder
from groma_ros.preprocessing import ImageTransform
from groma_ros.runtime.bundle import MANIFEST, TOKENIZER, WEIGHTS, Bundle, BundleError
from tests.small import NETWORK, SIZE, write_small_bundle


@pytest.fixture
def copy(small_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "trained_on": "nothing",
        "licence": "Apache-2.0",
        "seeds": {"train": 3},
        "test": {"recall": 0.5},
    }
    folder = write_small_bundle(tmp_path / "b", calibration={"temperature": 2.0}, **said)
    bundle = Bundle.load(folder)
    assert bundle.name == "small" and bundle.trained_on == "nothing" and bundle.licence == "Apache-2.0"
    assert bundle.image == ImageTransform(SIZE, "area")
    assert (
        bundle.seeds == {"train": 3}
        and bundle.test == {"recall": 0.5}
        and bundle.calibration == {"temperature": 2.0}
    )
    assert bundle.network["image_size"] == NETWORK["image_size"]
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, WEIGHTS, TOKENIZER]


def test_weights_are_stored_in_half_precision(small_model: Path) -> None:
    tensors = load_file(small_model / WEIGHTS)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    assert tensors["new_input_embs.weight"].shape == (30, 64)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"The model folder .*nowhere does not exist"):
        Bundle.load(tmp_path / "nowhere")


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no manifest.json, so it is not a model bundle"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER])
def test_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}, which its manifest names"):
        Bundle.load(copy)


def test_a_truncated_file(copy: Path) -> None:
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(BundleError, match=f"is truncated: {len(whole) - 100} of {len(whole)} bytes"):
        Bundle.load(copy)


def test_one_altered_byte(copy: Path) -> None:
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(
        BundleError, match=r"model.safetensors was altered: its sha256 is not the one in the manifest"
    ):
        Bundle.load(copy).file(WEIGHTS)


def test_a_file_that_grew(copy: Path) -> None:
    with (copy / TOKENIZER).open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(
        BundleError, match=r"tokenizer.model was altered: it has \d+ bytes and the manifest says \d+"
    ):
        Bundle.load(copy)


def test_a_damaged_manifest(copy: Path) -> None:
    (copy / MANIFEST).write_text((copy / MANIFEST).read_text()[:200])
    with pytest.raises(BundleError, match=r"manifest.json is not valid JSON"):
        Bundle.load(copy)


@pytest.mark.parametrize("key", ["format", "name", "network", "image", "prompt", "files"])
def test_a_manifest_without_a_key(copy: Path, key: str) -> None:
    edit(copy, lambda manifest: manifest.pop(key))
    with pytest.raises(BundleError, match=f"lacks {key}, so it is not a whole manifest"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "format",
            2,
            "was written by a newer groma_ros: it has format 2 and this version reads format 1; update "
            "groma_ros, or convert the model's checkpoint with this version",
        ),
        ("format", 0, "has format 0, this version reads format 1; convert the model's checkpoint again"),
        ("format", "1\n", r"has format 1\\n, this version reads format 1"),
        ("name", "a\x1b[31m", r"has the name 'a\\x1b\[31m'; a model's name is printable text of at most 200"),
        ("name", "", "has the name ''; a model's name is printable text"),
        ("name", "a" * 201, "has the name 'a+\\.\\.\\.; a model's name is printable text"),
        ("name", 7, "has the name 7; a model's name is printable text"),
        ("files", {"a\u202eb": {"sha256": "", "bytes": 0}}, r"lists 'a\\u202eb', which is not the name of a"),
        ("image", {"size": 112, "resize": "nearest"}, "The image resize 'nearest' is unknown"),
        ("image", {"size": "112"}, "The image size '112' is not a number of pixels"),
        ("image", {"size": 112, "mean": [0.5, 0.5]}, r"The image mean \(0.5, 0.5\) is not three numbers"),
        ("image", {"size": 112, "std": [0.2, 0.2, 0]}, "is not three numbers above 0"),
        ("image", {"side": 112}, "is not a manifest this version reads"),
        ("image", 112, "is not a manifest this version reads"),
        ("weather", "fine", "is not a manifest this version reads"),
        ("files", {"model.safetensors": "abc"}, "says nothing of the size and sha256 of model.safetensors"),
        (
            "files",
            {"../model.safetensors": {"sha256": "", "bytes": 0}},
            "is not the name of a file beside it",
        ),
        ("files", ["model.safetensors"], "must list its files"),
        (
            "files",
            {"model.safetensors": {"sha256": "", "bytes": "many"}},
            "says nothing of the size and sha256",
        ),
        ("files", {"model.safetensors": {"sha256": 7, "bytes": 0}}, "says nothing of the size and sha256"),
    ],
)
def test_a_manifest_with_a_wrong_value(copy: Path, key: str, value: object, message: str) -> None:
    edit(copy, lambda manifest: manifest.update({key: value}))
    with pytest.raises(BundleError, match=message):
        Bundle.load(copy)


def _network(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: change(manifest["network"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _network(lambda n: n["llm_cfg"].update(intermediate_size=96)),
            r"shape \(64, 64\), but the config asks for \(64, 96\)",
        ),
        (_network(lambda n: n["llm_cfg"].update(num_hidden_layers=3)), r"lack the key llm.model.layers.2"),
        (
            _network(lambda n: n["llm_cfg"].update(num_hidden_layers=1)),
            r"the network of their config does not have",
        ),
        (_network(lambda n: n["llm_cfg"].update(num_attention_heads=5)), r"heads must divide hidden_size"),
        (_network(lambda n: n.update(image_size=100)), r"image_size 100 must be divisible by 28"),
        (_network(lambda n: n.update(max_region_num=0)), r"max_region_num 0 is not 1 to 16"),
        (_network(lambda n: n.update(box_score_thres="x")), r"box_score_thres is 'x' and not of type float"),
        (
            _network(lambda n: n["region_cfg"].update(sampling_ratio=7.5)),
            r"sampling_ratio is 7.5 and not of type int",
        ),
        (
            _network(lambda n: n["perceiver_cfg"].update(vis_output_layer="x")),
            r"vis_output_layer is 'x' and not of type int",
        ),
        (
            _network(lambda n: n["perceiver_cfg"]["ddetr_cfg"].update(two_stage=1)),
            r"two_stage is 1 and not of type bool",
        ),
        (_network(lambda n: n.update(nms_thres=2.0)), r"nms_thres 2.0 must be from 0 to 1"),
        (_network(lambda n: n.pop("perceiver_cfg")), r"has no key 'perceiver_cfg'"),
        (_network(lambda n: n.update(llm_cfg="large")), r"The network config of small cannot be built"),
        (lambda m: m.update(prompt={"prefix": "no placeholders"}), r"must hold exactly one <image>"),
        (lambda m: m.update(prompt={"prefix": "<image><region>", "colour": 1}), r"the unknown key 'colour'"),
        (lambda m: m["prompt"].update(prefix=None), r"The prompt template's prefix is null and not a text"),
        (
            lambda m: m["prompt"].update(answer_prefix=7),
            r"The prompt template's answer_prefix is 7 and not a text",
        ),
        (lambda m: m["prompt"].update(queries={"auto": [7]}), r"The bundle small cannot be used"),
        (lambda m: m.update(calibration={"warmth": 1.0}), r"the unknown key 'warmth'"),
        (lambda m: m.update(calibration={"temperature": 0.0}), r"The calibration temperature is 0.0"),
        (lambda m: m["image"].update(size=140), r"pictures of 140 pixels.*network config 112"),
    ],
)
def test_a_config_that_does_not_fit(
    copy: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(copy, change)
    with pytest.raises(BundleError, match=message):
        Grounder.load(copy)


def test_a_tokenizer_of_another_model(copy: Path) -> None:
    other = Path(__file__).parents[1] / "data" / "tokenizer" / "reference.model"
    shutil.copy(other, copy / TOKENIZER)
    import hashlib

    data = other.read_bytes()
    edit(
        copy,
        lambda m: m["files"].update(
            {TOKENIZER: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
        ),
    )
    with pytest.raises(BundleError, match=r"The tokenizer of small has \d+ pieces, its network config \d+"):
        Grounder.load(copy)
