"""`groma live` as a command: refused arguments, serving and shutdown."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groma_ros.cli import main
from groma_ros.folder_lock import folder_lock
from groma_ros.live.serve import PageServer
from tests.live.conftest import PICTURE, ROOT
from tests.live.page import PATIENCE


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


def test_a_picture_that_cannot_be_read_is_refused_before_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(PICTURE.read_bytes()[:3000])
    monkeypatch.setattr(PageServer, "run", lambda server: None)
    options = ["--no-browser", "--port", "0", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["groma", "live", "--source", str(path), *options])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert end.value.code == 1 and captured.out == ""
    assert captured.err.startswith(f"groma: {path}: ") and captured.err.count("\n") == 1


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


def test_it_opens_the_browser_and_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
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
    options = ["--port", "0", "--out", str(tmp_path)]
    environment = {**os.environ, "BROWSER": str(browser)}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("groma live: http://127.0.0.1:") and line.endswith("/ (Ctrl-C ends it)\n")
        end = time.monotonic() + PATIENCE
        while not opened.exists():
            assert time.monotonic() < end, "the browser was not opened"
            time.sleep(0.05)
        assert opened.read_text().strip() == line.split()[2]
        port = int(line.split(":")[3].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and b"<title>Groma live</title>" in answer.read()
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout.read() == ""


def test_another_address_says_that_it_opens_the_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PageServer, "run", lambda server: None)
    options = ["--host", "0.0.0.0", "--token", "a long secret", "--port", "0", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["groma", "live", "--no-browser", "--source", str(PICTURE), *options])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    assert not end.value.code and captured.out.startswith("groma live: http://0.0.0.0:")
    assert "?token=a%20long%20secret" in captured.out
    assert "listening on 0.0.0.0 opens the camera to the network: whoever has the token" in captured.err


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("groma_ros.live.node_engine", {"onnxruntime", "openvino", "torch"}),
        ("groma_ros.live.pipeline_engine", {"rclpy", "torch", "sensor_msgs"}),
    ],
)
def test_a_client_needs_no_model_and_a_pipeline_no_ros(module: str, others: set[str]) -> None:
    code = f"import sys, groma_ros.live.serve, groma_ros.live.sources, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded and not loaded & others


def test_a_second_page_on_the_same_folder_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both would write the same labels."""
    monkeypatch.setattr("sys.argv", ["groma", "live", "--source", "3", "--out", str(tmp_path)])
    with folder_lock(tmp_path / "camera-3"), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "camera-3 is in use by process" in capsys.readouterr().err
