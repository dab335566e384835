"""Fetches the Python bindings of a TensorRT version and makes them importable without TensorRT, for tests of
its API.

    python tools/tensorrt_bindings.py 8.6 10.16 11.4

The wheels of the bindings alone are about 1 MB, but link to NVIDIA's libraries. Stand-in libraries with the
same names and symbols let them be imported: every class, enumeration and signature is NVIDIA's, but no
factory may be called. The folder of a version holds the package `tensorrt`, the stand-ins in `lib`, and
`api.json`, which describes the package. Needs a C compiler and the standard library.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from enum import Enum
from pathlib import Path
from typing import Any

from common import ROOT, SetupError, clean_environment

FOLDER = ROOT / ".cache" / "tensorrt"
WHEELS = {
    "8.6": "tensorrt-bindings==8.6.1",
    "10.16": "tensorrt-cu13-bindings==10.16.1.11",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
"""Tested versions. NVIDIA built 8.6 for Python up to 3.11."""
_FORM = "1"  # incremented when the content of a folder changes
_SYMBOLS = re.compile(
    r"(createInfer|createNv|getBuilderPlugin|getNvOnnx|getPlugin|initLibNv|_ZN\w*(?:parser|Parser))"
)


def versions(minor: int) -> list[str]:
    """The versions available for Python 3.minor."""
    return [version for version in WHEELS if version != "8.6" or minor < 12]


def is_ready(version: str, minor: int = sys.version_info[1]) -> bool:
    """Whether the folder of a version is there, as created by this version of the tool for Python 3.minor."""
    note = FOLDER / version / "made"
    return note.is_file() and note.read_text() == _note(version, minor)


def _note(version: str, minor: int) -> str:
    return f"{_FORM} {WHEELS[version]} 3.{minor}"


def ensure(version: str) -> Path:
    """The folder of a version, created if it is missing. Raises SetupError if that fails."""
    folder = FOLDER / version
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready(version):
            with tempfile.TemporaryDirectory(dir=FOLDER) as name:
                made = Path(name) / version
                _unpack(version, made)
                _add_stand_ins(made)
                (made / "api.json").write_text(
                    _run([sys.executable, __file__, "describe"], environment(made))
                )
                (made / "made").write_text(_note(version, sys.version_info[1]))
                os.sync()  # before the name that makes the files count
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process that imports the bindings in a folder."""
    return clean_environment({"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")})


def _unpack(version: str, made: Path) -> None:
    made.mkdir()
    with tempfile.TemporaryDirectory() as name:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", name]
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "download",
                *options,
                WHEELS[version],
            ],
            clean_environment(),
        )
        (wheel,) = Path(name).glob("*.whl")
        zipfile.ZipFile(wheel).extractall(made)
    (made / "tensorrt_bindings").rename(made / "tensorrt")


def _add_stand_ins(made: Path) -> None:
    """Libraries of the names the bindings link to; the first has the symbols."""
    binary = made / "tensorrt" / "tensorrt.so"
    text = binary.read_bytes()
    needed = sorted(
        {
            name.decode()
            for name in re.findall(rb"lib(?:nvinfer|nvonnxparser|nvparsers|nvinfer_plugin)\.so\.\d+", text)
        }
    )
    symbols = sorted(
        {
            name.decode()
            for name in re.findall(rb"[A-Za-z_]\w{10,80}(?=\0)", text)
            if _SYMBOLS.match(name.decode())
        }
    )
    if not needed or not symbols:
        raise SetupError(f"{binary} links to no library of TensorRT, so it is not what was expected.")
    (made / "lib").mkdir()
    source = made / "lib" / "stand_ins.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols))
    for name in needed:
        _run(
            ["cc", "-shared", "-fPIC", "-o", str(made / "lib" / name), str(source), f"-Wl,-soname,{name}"],
            clean_environment(),
        )


def _run(command: list[str], variables: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=variables, check=False, timeout=300
        )
    except FileNotFoundError as error:
        raise SetupError(
            f"{command[0]} was not found: install it (apt-get install gcc) for the bindings of TensorRT."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(command)} took longer than {error.timeout:.0f} s.") from error
    if done.returncode:
        end = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise SetupError(f"The bindings of TensorRT could not be had: {' '.join(command)} failed: {end}")
    return done.stdout


# What follows runs in a process that can import the bindings.


def describe() -> dict[str, Any]:
    """The package as plain data: classes with their bases, methods (by docstring), properties; enumerations;
    functions."""
    import tensorrt

    classes, enums = {}, {}
    for name, value in _public(tensorrt):
        if isinstance(value, type) and (hasattr(value, "__members__") or issubclass(value, Enum)):
            enums[name] = _members(value)
        elif isinstance(value, type):
            classes[name] = _class(value)
            enums |= {
                f"{name}.{key}": _members(inner)
                for key, inner in _public(value)
                if hasattr(inner, "__members__")
            }
    plain = {name: value for name, value in _public(tensorrt) if inspect.isfunction(value)}
    functions = {name: list(inspect.signature(value).parameters) for name, value in plain.items()}
    return {"version": tensorrt.__version__, "classes": classes, "enums": enums, "functions": functions}


def _public(value: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(value, name, None)) for name in dir(value) if not name.startswith("_")]


def _members(enum: Any) -> dict[str, int]:
    return {name: int(getattr(value, "value", value)) for name, value in enum.__members__.items()}


def _class(value: type) -> dict[str, Any]:
    names = [name for name in dir(value) if not name.startswith("_") or name == "__init__"]
    found = {
        name: next((vars(base)[name] for base in value.__mro__ if name in vars(base)), None) for name in names
    }
    properties = {name: item.fset is not None for name, item in found.items() if isinstance(item, property)}
    methods = {
        name: item.__doc__ or ""
        for name, item in found.items()
        if callable(item) and not isinstance(item, type)
    }
    return {
        "bases": [base.__name__ for base in value.__mro__[1:-1]],
        "properties": properties,
        "methods": methods,
    }


def main() -> int:
    if sys.argv[1:] == ["describe"]:
        print(json.dumps(describe()))
        return 0
    unknown = [version for version in sys.argv[1:] if version not in WHEELS]
    if unknown or not sys.argv[1:]:
        print(f"Name versions of TensorRT, of {', '.join(WHEELS)}.", file=sys.stderr)
        return 2
    try:
        for version in sys.argv[1:]:
            print(ensure(version))
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
