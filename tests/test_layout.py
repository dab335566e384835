"""The shape of the project: who imports whom, how long a file is, how much is tracked."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "groma_ros"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

MAX_LINES = 350
MAX_TRACKED_BYTES = 40_000_000

# Part of the package -> the parts it may import, besides the shared modules directly under groma_ros.
MAY_IMPORT = {
    "shared": set(),
    "simulation": set(),
    "model": set(),
    "runtime": set(),
    "grounding": {"runtime"},
    "evaluation": {"grounding", "runtime", "simulation"},
    "export": {"model", "runtime"},
    "training": {"model", "simulation"},
    "node": {"grounding", "runtime"},
    "replay": {"evaluation", "grounding", "runtime"},
    "bench": {"grounding", "model", "node", "runtime", "simulation"},
    "cli": {
        "bench",
        "evaluation",
        "export",
        "grounding",
        "model",
        "node",
        "replay",
        "runtime",
        "simulation",
        "training",
    },
}
# Single modules that may do more, each for one reason.
DOORS = {
    "runtime/torch.py": {"model"},  # the one way from running to the network in PyTorch
    "training/run.py": {"runtime"},  # it writes a bundle, whose form the runtime knows
    "runtime/network.py": {"model"},  # the network's config, which knows no library
    "runtime/onnx.py": {"model"},  # its type
    "runtime/llama_cpp.py": {"model"},  # its type
    "runtime/signature.py": {"model"},  # its type
    "runtime/graph_vision.py": {"model"},  # its type
    "runtime/engine_vision.py": {"model"},  # its type
    "replay/bags.py": {"node"},  # the pixels of an image message, which need no ROS
    "export/frames.py": {
        "replay",
        "simulation",
    },  # pictures of a bag, or rendered ones, to take the ranges of 8-bit graphs from
    "bench/untrained.py": {
        "export",
        "training",
    },  # a GGUF of random weights, and a vocabulary, so that nothing large is kept
    "replay/command.py": {"node"},  # where the model that ships lies
    "replay/depth.py": {
        "node"
    },  # depth and camera_info of messages, and which belong to which image, which need no ROS
    "replay/pipeline.py": {"node"},  # the error that these raise
    "replay/live.py": {"node"},  # the node itself, only when a bag is played through it
    "replay/definitions.py": {"node"},  # where an installed package keeps its messages
    "evaluation/bag_scenes.py": {
        "replay"
    },  # the frames of a bag and its truth file, which know nothing of evaluating
    "evaluation/tracking.py": {"replay"},  # the same, frame by frame
    "node/demo/report.py": {"evaluation"},  # the accuracy it reports is that of `groma eval scenes`
}
TORCH_PARTS = {"export", "model", "training"}
TORCH_LIBRARIES = {"torch", "transformers", "torchvision"}
TRAINING_LIBRARIES = {"mujoco", "scipy"}
ROS_MODULES = {
    "rclpy",
    "cv_bridge",
    "rcl_interfaces",
    "builtin_interfaces",
    "ament_index_python",
    "launch",
    "launch_ros",
}
GENERATED = {"groma_ros.msg", "groma_ros.srv", "groma_ros.action"}


def part_of(module: Path) -> str:
    """The part a module belongs to: its folder, cli, or shared for the other modules directly under
    groma_ros."""
    return module.parts[0] if len(module.parts) > 1 else ("cli" if module.name == "cli.py" else "shared")


@cache
def imports(module: Path, top_level_only: bool = False) -> frozenset[str]:
    """Full dotted names of what a module imports, also inside functions unless told otherwise."""
    tree = ast.parse((PACKAGE / module).read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write the full name"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def own_part(name: str) -> str | None:
    """The part of the package an imported name lies in; None for other packages and generated messages."""
    words = name.split(".")
    if words[0] != "groma_ros" or ".".join(words[:2]) in GENERATED or len(words) == 1:
        return None
    return words[1] if (PACKAGE / words[1]).is_dir() else ("cli" if words[1] == "cli" else "shared")


def is_ros(name: str) -> bool:
    top = name.split(".")[0]
    return (
        top in ROS_MODULES
        or top.endswith("_msgs")
        or top.endswith("_srvs")
        or ".".join(name.split(".")[:2]) in GENERATED
    )


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path) -> None:
    part = part_of(module)
    allowed = {part, "shared"} | MAY_IMPORT[part] | DOORS.get(module.as_posix(), set())
    reached = {name: own_part(name) for name in imports(module)}
    assert {name: to for name, to in reached.items() if to is not None and to not in allowed} == {}


@pytest.mark.parametrize("module", [path for path in MODULES if part_of(path) != "node"], ids=str)
def test_only_the_node_knows_ros(module: Path) -> None:
    assert [name for name in imports(module) if is_ros(name)] == []


@pytest.mark.parametrize("module", [path for path in MODULES if part_of(path) not in TORCH_PARTS], ids=str)
def test_only_network_and_training_know_torch(module: Path) -> None:
    found = [name for name in imports(module) if name.split(".")[0] in TORCH_LIBRARIES]
    assert not found or module.as_posix() == "runtime/torch.py"


@pytest.mark.parametrize(
    "module", [path for path in MODULES if part_of(path) not in {"simulation", "training"}], ids=str
)
def test_running_loads_no_training_library(module: Path) -> None:
    """`make setup` installs none of them, so they stand inside the functions that need them."""
    assert {name.split(".")[0] for name in imports(module, top_level_only=True)} & TRAINING_LIBRARIES == set()


def test_one_file_knows_tensorrt() -> None:
    """And no module imports it when it is itself imported: that can end a process without a GPU."""
    assert [
        path.as_posix() for path in MODULES if "tensorrt" in {name.split(".")[0] for name in imports(path)}
    ] == ["runtime/tensorrt.py"]
    assert "tensorrt" not in {
        name.split(".")[0] for name in imports(Path("runtime/tensorrt.py"), top_level_only=True)
    }


def test_the_command_imports_lazily() -> None:
    """`groma --help` is quick: at the top of cli.py stands nothing but the standard library."""
    tops = {name.split(".")[0] for name in imports(Path("cli.py"), top_level_only=True)}
    assert tops <= sys.stdlib_module_names


@pytest.mark.parametrize("folder", ["groma_ros", "tests", "tools", "launch"])
def test_files_are_short(folder: str) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}
    assert lengths


def test_the_launch_file_is_short() -> None:
    assert len((ROOT / "launch" / "groma.launch.py").read_text().splitlines()) <= 60


def test_tracked_files_are_small_together() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.is_file()) < MAX_TRACKED_BYTES
