"""`groma replay` from its arguments to its exit status, on the demo's bag with the model that ships."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from groma_ros import cli
from groma_ros.commands.replay import CHANGED, LOST
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.bags import COMPRESSED, RAW
from groma_ros.replay.plan import DETECTIONS, JUNIT, RECORDING, REPORT, RUN, TIMINGS
from groma_ros.replay.records import read_records
from groma_ros.replay.tasks import topic_names, unique_names
from groma_ros.types import Frame, Scene
from tests.io.test_bags import DEMO, TYPES, image, write
from tests.replay.conftest import views

FIRST = "the green bottle in front of the red mug"
GOALS = f"goals:\n- {FIRST}\n- text: all the blue objects\n  kind: all\n- the brown ball\n"
QUICK = ["--every", "15", "--threads", "1", "--backend", "onnx"]


@pytest.fixture
def goals(tmp_path: Path) -> Path:
    path = tmp_path / "goals.yaml"
    path.write_text(GOALS)
    return path


@pytest.fixture
def groma(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], goals: Path) -> Any:
    """Runs `groma replay`; its exit status, and what it wrote on both streams."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(
            "sys.argv", ["groma", "replay", "--goals", str(goals), *QUICK, *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return int(ended.value.code or 0), out.out, out.err

    return run


def test_accept_then_compare_then_change(tmp_path: Path, groma: Any) -> None:
    """The life of an expectation: none, stored, equal, changed in every way a user meets."""
    stored, out = tmp_path / "expected", tmp_path / "out"
    status, _, errors = groma(DEMO, "--out", out, "--expect", stored)
    sentence = f"groma: There is no expectation in {stored}: it has no run.json; store one with --accept."
    assert (status, errors.splitlines()[-1]) == (1, sentence)
    assert xml.parse(out / JUNIT).getroot().find("testsuite/testcase/error") is not None

    assert groma(DEMO, "--out", out, "--expect", stored, "--accept")[0] == 0
    assert {path.name for path in stored.iterdir()} == {RUN, DETECTIONS}

    truth = DEMO.parent / "truth.json"
    status, text, errors = groma(DEMO, "--out", out, "--expect", stored, "--truth", truth, "--json")
    document = json.loads(text)
    assert status == 0 and document["ok"] and "image 4 of 4" in errors
    (bag,) = document["bags"]
    assert (bag["bag"], bag["status"], bag["frames"], bag["changes"]) == ("tabletop", "same", 4, 0)
    assert [(goal["goal"], goal["present"], goal["frames"]) for goal in bag["goals"]] == [
        (FIRST, 4, 4),
        ("all the blue objects", 4, 4),
        ("the brown ball", 0, 4),
    ]
    rights = [goal["accuracy"] for goal in bag["goals"]]
    assert bag["accuracy"] == round(sum(rights) / 3, 4) and rights[0] == rights[2] == 1.0
    assert [row["overlap"] for row in bag["moved"]] == [1.0, 1.0, 1.0]

    lines = (stored / DETECTIONS).read_text().splitlines()
    record = json.loads(lines[1])
    record["goals"][0]["detections"][0]["box"][0] -= 30
    del record["goals"][1]["detections"][0]
    (stored / DETECTIONS).write_text("\n".join([lines[0], json.dumps(record), *lines[2:]]) + "\n")
    status, text, _ = groma(DEMO, "--out", out, "--expect", stored)
    assert status == CHANGED
    assert "2 differences" in text and "frame 15: [" in text and "moved to" in text and "is new" in text
    suite = xml.parse(out / JUNIT).getroot().find("testsuite")
    assert suite is not None and suite.attrib["failures"] == "2"
    page = (out / REPORT).read_text()
    assert "2 differences from the expectation" in page and "expected 1, dashed" in page


def test_an_expectation_of_other_goals_or_another_model(tmp_path: Path, groma: Any, goals: Path) -> None:
    stored, out = tmp_path / "expected", tmp_path / "out"
    assert groma(DEMO, "--out", out, "--expect", stored, "--accept")[0] == 0
    goals.write_text(GOALS.replace("the brown ball", "green object"))
    status, _, errors = groma(DEMO, "--out", out, "--expect", stored)
    assert status == 1
    assert (
        "has other goals: goal 3 was 'the brown ball' (kind auto, min_score 0) and is 'green object' (kind "
        "auto, min_score 0)" in errors
    )
    goals.write_text(GOALS)
    run = json.loads((stored / RUN).read_text())
    (stored / RUN).write_text(
        json.dumps({**run, "model": "groma-old", "weights": "f" * 64, "precision": "int8"})
    )
    status, _, errors = groma(DEMO, "--out", out, "--expect", stored)
    assert (
        status == 1
        and "is of the model groma-old (weights ffffffffffff) and this run of groma-tiny (weights " in errors
    )
    status, _, _ = groma(DEMO, "--out", out, "--expect", stored, "--other-model")
    assert status == 0
    assert "precision: int8 then, fp32 now." in (out / REPORT).read_text()
    (stored / RUN).write_text("{")
    assert f"{RUN} is not JSON (" in groma(DEMO, "--out", out, "--expect", stored)[2]


def test_too_few_right_answers_fail(tmp_path: Path, groma: Any) -> None:
    data = json.loads((DEMO.parent / "truth.json").read_text())
    (first,) = [goal for goal in data["goals"] if goal["text"] == FIRST]
    first["targets"] = [0]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(data))
    assert groma(DEMO, "--out", tmp_path / "out", "--truth", truth)[0] == 0
    status, text, _ = groma(DEMO, "--out", tmp_path / "out", "--truth", truth, "--min-accuracy", 0.9)
    assert status == CHANGED and f"{FIRST}: 0.000 of the frames are right, and 0.900 must be" in text


