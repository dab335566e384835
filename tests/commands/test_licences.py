"""The table of licences against the metadata of the installed packages."""

import json
import sys
from importlib import metadata

import pytest

from groma_ros.cli import main


def test_every_package_that_is_needed_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["groma", "licences", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    rows = {row["name"].lower(): row for row in json.loads(capsys.readouterr().out)["packages"]}
    assert rows["numpy"]["version"] == metadata.version("numpy") and "BSD" in rows["numpy"]["licence"]
    assert "onnxruntime" in rows and "MIT" in rows["onnxruntime"]["licence"]
    assert rows["groma_ros"]["licence"] == "Apache-2.0"
    assert all(row["licence"] for row in rows.values())
