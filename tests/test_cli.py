"""The command `groma` as a user runs it: exit status, standard output and standard error."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from groma_ros import __version__
from groma_ros.cli import COMMANDS, main
from tests.pictures import read_picture
from tests.small import GOALS, blocks


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Groma = Callable[..., Done]
Refused = Callable[..., str]


@pytest.fixture
def groma(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Groma:
    """Run the command's entry point in this process: torch is loaded once for all tests."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["groma", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def refused(groma: Groma) -> Refused:
    """The one sentence with which a command fails."""

    def run(*arguments: str | Path) -> str:
        done = groma(*arguments)
        assert done.status != 0 and done.stdout == ""
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        return lines[0]

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), blocks(2, 120, 160)[..., ::-1])
    return path


def test_the_command_in_a_process_of_its_own(small_model: Path, picture: Path) -> None:
    command = ["ground", "--image", picture, "--model", small_model, "--goal", "mug", "--json"]
    code = "from groma_ros.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == ["groundings"] and done.stderr == ""


def test_help_does_not_wait_for_heavy_imports() -> None:
    code = (
        "import sys; from groma_ros.cli import _overview; print(_overview()); assert not {'numpy', "
        "'torch', 'cv2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_lists_every_command(groma: Groma) -> None:
    done = groma("--help")
    assert done.status == 0
    assert all(
        f"  {name} " in done.stdout and command.help in done.stdout for name, command in COMMANDS.items()
    )


def test_a_group_of_commands_lists_its_own(groma: Groma) -> None:
    for words in (["eval", "--help"], ["eval", "-h"]):
        done = groma(*words)
        assert done.status == 0 and done.stdout.startswith("usage: groma eval COMMAND [options]")
        listed = {line.split("  ")[1].strip() for line in done.stdout.splitlines() if line.startswith("  ")}
        assert listed == {name for name in COMMANDS if name.startswith("eval ")}


def test_the_version(groma: Groma) -> None:
    assert groma("--version").stdout == f"groma {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("gruond", "ground"), ("eval scene", "eval scenes"), ("build_engine", "build-engine")],
)
def test_a_misspelt_command_is_recognised(refused: Refused, typed: str, meant: str) -> None:
    assert f"{typed!r} is not a command; did you mean {meant}?" in refused(*typed.split(), "--json")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(groma: Groma, name: str) -> None:
    done = groma(*name.split(), "--help")
    assert done.status == 0, done.stderr
    assert f"example: groma {name} " in done.stdout and "options:" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_one_the_command_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    from groma_ros.cli import _Parser
    from groma_ros.runtime import model_paths

    # Examples name models that are not on this machine.
    monkeypatch.setattr(model_paths, "find_model", Path)

    command = COMMANDS[name]
    parser = _Parser()
    command.load().add_arguments(parser)
    words = shlex.split(command.example)
    assert words[: 1 + len(name.split())] == ["groma", *name.split()]
    parser.parse_args(words[1 + len(name.split()) :])


def test_unknown_commands_are_refused(refused: Refused) -> None:
    assert "'dance' is not a command; known are ground, eval scenes" in refused("dance")
    assert "'eval dance' is not a command" in refused("eval", "dance")