def test_goals_of_the_truth_that_are_not_asked_are_listed_and_fail(tmp_path: Path, groma: Any) -> None:
    """GOALS asks three of the eight of the truth; a text in another spelling is another goal."""
    data = json.loads((DEMO.parent / "truth.json").read_text())
    kept = {
        goal["text"]: goal for goal in data["goals"] if goal["text"] in (FIRST, "the can", "the brown ball")
    }
    kept["the brown ball"]["text"] = "the  brown ball"
    truth, out = tmp_path / "truth.json", tmp_path / "out"
    truth.write_text(json.dumps({**data, "goals": list(kept.values())}))
    why = "of the truth was judged on no frame: no goal of this text was asked."
    sentences = [f"The goal {text!r} {why}" for text in ("the  brown ball", "the can")]
    status, text, _ = groma(DEMO, "--out", out, "--truth", truth, "--json")
    (bag,) = json.loads(text)["bags"]
    assert status == 0 and bag["unjudged"] == sentences
    page = html.unescape((out / REPORT).read_text())
    assert all(f"<li>{sentence}</li>" in page for sentence in sentences)
    status, text, _ = groma(DEMO, "--out", out, "--truth", truth, "--min-accuracy", 0.5)
    assert status == CHANGED
    assert (
        "  the can: it was judged on no frame (no goal of this text was asked), and 0.500 of them must"
        in text
    )
    assert (
        "2 goals of the truth were judged on no frame: the  brown ball, the can."
        in (out / REPORT).read_text()
    )
    suite = xml.parse(out / JUNIT).getroot().find("testsuite")
    assert suite is not None and suite.attrib["failures"] == "2"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_bag_is_reported_and_the_others_go_on(tmp_path: Path, groma: Any, jobs: int) -> None:
    first, torn, last = (tmp_path / f"{name}.mcap" for name in ("first", "torn", "last"))
    for path in (first, last):
        shutil.copy(DEMO, path)
    torn.write_bytes(DEMO.read_bytes()[:100_000])
    out = tmp_path / "out"
    status, text, errors = groma(first, torn, last, "--out", out, "--jobs", jobs, "--json")
    assert status == 1
    assert [(bag["bag"], bag["status"]) for bag in json.loads(text)["bags"]] == [
        ("first", "same"),
        ("torn", "failed"),
        ("last", "same"),
    ]
    assert "torn.mcap is truncated or damaged" in errors
    assert (out / "first" / DETECTIONS).read_bytes() == (out / "last" / DETECTIONS).read_bytes()
    assert (out / "first" / RECORDING).read_bytes() == (out / "last" / RECORDING).read_bytes()
    suites = xml.parse(out / JUNIT).getroot().findall("testsuite")
    assert [suite.attrib["errors"] for suite in suites] == ["0", "1", "0"]
    assert not list(out.rglob(".unfinished"))


