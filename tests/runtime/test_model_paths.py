"""Search for models: checkout, wheel, installed workspace, models folder, none."""

from __future__ import annotations

from pathlib import Path

import pytest

from groma_ros.runtime import model_paths
from groma_ros.runtime.model_paths import find_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that is installed without any model, on a machine without any."""
    package = tmp_path / "prefix" / "lib" / "python3" / "site-packages" / "groma_ros"
    package.mkdir(parents=True)
    monkeypatch.setattr(model_paths, "PACKAGE", package)
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    monkeypatch.setenv("GROMA_MODELS", str(tmp_path / "models"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return package


def make_bundle(folder: Path, content: str = "{}") -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    return folder


def test_a_checkout_has_it_beside_the_package(package: Path) -> None:
    folder = make_bundle(package.parent / "engines" / "groma-tiny")
    assert model_paths.shipped_model() == folder == find_model() == find_model("groma-tiny")


def test_a_wheel_has_it_in_the_package(package: Path) -> None:
    folder = make_bundle(package / "shipped" / "engines" / "groma-tiny")
    assert model_paths.shipped_model() == folder == find_model("groma-tiny")


def test_a_workspace_has_it_in_the_share_folder(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = package.parents[3]
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "groma_ros").touch()
    folder = make_bundle(prefix / "share" / "groma_ros" / "engines" / "groma-tiny")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    assert model_paths.shipped_model() == folder == find_model("groma-tiny")
    assert (
        "install(DIRECTORY config engines launch DESTINATION share/" in (ROOT / "CMakeLists.txt").read_text()
    )


def test_missing_model_error_says_to_name_a_folder(package: Path) -> None:
    with pytest.raises(
        ValueError, match="groma-tiny was not found where the package is; name the folder of a model"
    ):
        model_paths.shipped_model()


def test_the_models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("GROMA_MODELS", raising=False)
    assert model_paths.models_folder() == tmp_path / ".local/share/groma_ros/models"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert model_paths.models_folder() == tmp_path / ".local/share/groma_ros/models"
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")
    assert model_paths.models_folder() == Path("/srv/data/groma_ros/models")
    monkeypatch.setenv("GROMA_MODELS", "~/m")
    assert model_paths.models_folder() == tmp_path / "m"


def test_without_a_home_folder_it_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("GROMA_MODELS", raising=False)
    with pytest.raises(ValueError, match="set GROMA_MODELS to a folder"):
        model_paths.models_folder()
    assert find_model("groma-tiny").name == "groma-tiny"  # what ships is found all the same


def test_a_name_is_looked_up_in_the_models_folder_first(package: Path, tmp_path: Path) -> None:
    shipped = make_bundle(package / "shipped" / "engines" / "groma-tiny")
    mine = make_bundle(tmp_path / "models" / "groma-7b")
    assert find_model("groma-7b") == mine
    assert find_model("groma-tiny") == shipped
    copy = make_bundle(tmp_path / "models" / "groma-tiny")
    assert find_model("groma-tiny") == copy  # the same model, so there is no doubt


def test_a_name_of_two_different_models_is_refused(package: Path, tmp_path: Path) -> None:
    shipped = make_bundle(package / "shipped" / "engines" / "groma-tiny")
    other = make_bundle(tmp_path / "models" / "groma-tiny", '{"name": "other"}')
    with pytest.raises(ValueError, match="groma-tiny stands for two different models, ") as caught:
        find_model("groma-tiny")
    assert str(shipped) in str(caught.value) and str(other) in str(caught.value)
    assert find_model(other) == other == find_model(str(other))


def test_folders_by_their_paths(package: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "work" / "mine")
    assert find_model(folder) == folder
    assert find_model("./mine") == Path("mine") == find_model("mine") == find_model(Path("mine"))
    with pytest.raises(ValueError, match="The model folder no/such does not exist; name a folder that holds"):
        find_model("no/such")
    with pytest.raises(ValueError, match="manifest.json is a file; name a folder"):
        find_model(folder / "manifest.json")


def test_unknown_name_error_suggests_what_to_do(package: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "models" / "kitchen")
    with pytest.raises(ValueError, match=r"no model 'kitchn' on this machine \(did you mean kitchen\?"):
        find_model("kitchn")
    with pytest.raises(ValueError, match=r"no model 'zzz' on this machine \(known are kitchen\)"):
        find_model("zzz")
    with pytest.raises(
        ValueError, match="groma-7b is not on this machine; groma fetch groma-7b downloads it"
    ):
        find_model("groma-7b")
    checkpoint = tmp_path / "models" / "checkpoints" / "groma-7b"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    assert model_paths.find_checkpoint("groma-7b") == checkpoint
    with pytest.raises(ValueError, match="fetched but not converted yet; run groma convert groma-7b first"):
        find_model("groma-7b")
