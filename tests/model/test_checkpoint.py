"""Weights in every format the original ships, and errors for those that do not fit."""

import json
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from groma_ros.model import weight_files as weight_files_module
from groma_ros.model.checkpoint import (
    empty_groma,
    fill,
    load_groma,
    load_perceiver,
    load_weights,
    original_state_dict,
)
from groma_ros.model.groma import Groma
from groma_ros.model.weight_files import TensorFile, weight_files
from groma_ros.network_config import GromaConfig

CONFIG = {
    "image_size": 28,
    "num_new_token": 16,
    "max_region_num": 2,
    "llm_cfg": {
        "vocab_size": 20,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "region_cfg": {"groups": 2, "pos_hidden": 4, "hidden": 4, "fuse_rounds": 1, "pooled": 2},
    "perceiver_cfg": {
        "vis_output_layer": -1,
        "vis_encoder_cfg": {
            "hidden_size": 8,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "ddetr_cfg": {
            "two_stage": True,
            "with_box_refine": True,
            "num_feature_levels": 1,
            "d_model": 8,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_ffn_dim": 8,
            "decoder_ffn_dim": 8,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "num_queries": 3,
            "two_stage_num_proposals": 3,
        },
    },
}
QUERY = "perceiver.vis_encoder.encoder.layer.0.attention.attention.query.weight"
HEAD = "perceiver.ddetr_transformer.bbox_embed.0.layers.0.bias"
ALIAS = "perceiver.ddetr_transformer.decoder.bbox_embed.0.layers.0.bias"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return original_state_dict(Groma(GromaConfig.from_dict(CONFIG)))


def write_config(folder: Path, config: dict[str, object] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config or CONFIG))
    return folder


def assert_loaded(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    loaded = original_state_dict(model)  # type: ignore[arg-type]
    assert set(loaded) == set(weights)
    for key, value in weights.items():
        assert torch.equal(loaded[key], value), key


def test_the_published_key_list_and_shapes_are_ours() -> None:
    data = Path(__file__).parent.parent / "data" / "golden"
    config = json.loads((data / "full_config_example.json").read_text())
    config["llm_cfg"]["num_hidden_layers"] = 1
    published = {
        key: tuple(shape) for key, shape in json.loads((data / "full_keys.json").read_text()).items()
    }
    model = empty_groma(GromaConfig.from_dict(config))
    ours = {key: tuple(value.shape) for key, value in original_state_dict(model).items()}
    aliases = {key for key in published if ".decoder.bbox_embed" in key or ".decoder.class_embed" in key}
    assert len(published) == 898 and len(aliases) == 68
    assert ours == {key: shape for key, shape in published.items() if key not in aliases}
    fill(
        model,
        ((key, torch.empty(shape, device="meta")) for key, shape in published.items() if key not in aliases),
        "the published list",
    )


def test_a_folder_loads_the_same_in_every_form(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    keys = sorted(weights)
    halves = {"pytorch_model-00001-of-00002.bin": keys[::2], "pytorch_model-00002-of-00002.bin": keys[1::2]}
    for form in ("bin", "old_bin", "shards", "safetensors", "safetensors_shards"):
        folder = tmp_path / form
        folder.mkdir()
        write_config(folder)
        if form in ("bin", "old_bin"):
            torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "bin")
        elif form == "safetensors":
            save_file(weights, folder / "model.safetensors")
        else:
            for name, part in halves.items():
                content = {key: weights[key] for key in part}
                if form == "shards":
                    torch.save(content, folder / name)
                else:
                    save_file(content, folder / name.replace(".bin", ".safetensors"))
            place = {key: name for name, part in halves.items() for key in part}
            if form == "shards":
                (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": place}))
            else:
                place = {key: name.replace(".bin", ".safetensors") for key, name in place.items()}
                (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
        assert_loaded(load_groma(folder), weights)


def test_a_loaded_network_runs_and_agrees_with_one_built_in_memory(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, write_config(tmp_path) / "model.safetensors")
    torch.manual_seed(0)
    built, loaded = Groma(GromaConfig.from_dict(CONFIG)).eval(), load_groma(tmp_path)
    embeddings = torch.randn(1, 5, 8)
    with torch.no_grad():
        assert torch.equal(built.logits(built.hidden(embeddings)), loaded.logits(loaded.hidden(embeddings)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_load_and_can_be_widened(
    weights: dict[str, torch.Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    halves = {key: value.to(dtype) for key, value in weights.items()}
    torch.save(halves, write_config(tmp_path) / "pytorch_model.bin")
    assert_loaded(load_groma(tmp_path), halves)
    assert_loaded(load_groma(tmp_path, torch.float32), {key: value.float() for key, value in halves.items()})
    model = Groma(GromaConfig.from_dict(CONFIG))
    load_weights(model, tmp_path)
    assert_loaded(model, {key: value.float() for key, value in halves.items()})


def test_either_name_of_the_duplicated_heads_serves(weights: dict[str, torch.Tensor]) -> None:
    def loaded(content: dict[str, torch.Tensor]) -> Groma:
        model = empty_groma(GromaConfig.from_dict(CONFIG))
        fill(model, content.items(), "a test")
        return model

    heads = [key for key in weights if ".bbox_embed." in key or ".class_embed_" in key]
    renamed = {
        key.replace("ddetr_transformer.", "ddetr_transformer.decoder.") if key in heads else key: v
        for key, v in weights.items()
    }
    assert len(heads) == 6 * 3 + 2 * 2 * 2 + 2 and renamed.keys() != weights.keys()
    assert_loaded(loaded(renamed), weights)
    assert_loaded(loaded({**weights, **renamed}), weights)
    assert_loaded(
        loaded({**weights, "llm.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}), weights
    )
    with pytest.raises(
        ValueError, match=f"one weight twice, as {HEAD} and as {ALIAS}, with different values"
    ):
        loaded({**weights, ALIAS: weights[HEAD] + 1})


def test_the_detector_loads_alone_with_or_without_its_prefix(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    detector = {
        key.removeprefix("perceiver."): value
        for key, value in weights.items()
        if key.startswith("perceiver.")
    }
    torch.save(detector, write_config(tmp_path, CONFIG["perceiver_cfg"]) / "pytorch_model.bin")  # type: ignore[arg-type]
    assert_loaded(load_perceiver(tmp_path), detector)
    with pytest.raises(ValueError, match="lack the key llm.model.embed_tokens.weight and"):
        load_weights(Groma(GromaConfig.from_dict(CONFIG)), tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    save_file(weights, write_config(whole) / "model.safetensors")
    assert_loaded(load_perceiver(whole), detector)


def test_a_detector_with_a_refiner_loads_alone_and_from_a_whole_checkpoint(tmp_path: Path) -> None:
    plain: Any = CONFIG["perceiver_cfg"]
    crops = {"crop": [4, 8], "crop_side": 16}
    config = {**CONFIG, "perceiver_cfg": {**plain, "ddetr_cfg": {**plain["ddetr_cfg"], **crops}}}
    weights = original_state_dict(Groma(GromaConfig.from_dict(config)))
    folder = tmp_path / "whole"
    folder.mkdir()
    save_file(weights, write_config(folder, config) / "model.safetensors")
    loaded = load_perceiver(folder)
    assert loaded.refiner is not None
    wanted = weights["perceiver.refiner.change.weight"]
    assert torch.equal(loaded.refiner.change.weight, wanted)


def test_unknown_keys_are_reported_with_their_sizes_and_left_out(
    weights: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    extra = {f"perceiver.mystery.{index}": torch.zeros(250_000 * (index + 1)) for index in range(7)}
    model = empty_groma(GromaConfig.from_dict(CONFIG))
    fill(model, {**weights, **extra}.items(), "a test")
    assert_loaded(model, weights)
    said = (
        "The weights in a test have keys that the network of their config does not have (number: 7, 28.0 "
        "MB in all): perceiver.mystery.6 (7.0 MB), perceiver.mystery.5 (6.0 MB), perceiver.mystery.4 (5.0 "
        "MB), perceiver.mystery.3 (4.0 MB), perceiver.mystery.2 (3.0 MB) and 2 more; "
    )
    assert said + "they are left out." in caplog.text
    with pytest.raises(ValueError) as caught:
        fill(model, {**weights, **extra}.items(), "a test", strict=True)
    assert str(caught.value) == said + "without strict loading they are left out."


def test_a_missing_or_wrong_key_is_named(weights: dict[str, torch.Tensor]) -> None:
    model = empty_groma(GromaConfig.from_dict(CONFIG))
    without = {key: value for key, value in weights.items() if key != QUERY}
    for content, message in (
        (without, f"in a test lack the key {QUERY}\\."),
        (
            {**weights, QUERY: torch.zeros(8, 9)},
            rf"{QUERY} of shape \(8, 9\), but the config asks for \(8, 8\)",
        ),
        ({**weights, QUERY: torch.zeros(8, 8, dtype=torch.int8)}, f"{QUERY} of type torch.int8"),
    ):
        with pytest.raises(ValueError, match=message):
            fill(model, content.items(), "a test")


class Malicious:
    """A pickle that would write a file when loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, (f"open({str(self.target)!r}, 'w').close()",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("archive", [True, False])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, archive: bool) -> None:
    file, target = tmp_path / "pytorch_model.bin", tmp_path / "written"
    if archive:
        torch.save({"key": Malicious(target)}, file)
    else:
        file.write_bytes(pickle.dumps({"key": Malicious(target)}))
    what = r"code or objects \(exec\)" if archive else "something other than tensors"
    with pytest.raises(
        ValueError, match=f"pytorch_model.bin holds {what}, which could run when it is loaded"
    ):
        load_groma(write_config(tmp_path))
    assert not target.exists()
    pickle.loads(pickle.dumps(Malicious(target)))
    assert target.exists()  # it would have run


def test_damaged_and_missing_files_are_named(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config.json does not exist"):
        load_groma(tmp_path)
    write_config(tmp_path)
    with pytest.raises(ValueError, match="holds no weights; expected one of model.safetensors"):
        load_groma(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(weights, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        TensorFile(file)
    binary = tmp_path / "pytorch_model.bin"
    torch.save(weights, binary)
    for content in (binary.read_bytes()[:5000], b"", b"not weights"):
        binary.write_bytes(content)
        with pytest.raises(
            ValueError, match="pytorch_model.bin (is damaged: .*fetch it again|holds something other)"
        ):
            TensorFile(binary)
    torch.save([1, 2], binary)
    with pytest.raises(ValueError, match="not a plain dictionary of tensors"):
        TensorFile(binary)
    torch.save({**weights, "step": 7, "note": "plain values beside tensors"}, binary)
    assert set(TensorFile(binary)) == set(weights)
    index = tmp_path / "pytorch_model.bin.index.json"
    for text, message in (
        ('{"weight_map": {"a": "absent.bin"}}', "shard absent.bin is missing"),
        ('{"weight_map": {"a": "../secret.bin"}}', "not a file beside it"),
        ("{}", "no weight_map"),
        ("{", "not JSON"),
    ):
        index.write_text(text)
        with pytest.raises(ValueError, match=message):
            weight_files(index)


def test_a_pointer_of_git_lfs_is_named_as_such(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00ff\nsize 33100000000\n"
    for name in ("config.json", "pytorch_model.bin", "model.safetensors"):
        write_config(tmp_path)
        (tmp_path / name).write_text(pointer)
        with pytest.raises(
            ValueError, match=f"{name} is a Git LFS pointer and not the file itself; run git lfs"
        ):
            load_groma(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llava", "text_config": {}}, "a model of the family 'llava' and not Groma"),
        ({"vis_encoder_cfg": {}, "ddetr_cfg": {}}, "describes Groma's region proposer alone"),
        ({"hidden_size": 4096}, "has no key 'perceiver_cfg'; it is not a Groma config.json"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_groma(write_config(tmp_path, config))


def test_a_pickle_that_cannot_be_mapped_is_not_read_beyond_a_size(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save(weights, file, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(weight_files_module, "MAX_UNMAPPED", file.stat().st_size - 1)
    with pytest.raises(ValueError, match="is no zip archive, so it can only be read whole"):
        TensorFile(file)


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from groma_ros.model.weight_files import TensorFile
TensorFile(Path(sys.argv[2]))  # imports what it needs
size = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")][0] * 1024
limit = size + 50_000_000  # of private writable memory, in which a copy-on-write mapping counts whole
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
tensors = TensorFile(Path(sys.argv[1]))
print(sorted(tensors), float(tensors["last"][-1, 5]), tensors["last"].shape, tensors["column"].tolist())
"""


def test_a_pickle_larger_than_free_memory_is_mapped(tmp_path: Path) -> None:
    file, small = tmp_path / "pytorch_model.bin", tmp_path / "small.bin"
    torch.save({"one": torch.ones(1)}, small)
    last = torch.zeros(40, 1_000_000)
    last[-1, 5] = 2.5
    table = torch.arange(6.0).reshape(2, 3)
    torch.save({"last": last, "column": table[:, 1], "half": torch.ones(3, dtype=torch.bfloat16)}, file)
    del last
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(file), str(small)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stdout == "['column', 'half', 'last'] 2.5 torch.Size([40, 1000000]) [1.0, 4.0]\n", ran.stderr


def test_a_mapped_pickle_gives_the_values_that_were_saved(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    shared = torch.randn(4, 5)
    saved = {
        "whole": shared,
        "view": shared[1:3, ::2],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(2.0),
    }
    torch.save(saved, file)
    found = TensorFile(file)
    assert list(found) == list(saved)
    for name, value in saved.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_a_file_that_the_system_does_not_map_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"one": torch.ones(3)}, file)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(ValueError, match=r"cannot be read: \[Errno 12\] Cannot allocate memory\.$"):
        TensorFile(file)


def test_altered_pickles_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    whole, altered = tmp_path / "whole.bin", tmp_path / "pytorch_model.bin"
    torch.save({"one": torch.randn(4, 5), "view": torch.randn(3)[1:], "half": torch.ones(2).half()}, whole)
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))
    rng, refused = random.Random(0), 0
    for number in range(200):
        if number % 2:
            content = bytearray(parts[pickled])
            content[rng.randrange(len(content))] = rng.randrange(256)
            with zipfile.ZipFile(altered, "w") as archive:
                for name, part in parts.items():
                    archive.writestr(name, bytes(content) if name == pickled else part)
        else:
            content = bytearray(whole.read_bytes())
            content[rng.randrange(len(content))] = rng.randrange(256)
            altered.write_bytes(content)
        try:
            for tensor in TensorFile(altered).values():
                tensor.float().sum()  # reads every value
        except ValueError as error:
            assert str(error).startswith(f"The weight file {altered} ") and str(error).endswith(".")
            refused += 1
    assert 60 <= refused < 200