def test_interrupted_and_taken_up(tmp_path: Path, groma: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C on the third image: a sentence says what to do, and the same command ends with the same
    bytes."""
    monkeypatch.setattr("groma_ros.journal.SAVE_SECONDS", 0.0)
    perceive, looks = Grounder.perceive, []

    def interrupted(self: Grounder, frame: Frame) -> Scene:
        looks.append(frame.stamp)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return perceive(self, frame)

    monkeypatch.setattr(Grounder, "perceive", interrupted)
    status, _, errors = groma(DEMO, "--out", tmp_path / "out")
    assert status == 130 and errors.splitlines()[-1].startswith(
        "groma: Interrupted; the same command goes on from here"
    )
    assert groma(DEMO, "--out", tmp_path / "out")[0] == 0 and len(looks) == 3 + 2
    assert groma(DEMO, "--out", tmp_path / "whole")[0] == 0
    for name in (DETECTIONS, RECORDING):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_it_needs_neither_ros_nor_torch(tmp_path: Path, goals: Path) -> None:
    """As on a build server: none of their packages can be imported, and everything is written."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop().split(','))); from groma_ros.cli "
        "import main; main()"
    )
    absent = (
        "rclpy,torch,transformers,cv_bridge,std_msgs,sensor_msgs,vision_msgs,builtin_interfaces,"
        "groma_ros.msg,ament_index_python"
    )
    arguments = ["replay", DEMO, "--goals", goals, "--out", tmp_path / "out", *QUICK, absent]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        DETECTIONS,
        RECORDING,
        TIMINGS,
        REPORT,
        JUNIT,
        RUN,
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--every", "0"], "--every is 0; it must be 1 or more."),
        (["--accept"], "--accept stores the run in the folder of --expect; name one."),
        (["--min-accuracy", "2"], "--min-accuracy is 2.0; it must be between 0 and 1."),
        (["--depth-topic", "/eye"], "has no topic '/eye'; it has /camera/camera_info"),
        (["--camera-info-topic", "/camera/depth"], "has the type sensor_msgs/msg/Image; a camera_"),
        (["--iou", "7"], "The tolerance iou is 7.0; it must be between 0 and 1."),
        (["--topic", "/eye"], "has no topic '/eye'; it has /camera/camera_info"),
        (["--model", "nowhere"], "There is no model 'nowhere' on this machine"),
        (["--goals", "none.yaml"], "The goals none.yaml cannot be read"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    tmp_path: Path, groma: Any, arguments: list[str], sentence: str
) -> None:
    status, text, errors = groma(DEMO, "--out", tmp_path / "out", *arguments)
    assert status == 1 and sentence in errors
    assert "Traceback" not in text + errors


def test_names_of_bags(tmp_path: Path) -> None:
    assert unique_names([Path("a/run.mcap")]) == ["run"]
    assert unique_names([Path("a/one"), Path("a/two.db3")]) == ["one", "two"]
    assert unique_names([Path("mon/rosbag2"), Path("tue/rosbag2")]) == ["mon-rosbag2", "tue-rosbag2"]
    assert unique_names([Path("...mcap"), Path("/x/run.db3.zstd")]) == ["bag_", "run"]
    assert unique_names([Path("/x/junit.xml.mcap"), Path("/x/.lock")]) == ["bag_junit.xml", "lock"]
    assert unique_names([Path("/x/a\nb\\c")]) == ["a_nb_c"]
    assert unique_names([Path("/x") / ("ä" * 120)]) == ["ä" * 75]
    with pytest.raises(ValueError, match="is named twice"):
        unique_names([Path("a/one"), Path("a/../a/one")])
    with pytest.raises(ValueError, match="differ in nothing but the ending"):
        unique_names([Path("/x/run.mcap"), Path("/x/run.db3")])


