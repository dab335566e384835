"""The steps of the GitHub action bag-regression, run by bash as a runner would run them.

GitHub itself is not here: expressions are filled in by this test, and the steps that use other actions
(setup-python, upload-artifact) are only looked at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_wheel import closure, copy_source, link_distributions

ROOT = Path(__file__).resolve().parents[1]
ACTION = ".github/actions/bag-regression"
BAG = ROOT / "demo" / "tabletop.mcap"
BUILD = ["setuptools", "wheel"]


class Runner:
    """A runner with a checkout, a workspace and Python; `step` runs a shell step of the action."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "workspace"
        self.checkout, self.temp = folder / "checkout", folder / "temp"
        for made in (self.workspace, self.temp, folder / "bin", folder / "site"):
            made.mkdir(parents=True)
        copy_source(self.checkout)
        shutil.copytree(ROOT / ACTION, self.checkout / ACTION)
        shutil.copytree(ROOT / "requirements", self.checkout / "requirements")
        python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        (folder / "bin" / "python3").symlink_to(python)
        # No network: what pip would install is linked from this environment.
        declared = re.findall(
            r'"([^"]+)"', (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
        )
        link_distributions(closure([*declared, *BUILD]), folder / "site")
        document = yaml.safe_load((self.checkout / ACTION / "action.yml").read_text())
        self.inputs = {name: str(entry.get("default", "")) for name, entry in document["inputs"].items()}
        self.steps: list[dict[str, Any]] = document["runs"]["steps"]
        self.outputs: dict[str, Any] = document["outputs"]

    def value(self, text: str) -> str:
        """A text with its expressions filled in."""
        known = {
            **{f"inputs.{name}": value for name, value in self.inputs.items()},
        }
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: known[found[1]], text)

    def step(self, name: str) -> tuple[int, str, dict[str, str], str]:
        """Exit status, what was printed, outputs and summary of a step."""
        (step,) = [step for step in self.steps if step.get("name") == name]
        assert step["shell"] == "bash" and "${{" not in step["run"]
        output, summary = self.temp / "output", self.temp / "summary"
        for file in (output, summary):
            file.write_text("")
        environment = {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(self.folder / "site"),
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the value of build_isolation
            "GITHUB_ACTION_PATH": str(self.checkout / ACTION),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
            **{key: os.environ[key] for key in ("OPENBLAS_CORETYPE",) if key in os.environ},
            **{key: self.value(value) for key, value in step.get("env", {}).items()},
        }
        script = self.temp / "step.sh"
        script.write_text(step["run"])
        # As GitHub starts a step with `shell: bash`.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.workspace, env=environment, check=False
        )
        pairs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        return done.returncode, done.stdout + done.stderr, pairs, summary.read_text()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A runner on which the step that installs has been run."""
    made = Runner(tmp_path_factory.mktemp("runner"))
    status, printed, _, _ = made.step("Install groma_ros")
    assert status == 0, printed
    versions = (made.temp / "versions.txt").read_text().splitlines()
    assert any(re.match(r"onnxruntime==[\d.]+( |$)", line) for line in versions)
    assert all("==" in line or line.startswith("#") or not line.strip() for line in versions)
    (made.workspace / "goals.yaml").write_text("goals: [the ball, red cone]\n")
    shutil.copy(BAG, made.workspace / "a kitchen.mcap")
    made.inputs |= {"bag": "a kitchen.mcap", "goals": "goals.yaml", "expect": "expected", "accept": "true"}
    made.inputs["arguments"] = "--every\n30\n"
    status, printed, outputs, summary = made.step("Replay")
    assert status == 0, printed
    assert outputs == {"status": "0", "report": "out/replay/report.html"}
    assert summary == "**Bag regression**: The answers are stored in expected.\n"
    made.inputs["accept"] = "false"
    return made


def test_the_same_answers_pass(runner: Runner) -> None:
    status, printed, outputs, summary = runner.step("Replay")
    assert (status, outputs["status"]) == (0, "0"), printed
    assert summary == "**Bag regression**: The answers are those of expected.\n"
    assert (runner.workspace / outputs["report"]).is_file()
    assert (runner.workspace / "out/replay/junit.xml").is_file()


def test_another_answer_fails_with_status_3(runner: Runner) -> None:
    path = runner.workspace / "expected" / "detections.jsonl"
    kept = path.read_text()
    lines = [json.loads(line) for line in kept.splitlines()]
    (ball,) = [goal for goal in lines[0]["goals"] if goal["goal"] == "the ball"]
    ball["detections"][0]["box"][0] -= 30
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, printed, outputs, summary = runner.step("Replay")
    path.write_text(kept)
    assert (status, outputs["status"]) == (3, "3"), printed
    assert summary == (
        "**Bag regression**: The answers differ from expected; the report in out/replay says where.\n"
    )


def test_a_bag_that_is_absent_fails_with_a_sentence(runner: Runner) -> None:
    kept, runner.inputs["bag"] = runner.inputs["bag"], "none.mcap; touch hacked"
    status, printed, outputs, summary = runner.step("Replay")
    runner.inputs["bag"] = kept
    assert (status, outputs["status"]) == (1, "1") and "none.mcap; touch hacked" in printed
    assert not (runner.workspace / "hacked").exists()
    assert summary == "**Bag regression**: groma replay ended with status 1; its last line says why.\n"


def test_outputs_and_inputs_are_those_of_the_steps(runner: Runner) -> None:
    names = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / ACTION / "action.yml").read_text()))
    assert names == set(runner.inputs)
    assert {entry["value"] for entry in runner.outputs.values()} == {
        "${{ steps.replay.outputs.status }}",
        "${{ steps.replay.outputs.report }}",
    }
    uses = [step["uses"] for step in runner.steps if "uses" in step]
    assert uses == ["actions/setup-python@v5", "actions/upload-artifact@v4"]
