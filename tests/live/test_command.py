"""`groma live` as a command: what it refuses, and that it serves and ends."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from groma_ros.cli import main
from groma_ros.folder_lock import folder_lock
from tests.live.conftest import PICTURE, ROOT


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--source", "nothing.mp4"], "The source nothing.mp4 does not exist"),
        (
            ["--source", str(PICTURE), "--host", "0.0.0.0"],
            "opens the camera to the network, so it needs a --token",
        ),
        (["--source", str(PICTURE), "--host", "0.0.0.0", "--token", "пароль 12345"], "printable ASCII"),
        (["--source", str(PICTURE), "--token", "short"], "must have 8 characters or more"),
        (["--source", str(PICTURE), "--port", "70000"], "--port is 70000; it must be from 0 to 65535"),
        (["--source", str(PICTURE), "--goal", "  "], "The goal is empty"),
    ],
)
def test_refusals_are_one_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["groma", "live", "--no-browser", *words])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 1 and sentence in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_port_that_is_taken_is_a_sentence_also_with_a_node(tmp_path: Path) -> None:
    """By then the client of the node runs its threads, which end before the process does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "groma_ros.cli", "live", "--source", "ros", "--no-browser"]
        options = ["--port", str(taken.getsockname()[1]), "--out", str(tmp_path)]
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
        )
    assert done.returncode == 1 and "is in use; name another one with --port." in done.stderr
    assert "terminate called" not in done.stderr


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "groma_ros.cli",
        "live",
        "--source",
        str(PICTURE),
        "--goal",
        "the red mug",
    ]
    options = ["--port", "0", "--no-browser", "--out", str(tmp_path)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("groma live: http://127.0.0.1:") and line.endswith("/ (Ctrl-C ends it)\n")
        port = int(line.split(":")[3].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and b"<title>Groma live</title>" in answer.read()
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout.read() == ""


def test_a_second_page_on_the_same_folder_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both would write the same labels."""
    monkeypatch.setattr("sys.argv", ["groma", "live", "--source", "3", "--out", str(tmp_path)])
    with folder_lock(tmp_path / "camera-3"), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "camera-3 is in use by process" in capsys.readouterr().err