def test_names_of_topics() -> None:
    assert topic_names(["/front/image_raw", "/back", ""]) == ["front_image_raw", "back", ""]
    assert topic_names(["/a/b", "/a_b", "a/b"]) == ["a_b", "a_b-2", "a_b-3"]
    assert topic_names(["/../run.json", "/run.json"]) == ["_run.json", "bag_run.json"]


@pytest.fixture
def two_eyes(tmp_path: Path) -> Path:
    """A bag of two cameras, three pictures on the left and two on the right, and a compressed form of one."""
    left, right = views(3), [np.ascontiguousarray(view[:, ::-1]) for view in views(2)]
    jpeg = np.frombuffer(cv2.imencode(".jpg", right[0])[1].tobytes(), np.uint8)
    small = TYPES[COMPRESSED](header=image(1, right[0]).header, format="jpeg", data=jpeg)
    messages = [
        (f"/{side}/image", RAW, 10 * place + 10, image(place + 1, rgb))
        for side, pictures in (("left", left), ("right", right))
        for place, rgb in enumerate(pictures)
    ]
    messages.append(("/right/image/compressed", COMPRESSED, 12, small))
    return write(tmp_path / "two", sorted(messages, key=lambda item: item[2]), StoragePlugin.MCAP)


@pytest.mark.parametrize("asked", [["--all-cameras"], ["--topic", "/right/image", "--topic", "/left/image"]])
def test_several_cameras_in_one_run(two_eyes: Path, tmp_path: Path, groma: Any, asked: list[str]) -> None:
    """Each has its results, its expectation and its row; --jobs and several bags go with it."""
    out, stored = tmp_path / "out", tmp_path / "stored"
    status, text, errors = groma(
        two_eyes, *asked, "--every", "1", "--out", out, "--expect", stored, "--accept"
    )
    assert status == 0, errors
    lines = text.splitlines()
    assert any(line.startswith("two /left/image: 3 images, 0 refused") for line in lines)
    assert any(line.startswith("two /right/image: 2 images, 0 refused") for line in lines)
    for name, count in (("left_image", 3), ("right_image", 2)):
        assert (
            len(read_records(out / name / DETECTIONS))
            == len(read_records(stored / name / DETECTIONS))
            == count
        )
        assert json.loads((out / name / RUN).read_text())["camera"]["topic"] == "/" + name.replace("_", "/")
    suites = {suite.get("name") for suite in xml.parse(out / JUNIT).getroot().findall("testsuite")}
    assert suites == {"two /left/image", "two /right/image"}
    status, text, errors = groma(
        two_eyes, DEMO, "--all-cameras", "--out", tmp_path / "both", "--jobs", "2", "--json"
    )
    assert status == 0, errors
    assert [item["bag"] for item in json.loads(text)["bags"]] == [
        "two /left/image",
        "two /right/image",
        f"{DEMO.stem} /camera/image/compressed",
    ]
    assert (tmp_path / "both" / "two" / "right_image" / REPORT).is_file()
    assert (tmp_path / "both" / DEMO.stem / "camera_image_compressed" / REPORT).is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--all-cameras", "--topic", "/a"], "--all-cameras takes every camera of a bag; leave out --topic."),
        (["--topic", "/a", "--topic", "/a"], "--topic /a is given twice."),
        (
            ["--topic", "/a", "--topic", "/b", "--depth-topic", "/d"],
            "--depth-topic is given 1 times for 2 cameras; give it once for each --topic, in their order, or "
            "not at all.",
        ),
    ],
)
def test_topics_that_do_not_go_together(groma: Any, arguments: list[str], sentence: str) -> None:
    assert groma(DEMO, *arguments)[::2] == (1, f"groma: {sentence}\n")


HOSTILE = '\x1b]0;x\x07<script>alert(1)</script>\x9b2J\u202e&"'


