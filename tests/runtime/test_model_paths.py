"""Where the model that ships is found: in a checkout, in an installed workspace, and nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from groma_ros.runtime import model_paths

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prefix of a workspace in which the package lies as colcon installs it, without any model yet."""
    package = tmp_path / "lib" / "python3" / "site-packages" / "groma_ros"
    (package / "runtime").mkdir(parents=True)
    monkeypatch.setattr(model_paths, "__file__", str(package / "runtime" / "model_paths.py"))
    return tmp_path


def test_a_checkout_has_it_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engines" / "groma-tiny").mkdir(parents=True)
    monkeypatch.setattr(model_paths, "__file__", str(tmp_path / "groma_ros" / "runtime" / "model_paths.py"))
    assert model_paths.shipped_model() == tmp_path / "engines" / "groma-tiny"


def test_a_workspace_has_it_in_the_share_folder(site_packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = site_packages / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "groma_ros").touch()
    (site_packages / "share" / "groma_ros").mkdir()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(site_packages))
    assert model_paths.shipped_model() == site_packages / "share" / "groma_ros" / "engines" / "groma-tiny"
    assert (
        "install(DIRECTORY config engines launch DESTINATION share/" in (ROOT / "CMakeLists.txt").read_text()
    )


@pytest.mark.parametrize("sourced", [True, False])
def test_without_either_it_says_so(
    site_packages: Path, monkeypatch: pytest.MonkeyPatch, sourced: bool
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(site_packages) if sourced else "")
    with pytest.raises(
        ValueError, match="groma-tiny was not found where the package is; name the folder of a model"
    ):
        model_paths.shipped_model()
