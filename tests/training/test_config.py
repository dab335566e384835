"""Training configs: every key and value that cannot be used is named, before anything is rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from groma_ros.training.config import TrainConfig

CONFIGS = Path(__file__).parents[2] / "config"
_GONE = "(left out)"


def changed(path: Path, key: str, value: Any) -> Path:
    """Write config/train_tiny.yaml with another value of a key, e.g. "language: share", or without it."""
    document = yaml.safe_load((CONFIGS / "train_tiny.yaml").read_text())
    *parts, last = key.split(": ")
    inner = document
    for part in parts:
        inner = inner[part]
    inner[last] = value
    if value is _GONE:
        del inner[last]
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("network", _GONE, "it has no network; config/train_tiny.yaml is an example of a whole file."),
        ("language", _GONE, "it has no language; config/train_tiny.yaml is an example of a whole file."),
        ("network", [1], "network is [1]; it must be a mapping from settings to values."),
        (
            "network: perceiver_cfg: ddetr_cfg: num_querys",
            24,
            "network: perceiver_cfg: ddetr_cfg: unknown key",
        ),
        ("network: llm_cfg", 3, "network: llm_cfg is 3; it must be a mapping from settings to values."),
        (
            "network: region_cfg: hidden",
            "x",
            "The network config is wrong: hidden is 'x' and not of type int.",
        ),
        ("detection: step", 3, "detection: unknown key 'step'; known are alone, backbone, batch, "),
        ("detection: steps", _GONE, "detection has no steps; add it."),
        ("detection", None, "detection is null; it must be a mapping from settings to values."),
        ("detection: steps", "many", "detection: steps is 'many'; it must be a whole number from 0."),
        ("language: steps", -1, "language: steps is -1; it must be a whole number from 0."),
        ("language: steps", True, "language: steps is True; it must be a whole number from 0."),
        ("alignment: batch", 0, "alignment: batch is 0; it must be a whole number from 1."),
        ("alignment: batch", 1.5, "alignment: batch is 1.5; it must be a whole number from 1."),
        ("language: rate", float("nan"), "language: rate is nan; it must be a number from 0."),
        ("language: rate", float("inf"), "language: rate is inf; it must be a number from 0."),
        ("language: rate", -0.1, "language: rate is -0.1; it must be a number from 0."),
        (
            "language: rate",
            "1e-3",
            "language: rate is '1e-3'; it must be a number from 0; YAML reads 1e-3 as",
        ),
        ("language: said", 1.5, "language: said is 1.5; it must be a number from 0 to 1."),
        ("language: live", "yes", "language: live is 'yes'; it must be true or false."),
        (
            "language: share",
            {"foo": 1},
            "language: share: unknown key 'foo'; known are absent, all, attribute,",
        ),
        ("language: share", {"absent": "x"}, "language: share: absent is 'x'; it must be a number from 0"),
        ("language: share", 3, "language: share is 3; it must be a mapping from settings to values."),
        ("pool: world", "moon", "pool: world is 'moon'; it must be one of mixed, table, shelf, room, wide, "),
        ("pool", [{"first_seed": 0}], "pool[0] has no scenes; add it."),
        ("pool", None, "pool is null; it must be a mapping from settings to values."),
        ("held_out: scenes", 0, "held_out: scenes is 0; it must be a whole number from 1."),
        ("held_out: size", "x", "held_out: size is 'x'; it must be a whole number from 32."),
        ("seed", -1, "seed is -1; it must be a whole number from 0."),
        ("workers", 0, "workers is 0; it must be a whole number from 1."),
        ("prompts", "big", "prompts is 'big'; it must be one of tiny, published."),
        ("usual", "mixed", "usual is 'mixed'; it must be a list of texts."),
        ("average", {"language": 0.5}, "the shares of average sum to 0.5; they must sum to 1."),
        (
            "average",
            {"last": 1},
            "average: unknown key 'last'; known are alignment, detection, joint, language.",
        ),
        (7, 1, "unknown key 7; known are alignment,"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, key: Any, value: Any, said: str) -> None:
    path = tmp_path / "a.yaml"
    if isinstance(key, int):
        path.write_text(f"{key}: {value}")
    else:
        changed(path, key, value)
    with pytest.raises(ValueError, match=r"^The training config .*a.yaml cannot be used: ") as caught:
        TrainConfig.load(path)
    assert said in str(caught.value) and not str(caught.value).endswith("..")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory."),
        ("", "cannot be used: it is null; it must be a mapping from settings to values."),
        ("- 1", "cannot be used: it is [1]; it must be a mapping from settings to values."),
        ("a: [", "cannot be used: it is not YAML: in line "),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError) as caught:
        TrainConfig.load(path)
    assert str(caught.value).startswith(f"The training config {path} {said}")


def test_a_file_without_optional_keys_and_with_zero_steps_is_read(tmp_path: Path) -> None:
    path = changed(tmp_path / "a.yaml", "detection: steps", 0)
    for key, value in (("held_out", None), ("pool", _GONE), ("seed", _GONE)):
        document = yaml.safe_load(path.read_text())
        document.pop(key, None) if value is _GONE else document.update({key: value})
        path.write_text(yaml.safe_dump(document))
    config = TrainConfig.load(path)
    assert (config.detection.steps, config.pool, config.held_out, config.seed) == (0, (), None, 0)


@pytest.mark.parametrize(
    "path",
    sorted(path for name in ("train_*", "finetune_*") for path in CONFIGS.glob(f"{name}.yaml")),
    ids=lambda path: path.stem,
)
def test_every_shipped_config_is_read(path: Path) -> None:
    assert TrainConfig.load(path).detection.batch >= 1