@pytest.mark.parametrize("words", [(), ("--debug",), ("eval",)])
def test_without_a_command_the_help_is_printed_as_an_error(groma: Groma, words: tuple[str, ...]) -> None:
    """On standard error with status 2, the status of wrong arguments, so that a script notices."""
    done = groma(*words)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr == groma(*(word for word in words if word == "eval"), "--help").stdout


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("id"), "groma: Unexpected KeyError: 'id' ("),
        (TypeError("'NoneType' object is not iterable"), "groma: Unexpected TypeError: 'NoneType' object"),
        (RecursionError("maximum recursion depth exceeded"), "groma: Unexpected RecursionError: maximum"),
        (MemoryError(), "groma: There is not enough memory"),
        (FileNotFoundError(2, "No such file or directory", "a\x1b[31mb"), "groma: a\\x1b[31mb: No such file"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_error_but_a_sentence_reaches_the_user(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("groma_ros.commands.ground.run", fail)
    assert refused("ground", "--image", "x.png").startswith(sentence)


def test_a_library_s_value_error_is_not_taken_for_a_sentence_of_ours(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groma_ros.commands.ground.run", lambda _: min([]))
    assert "Unexpected ValueError: min()" in refused("ground", "--image", "x.png")


def test_debug_shows_the_traceback(groma: Groma, tmp_path: Path) -> None:
    done = groma("ground", "--image", tmp_path / "none.png", "--goal", "mug", "--debug")
    assert done.status == 1 and done.stdout == ""
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1] == f"groma: {tmp_path / 'none.png'}: No such file or directory."


def test_a_missing_option_is_one_sentence(refused: Refused) -> None:
    assert (
        refused("ground")
        == "groma ground: the following arguments are required: --image; see groma ground --help."
    )


def test_ground_writes_one_json_document(
    groma: Groma, picture: Path, small_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "answer.png"
    command = [
        "ground",
        "--image",
        picture,
        "--model",
        small_model,
        "--min-presence",
        "0",
        "--json",
        "--out",
        out,
    ]
    done = groma(*command, "--goal", GOALS[0], "--goal", "</s><r3>")
    assert done.status == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == ["groundings"]
    assert [item["goal"] for item in document["groundings"]] == [GOALS[0], "</s><r3>"]
    for item in document["groundings"]:
        assert list(item) == ["goal", "status", "present", "margin", "detections"]
        assert 0 <= item["present"] <= 1 and 0 <= item["margin"] <= 1 and item["detections"]
        for detection in item["detections"]:
            x1, y1, x2, y2 = detection["box"]
            assert 0 <= x1 <= x2 <= 160 and 0 <= y1 <= y2 <= 120 and 0 <= detection["score"] <= 1
    drawn = read_picture(out)
    assert drawn.shape[1] == 160 and drawn.shape[0] > 120
    assert not np.array_equal(drawn[:120], read_picture(picture))


def test_ground_prints_lines_to_read(groma: Groma, picture: Path, small_model: Path) -> None:
    done = groma(
        "ground", "--image", picture, "--model", small_model, "--min-presence", "0", "--goal", *GOALS[:2]
    )
    heads = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [head.split(":")[0] for head in heads] == list(GOALS[:2]) and "presence" in heads[0]


def test_ground_reports_absent(groma: Groma, picture: Path, small_model: Path) -> None:
    done = groma(
        "ground",
        "--image",
        picture,
        "--model",
        small_model,
        "--min-presence",
        "1",
        "--goal",
        GOALS[0],
        "--json",
    )
    assert json.loads(done.stdout)["groundings"][0]["detections"] == []


def test_ground_without_goals_lists_the_scene(groma: Groma, picture: Path, small_model: Path) -> None:
    done = groma("ground", "--image", picture, "--model", small_model, "--json")
    (item,) = json.loads(done.stdout)["groundings"]
    assert item["goal"] == "" and isinstance(item["text"], str) and item["text"]


def test_ground_refuses_what_it_cannot_use(
    refused: Refused, picture: Path, small_model: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.jpg"
    whole = cv2.imencode(".jpg", blocks(3, 240, 320))[1].tobytes()
    cut.write_bytes(whole[: len(whole) // 2])
    other = tmp_path / "notes.txt"
    other.write_text("not a picture")
    model = ("--model", small_model, "--goal", "mug")
    assert "No such file" in refused("ground", "--image", tmp_path / "none.png", *model)
    assert "truncated" in refused("ground", "--image", cut, *model)
    assert "neither a JPEG" in refused("ground", "--image", other, *model)
    assert "The goal is empty" in refused("ground", "--image", picture, "--model", small_model, "--goal", "")
    assert "10000 characters" in refused(
        "ground", "--image", picture, "--model", small_model, "--goal", "x" * 10_000
    )
    assert "does not exist" in refused(
        "ground", "--image", picture, "--model", tmp_path / "none", "--goal", "mug"
    )
    assert "min_presence is 1.5; it must be between 0 and 1" in refused(
        "ground", "--image", picture, *model, "--min-presence", "1.5"
    )
    assert "must end in .png or .jpg" in refused(
        "ground", "--image", picture, *model, "--out", tmp_path / "a.gif"
    )


def test_ground_notices_a_goal_without_quotes(
    groma: Groma, refused: Refused, picture: Path, small_model: Path
) -> None:
    said = refused("ground", "--image", picture, "--model", small_model, "--goal", "the", "red", "mug")
    assert said.endswith("put a goal of several words in quotes: --goal 'the red mug'.")
    done = groma("ground", "--image", picture, "--model", small_model, "--goal", "mug", "cup")
    assert done.status == 0 and "2 goals of one word each: mug, cup" in done.stderr


def test_ground_takes_several_pictures(
    groma: Groma, picture: Path, small_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "more" / name).write_bytes(picture.read_bytes())
    out = tmp_path / "drawn"
    done = groma("ground", "--image", tmp_path / "more", "--model", small_model, "--json", "--out", out)
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)["images"]
    assert [Path(item["image"]).name for item in found] == ["a.png", "b.png"]
    assert found[0]["groundings"] == found[1]["groundings"]
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    assert f"groma: wrote {out / 'b.png'}." in done.stderr


@pytest.fixture
def mixed(picture: Path, tmp_path: Path) -> Path:
    """A folder of two good pictures, a damaged one, one that is too small, and files of other types."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("b.png", "d.png"):
        (folder / name).write_bytes(picture.read_bytes())
    (folder / "a.jpg").write_bytes(b"not a picture")
    cv2.imwrite(str(folder / "c.png"), np.zeros((1, 1, 3), np.uint8))
    for name in ("e.bmp", "f.GIF", "notes.txt"):
        (folder / name).touch()
    return folder


def test_ground_names_bad_pictures_and_answers_the_others(
    groma: Groma, mixed: Path, small_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "drawn"
    done = groma("ground", "--image", mixed, "--model", small_model, "--goal", "mug", "--json", "--out", out)
    assert done.status == 1
    document = json.loads(done.stdout)
    assert list(document) == ["images", "failed"]
    assert [Path(item["image"]).name for item in document["images"]] == ["b.png", "d.png"]
    assert all(len(item["groundings"]) == 1 for item in document["images"])
    failed = {Path(item["image"]).name: item["error"] for item in document["failed"]}
    assert failed["a.jpg"].startswith(f"{mixed / 'a.jpg'}: ") and "neither a JPEG" in failed["a.jpg"]
    assert (
        failed["c.png"]
        == f"{mixed / 'c.png'}: The image of 1x1 pixels is too small; each side needs 2 or more."
    )
    lines = done.stderr.splitlines()
    assert lines[0] == (
        f"groma: skipped {mixed / 'e.bmp'}, {mixed / 'f.GIF'}: only JPEG, PNG and WebP files are read from a "
        "folder; convert the others."
    )
    assert lines[1:] == [
        f"groma: {failed['a.jpg']}",
        f"groma: wrote {out / 'b.png'}.",
        f"groma: {failed['c.png']}",
        f"groma: wrote {out / 'd.png'}.",
    ]
    assert sorted(path.name for path in out.iterdir()) == ["b.png", "d.png"]


def test_ground_reads_on_in_lines_and_when_no_picture_is_good(
    groma: Groma, mixed: Path, picture: Path, small_model: Path, tmp_path: Path
) -> None:
    bad, none = mixed / "a.jpg", tmp_path / "none.png"
    done = groma("ground", "--image", bad, none, picture, "--model", small_model, "--goal", "mug")
    assert done.status == 1 and done.stdout.startswith(f"{picture}:\nmug: ")
    assert done.stderr.splitlines()[1] == f"groma: {none}: No such file or directory."
    done = groma("ground", "--image", bad, none, "--model", small_model, "--json")
    document = json.loads(done.stdout)
    assert done.status == 1 and document["images"] == [] and len(document["failed"]) == 2


def test_ground_names_a_single_bad_picture(refused: Refused, mixed: Path, small_model: Path) -> None:
    for name in ("a.jpg", "c.png"):
        line = refused("ground", "--image", mixed / name, "--model", small_model, "--goal", "mug")
        assert line.startswith(f"groma: {mixed / name}: ")


def test_ground_keeps_answers_whose_drawing_cannot_be_written(
    groma: Groma, mixed: Path, small_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    pictures = (mixed / "b.png", mixed / "d.png")
    done = groma("ground", "--image", *pictures, "--model", small_model, "--json", "--out", tmp_path / "file")
    document = json.loads(done.stdout)
    assert done.status == 1 and len(document["images"]) == len(document["failed"]) == 2
    assert str(tmp_path / "file") in document["failed"][0]["error"]


def test_eval_scenes_needs_one_source_of_scenes(refused: Refused, small_model: Path, tmp_path: Path) -> None:
    assert "either --seed" in refused("eval", "scenes", "--model", small_model)
    assert "either --seed" in refused(
        "eval", "scenes", "--model", small_model, "--seed", "1", "--data", tmp_path
    )
    assert "at least one scene" in refused(
        "eval", "scenes", "--model", small_model, "--seed", "1", "--count", "0"
    )
    assert "annotations.json does not exist" in refused(
        "eval", "scenes", "--model", small_model, "--data", tmp_path
    )


def test_eval_scenes_writes_one_json_document(groma: Groma, small_model: Path) -> None:
    done = groma("eval", "scenes", "--model", small_model, "--seed", "6", "--count", "2", "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["scenes"], report["seed"]) == (2, 6)
    kinds = {"attribute", "absent", "negation", "superlative", "relation", "plural", "between", "all"}
    assert kinds - set(report["accuracy"]) <= {"between", "plural", "relation"}
    assert 0 <= report["recall"] <= 1 and 0 <= report["precision"] <= 1
    assert "scene 2 of 2" in done.stderr