def test_texts_from_outside_reach_terminal_and_files_escaped(tmp_path: Path, groma: Any, goals: Path) -> None:
    """Goals, topics, frames and names of files: in the lines, the page, the XML and the names of folders."""
    shot = image(1, views(1)[0])
    shot.header.frame_id = HOSTILE
    topic = f"/eye{HOSTILE}/../.."
    bag = write(tmp_path / f"bag{HOSTILE.replace('/', '')}", [(topic, RAW, 1, shot)], StoragePlugin.MCAP)
    goals.write_text(json.dumps({"goals": [f"the ball {HOSTILE}"]}))
    status, text, errors = groma(bag, "--all-cameras", "--out", tmp_path / "out")
    assert status == 0, errors
    for said in (text, errors):
        assert not [char for char in said if char != "\n" and not char.isprintable()]
    assert "\\x1b]0;x\\x07<script>" in text and "\\u202e" in text
    (folder,) = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert folder.name.isprintable() and {path.name for path in (tmp_path / "out").iterdir()} == {
        folder.name,
        JUNIT,
    }
    for path in (tmp_path / "out" / JUNIT, folder / JUNIT):
        cases = [case.get("name") or "" for case in xml.parse(path).getroot().iter("testcase")]
        assert any("<script>alert(1)</script>" in name for name in cases)
    page = (folder / REPORT).read_text()
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page


def test_a_bag_that_cannot_be_read_is_one_row_of_all_cameras(tmp_path: Path, groma: Any) -> None:
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    status, text, errors = groma(tmp_path / "bad.mcap", DEMO, "--all-cameras", "--out", tmp_path / "out")
    assert status == 1 and text.splitlines()[0] == "bad: failed" and "bad.mcap" in errors
    assert (tmp_path / "out" / DEMO.stem / "camera_image_compressed" / REPORT).is_file()


def test_a_bag_that_lost_messages_has_a_status_of_its_own(tmp_path: Path, groma: Any) -> None:
    """Sixty images announced and three held: nothing is stored; with --allow-loss the three are replayed."""
    messages = [("/eye", RAW, place + 1, image(place + 1, views(1)[0])) for place in range(3)]
    bag = write(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 3", "message_count: 60"))
    out, stored = tmp_path / "out", tmp_path / "expected"
    status, text, errors = groma(bag, "--out", out, "--expect", stored, "--accept")
    assert (status, text) == (LOST, "bag: lost\n")
    assert "announces 60 messages on /eye and holds 3; " in errors and not (stored / RUN).exists()
    status, text, _ = groma(bag, "--out", out, "--allow-loss", "--every", "1")
    assert status == 0 and "bag: 3 images, 0 refused" in text
    assert "announces 60 messages on /eye and holds 3." in text and "  camera /eye\n" in text


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_run_whose_images_are_all_refused(tmp_path: Path, groma: Any, form: list[str]) -> None:
    """It has a report and a sentence with the cause, and is never an expectation."""
    odd = image(1, views(1)[0], "sixels")
    bag = write(tmp_path / "bag", [("/eye", RAW, 1, odd)], StoragePlugin.MCAP)
    out, stored = tmp_path / "out", tmp_path / "expected"
    status, text, errors = groma(bag, "--out", out, "--expect", stored, "--accept", *form)
    assert status == 1 and "None of the 1 images of" in errors and "encoding 'sixels'" in errors
    assert "Traceback" not in errors and not (stored / RUN).exists()
    assert "1 refused" in text if not form else json.loads(text)["bags"][0]["status"] == "failed"
    assert "frame 0: encoding" in (out / REPORT).read_text()
    error = xml.parse(out / JUNIT).getroot().find("testsuite/testcase/error")
    assert error is not None and "None of the 1 images" in error.attrib["message"]


def test_a_goal_with_line_separators(tmp_path: Path, groma: Any, goals: Path) -> None:
    goals.write_text('goals:\n- "the ball\\u2028near\\u0085the mug"\n')
    status, text, _ = groma(DEMO, "--out", tmp_path / "out")
    assert status == 0 and r"the ball\u2028near\x85the mug" in text
    assert len(read_records(tmp_path / "out" / DETECTIONS)) == 4
