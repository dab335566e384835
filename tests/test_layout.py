"""Structure of the package: import direction, no cycles, libraries per room, file lengths, plain English."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "groma_ros"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
TORCH_DOOR = Path("runtime/torch.py")

MIN_LINES, MAX_LINES = 30, 500
MAX_TRACKED_BYTES = 45_000_000

# Rooms from the ground up; a module may import its own room and those of lower floors. Modules directly under
# groma_ros are "shared"; cli.py is one of the commands, __init__.py the public interface.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"shared"}),
    frozenset({"io", "simulation", "tokenization"}),
    frozenset({"model"}),
    frozenset({"runtime"}),
    frozenset({"geometry3d", "grounding"}),
    frozenset({"tracking"}),
    frozenset({"training"}),
    frozenset({"export"}),
    frozenset({"replay"}),
    frozenset({"evaluation"}),
    frozenset({"bench"}),
    frozenset({"node"}),
    frozenset({"client"}),
    frozenset({"live"}),
    frozenset({"commands"}),
    frozenset({"public"}),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROS_ROOMS = {"node", "client"}
TORCH_ROOMS = {"export", "model", "training"}
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
# Wordings that docstrings and comments had before they were written as engineers do, and names of no field.
OLD_PHRASES = re.compile(
    r"\b(whoever|somebody|whether who|where nobody|who (asks?|listens?|looks?|needs?|watches)|in hand"
    r"|(is|are|was|were) (told|said)|without a word|goes (on|by)|what (it|they) (is|are)|(a|the) thing"
    r"|former ones|(is|are|be) looked at|has no business|its own affair)\b",
    re.IGNORECASE,
)
OLD_NAMES = {
    "Asides",
    "Bell",
    "Followed",
    "Held",
    "Look",
    "Looks",
    "Orders",
    "Slots",
    "Told",
    "obey",
    "solid",
}
GENERATED = {"groma_ros.msg", "groma_ros.srv", "groma_ros.action"}
BY_NAME = {
    ".".join(("groma_ros", *path.with_suffix("").parts)).removesuffix(".__init__"): path for path in MODULES
}


def room_of(module: Path) -> str:
    """The room a module stands in."""
    if len(module.parts) > 1:
        return module.parts[0]
    return {"cli.py": "commands", "__init__.py": "public"}.get(module.name, "shared")


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


@cache
def own_imports(module: Path) -> frozenset[Path]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imports(module):
        while name and name not in BY_NAME:
            name = name.rpartition(".")[0]
        if name and name != "groma_ros" and BY_NAME[name] != module:
            found.add(BY_NAME[name])
    return frozenset(found)


def is_ros(name: str) -> bool:
    top = name.split(".")[0]
    return (
        top in ROS_MODULES
        or top.endswith("_msgs")
        or top.endswith("_srvs")
        or ".".join(name.split(".")[:2]) in GENERATED
    )


def test_every_room_has_a_floor() -> None:
    assert {room_of(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module: Path) -> None:
    room = room_of(module)
    upward = [
        other.as_posix()
        for other in own_imports(module)
        if room_of(other) != room and FLOOR[room_of(other)] >= FLOOR[room]
    ]
    assert upward == []


def test_only_the_torch_backend_imports_the_network() -> None:
    """Rooms that run a model do not import its PyTorch network, except runtime/torch.py."""
    running = ("runtime", "grounding", "geometry3d", "tracking", "replay", "node")
    reached = {
        module.as_posix()
        for module in MODULES
        if room_of(module) in running and any(room_of(other) in TORCH_ROOMS for other in own_imports(module))
    }
    assert reached == {TORCH_DOOR.as_posix()}


def test_no_module_imports_itself_through_others() -> None:
    state: dict[Path, int] = {}

    def visit(module: Path, trail: tuple[Path, ...]) -> None:
        if state.get(module) == 1:
            circle = [*trail[trail.index(module) :], module]
            pytest.fail("A circle of imports: " + " -> ".join(step.as_posix() for step in circle))
        if module in state:
            return
        state[module] = 1
        for other in sorted(own_imports(module)):
            visit(other, (*trail, module))
        state[module] = 2

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", [path for path in MODULES if room_of(path) not in ROS_ROOMS], ids=str)
def test_only_node_and_client_know_ros(module: Path) -> None:
    assert [name for name in imports(module) if is_ros(name)] == []


@pytest.mark.parametrize("module", [path for path in MODULES if room_of(path) not in TORCH_ROOMS], ids=str)
def test_only_network_and_training_know_torch(module: Path) -> None:
    found = [name for name in imports(module) if name.split(".")[0] in TORCH_LIBRARIES]
    assert not found or module == TORCH_DOOR


@pytest.mark.parametrize(
    "module", [path for path in MODULES if room_of(path) not in {"simulation", "training"}], ids=str
)
def test_running_loads_no_training_library(module: Path) -> None:
    """`make setup` installs none of them, so they stand inside the functions that need them."""
    assert {name.split(".")[0] for name in imports(module, top_level_only=True)} & TRAINING_LIBRARIES == set()


def test_one_file_knows_tensorrt() -> None:
    """And no module imports it when it is itself imported: that can end a process without a GPU."""
    bindings = Path("runtime/tensorrt/bindings.py")
    assert [path for path in MODULES if "tensorrt" in {name.split(".")[0] for name in imports(path)}] == [
        bindings
    ]
    assert "tensorrt" not in {name.split(".")[0] for name in imports(bindings, top_level_only=True)}


def renames(module: Path) -> list[int]:
    """Lines of a module that rename or move a file."""
    found = []
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, ast.unparse(node.func.value)
            of_path = len(node.args) == 1 and not node.keywords and owner != "dataclasses"
            if (name in ("rename", "replace") and (of_path or owner == "os")) or (owner, name) in (
                ("os", "renames"),
                ("shutil", "move"),
            ):
                found.append(node.lineno)
    return found


def test_one_file_renames() -> None:
    """It syncs before it renames (tests/test_atomic_write.py), so that no command can forget that."""
    assert {module.as_posix() for module in MODULES if renames(module)} == {"atomic_write.py"}


def test_the_command_imports_lazily() -> None:
    """`groma --help` is quick: at the top of cli.py stands nothing but the standard library."""
    tops = {name.split(".")[0] for name in imports(Path("cli.py"), top_level_only=True)}
    assert tops <= sys.stdlib_module_names


@pytest.mark.parametrize("folder", ["groma_ros", "tests", "tools", "launch"])
def test_files_are_not_too_long(folder: str) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}
    assert lengths


def test_modules_are_no_fragments() -> None:
    """A module with fewer lines belongs in the one that uses it."""
    lengths = {module: len((PACKAGE / module).read_text().splitlines()) for module in MODULES}
    own = {module: lines for module, lines in lengths.items() if not module.name.startswith("__")}
    assert {module.as_posix(): lines for module, lines in own.items() if lines < MIN_LINES} == {}


def remarks(source: str) -> list[tuple[int, str]]:
    """Line and text of every docstring and comment; a block of comment lines is one text."""
    found = [
        (node.lineno, node.value.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    line, block = 0, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip():
            found.append((token.start[0], token.string.lstrip("# ")))
        elif token.type == tokenize.COMMENT:
            line, block = line if block else token.start[0], f"{block} {token.string.lstrip('# ')}"
        elif token.type not in (tokenize.NL, tokenize.NEWLINE):
            found.append((line, block))
            block = ""
    return [(line, " ".join(text.split())) for line, text in [*found, (line, block)] if text]


def test_remarks_are_found_whole() -> None:
    source = '"""One\ntwo."""\nx = 1  # a\n# b is\n# told\n\ndef f():\n    """F."""\n'
    assert sorted(remarks(source)) == [(1, "One two."), (3, "a"), (4, "b is told"), (8, "F.")]


def old_wordings(source: str) -> list[tuple[int, str]]:
    return [(line, text) for line, text in remarks(source) if OLD_PHRASES.search(text)]


@pytest.mark.parametrize("folder", ["groma_ros", "demo", "examples", "tools"])
def test_docstrings_and_comments_are_plain_english(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:90]}"
        for path in paths
        for line, text in old_wordings(path.read_text())
    ]
    assert paths and found == []


@pytest.mark.parametrize(
    "wording",
    [
        "whoever",
        "Somebody",
        "whether who",
        "where nobody",
        "who asks",
        "in hand",
        "were told",
        "is said",
        "without a word",
        "goes by",
        "what it is",
        "a thing",
        "former ones",
        "be looked at",
        "has no business",
        "its own affair",
    ],
)
def test_an_old_wording_is_found_in_every_place(wording: str) -> None:
    broken = f"x {wording}.".replace(" ", "\n    ")
    docstring = f'"""{broken}"""'
    comment = f"x {wording}.".replace(" ", "\n# ")
    places = [
        f"{docstring}\n",
        f"class A:\n    {docstring}\n",
        f"def f():\n    {docstring}\n",
        f"class A:\n    async def f(self):\n        {docstring}\n",
        f"x = 1\n{docstring}\n",
        f"x = 1  # {wording}\n",
        f"x = 1\n# {comment}\n",
        f"x = [\n    # {wording}\n    1,\n]\n",
        f"def f():\n    x = 1\n    # {wording}",
    ]
    assert [len(old_wordings(source)) for source in places] == [1] * len(places)
    assert old_wordings(f'x = "{wording}"  # y{wording.replace(" ", "")}y\n') == []


def old_names(source: str) -> set[str]:
    """The old names that a module defines or uses."""
    fields = ("name", "id", "attr", "arg")
    nodes = ast.walk(ast.parse(source))
    return {value for node in nodes for field in fields if (value := getattr(node, field, None)) in OLD_NAMES}


def test_names_are_those_of_the_field() -> None:
    found = {module.as_posix(): old_names((PACKAGE / module).read_text()) for module in MODULES}
    # A simulated scene has solids, as in geometry.
    of_scenes = {
        module for module, names in found.items() if names == {"solid"} and module.startswith("simulation/")
    }
    assert {module: names for module, names in found.items() if names and module not in of_scenes} == {}
    assert len(found) > 100


def test_an_old_name_is_found_in_every_place() -> None:
    for source in (
        "class {}: pass",
        "def {}(): pass",
        "async def {}(): pass",
        "{} = 1",
        "x.{} = x.y",
        "x: {}",
    ):
        assert [old_names(source.format(name)) for name in sorted(OLD_NAMES)] == [
            {name} for name in sorted(OLD_NAMES)
        ]
    assert old_names("def f(*, solid): pass") == {"solid"} and old_names("# solid\nsolids = 'solid'") == set()


def test_tracked_files_are_small_together() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.is_file()) < MAX_TRACKED_BYTES
