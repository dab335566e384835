"""The metadata for pip and for ROS agree."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

import groma_ros

if sys.version_info >= (3, 11):
    import tomllib
else:  # mypy and pytest bring it
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = {
    name: {
        re.split("[=; ]", line)[0]
        for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for name in ("runtime", "full", "docs")
}


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in requirements}


def test_package_xml_has_the_version_of_the_python_package() -> None:
    version = xml.etree.ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert version == groma_ros.__version__
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "groma_ros.__version__"}


def test_every_dependency_is_pinned_in_both_locks() -> None:
    needed = distributions(PYPROJECT["project"]["dependencies"])
    assert "sentencepiece" in needed
    assert needed <= PINS["runtime"] and needed <= PINS["full"]


@pytest.mark.parametrize("extra", ["train", "llama", "eval", "hub", "plots", "ray", "dev"])
def test_every_extra_is_pinned_in_the_full_lock(extra: str) -> None:
    assert distributions(PYPROJECT["project"]["optional-dependencies"][extra]) <= PINS["full"]


def test_the_documentation_is_pinned_in_a_lock_of_its_own() -> None:
    assert distributions(PYPROJECT["project"]["optional-dependencies"]["docs"]) <= PINS["docs"]


@pytest.mark.parametrize("name", ["runtime", "full", "kilted", "sim", "docs"])
def test_every_pin_of_a_lock_has_the_hashes_of_its_files(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    whole = re.findall(
        r"^[a-z0-9][a-z0-9-]*==\S+(?: ; .+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text, re.M
    )
    assert len(pins) > 40 and len(whole) == len(pins)
