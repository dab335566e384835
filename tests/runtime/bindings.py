"""The API of a TensorRT version as a module: every class, enumeration and signature from NVIDIA's own
bindings, nothing behind them.

`tools/tensorrt_bindings.py` describes the bindings; here the description becomes classes. What the bindings
do not have cannot be named, called with other arguments, or set. What a test needs behind a method it gives
as a behaviour.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("8.6", "10.16", "11.4")
_INT, _BUFFER = ("int", "SupportsInt"), ("buffer", "Buffer")
_SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((.*)\) -> (.+)$")

Behaviours = Mapping[tuple[str, str], Callable[..., Any]]


@cache
def folder(version: str) -> Path:
    """The folder of a version's bindings. Fails the test if it cannot be had, and skips it where NVIDIA has
    none for this Python."""
    if version == "8.6" and sys.version_info >= (3, 12):
        pytest.skip("TensorRT 8.6 was built for Python up to 3.11")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "tensorrt_bindings.py"), version],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stderr.strip(), pytrace=False)
    return Path(done.stdout.strip())


def read_api(version: str) -> dict[str, Any]:
    """What `tools/tensorrt_bindings.py` says of a version, for the test to keep."""
    api: dict[str, Any] = json.loads((folder(version) / "api.json").read_text())
    return api


@dataclass(frozen=True)
class Signature:
    """One overload. parameters: name, type and default ("" for none) of each but self; returns: a type."""

    parameters: tuple[tuple[str, str, str], ...]
    returns: str


@cache
def signatures(doc: str) -> tuple[Signature, ...]:
    """The overloads a docstring of pybind11 lists."""
    found = [match for match in map(_SIGNATURE.match, doc.splitlines()) if match]
    return tuple(
        Signature(
            tuple(_parameter(part) for part in _split(match[1]) if not _is_self(part)), match[2].strip()
        )
        for match in found
    )


def _split(text: str) -> list[str]:
    """Parts between the commas outside any bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _is_self(text: str) -> bool:
    return text.split(":")[0].strip() in ("self", "arg0")


def _parameter(text: str) -> tuple[str, str, str]:
    name, _, rest = text.partition(":")
    kind, _, default = rest.partition(" = ")
    return name.strip(), kind.strip(), default.strip()


def _last(kind: str) -> str:
    return re.split(r"[.:]+", kind.split("[")[0])[-1]


class Api:
    """A module `tensorrt` with the classes of a description, and what the tests put behind them."""

    def __init__(self, api: dict[str, Any], behaviours: Behaviours) -> None:
        self.module = ModuleType("tensorrt")
        self.module.__spec__ = ModuleSpec("tensorrt", None)
        self.behaviours = behaviours
        self.called: list[str] = []
        self._api = api
        self._made: dict[str, Any] = {}
        self._full = {name.rpartition(".")[2]: name for name in (*api["classes"], *api["enums"])}
        # Names are made when they are asked for: there are hundreds.
        self.module.__dict__.update(__version__=api["version"], __getattr__=self._get)

    def _get(self, name: str) -> Any:
        """A class, enumeration or function. AttributeError if the bindings have none of that name."""
        if name not in self._made:
            if name in self._api["classes"]:
                self._made[name] = self._class(name, self._api["classes"][name])
            elif name in self._api["enums"]:
                self._made[name] = Enum(name, self._api["enums"][name], type=_Number)
            elif name in self._api["functions"]:
                self._made[name] = self._function(name, self._api["functions"][name])
            else:
                raise AttributeError(f"module 'tensorrt' has no attribute {name!r}")
        return self._made[name]

    def new(self, name: str, *value: Any, **state: Any) -> Any:
        """An object of a class as the library hands it out."""
        made = self._get(name).__new__(self._get(name), *value)
        object.__setattr__(made, "state", SimpleNamespace(**state))
        return made

    def _class(self, name: str, about: Mapping[str, Any]) -> type:
        values: dict[str, Any] = {"__init__": self._constructor(name, about["methods"].get("__init__", ""))}
        values |= {
            key: self._method(name, key, doc) for key, doc in about["methods"].items() if key != "__init__"
        }
        values |= {key: self._property(name, key, settable) for key, settable in about["properties"].items()}
        values |= {
            full.split(".")[1]: self._get(full) for full in self._api["enums"] if full.startswith(f"{name}.")
        }
        values["__setattr__"] = _only_properties(about["properties"])
        bases = tuple(self._get(base) for base in about["bases"][:1] if base in self._api["classes"])
        # Memory of the library is a buffer, and shapes are sequences.
        return type(name, {"IHostMemory": (bytes,), "Dims": (tuple,)}.get(name, bases), values)

    def _constructor(self, name: str, doc: str) -> Callable[..., None]:
        def init(made: Any, *args: Any, **kwargs: Any) -> None:
            overloads = signatures(doc)
            if not overloads:
                raise TypeError(f"tensorrt.{name}: No constructor defined!")
            given, _ = self._match(f"{name}.__init__", overloads, args, kwargs)
            object.__setattr__(made, "state", SimpleNamespace(**given))
            self.behaviours.get((name, "__init__"), lambda made: None)(made)

        return init

    def _method(self, name: str, key: str, doc: str) -> Callable[..., Any]:
        def method(made: Any, *args: Any, **kwargs: Any) -> Any:
            given, returns = self._match(f"{name}.{key}", signatures(doc), args, kwargs)
            if (name, key) not in self.behaviours:
                raise NotImplementedError(f"tensorrt.{name}.{key} is there, but no test has needed it")
            result = self.behaviours[name, key](made, *given.values())
            assert result is None or self._fits(result, returns), (
                f"{name}.{key} gives {returns}, not {result!r}"
            )
            return result

        return method

    def _property(self, name: str, key: str, settable: bool) -> property:
        def read(made: Any) -> Any:
            self.called.append(f"{name}.{key}")
            behaviour = self.behaviours.get((name, key))
            return behaviour(made) if behaviour else getattr(made.state, key)

        def write(made: Any, value: Any) -> None:
            self.called.append(f"{name}.{key}")
            setattr(made.state, key, value)

        return property(read, write if settable else None)

    def _function(self, name: str, parameters: list[str]) -> Callable[..., Any]:
        def function(*args: Any) -> Any:
            if len(args) != len(parameters):
                raise TypeError(f"{name}() takes {len(parameters)} arguments, not {len(args)}")
            self.called.append(name)
            return self.behaviours["", name](*args)

        return function

    def _match(
        self, name: str, overloads: Sequence[Signature], args: Any, kwargs: Any
    ) -> tuple[dict[str, Any], str]:
        """The arguments by name, and the type of the result, of the first overload that fits."""
        self.called.append(name)
        for overload in overloads:
            names = [parameter[0] for parameter in overload.parameters]
            given = dict(zip(names, args)) | kwargs
            needed = {parameter[0] for parameter in overload.parameters if not parameter[2]}
            if len(args) > len(names) or not needed <= set(given) <= set(names):
                continue
            kinds = {parameter[0]: parameter for parameter in overload.parameters}
            if all(self._fits(value, kinds[key][1], kinds[key][2]) for key, value in given.items()):
                return {key: given[key] for key in names if key in given}, overload.returns
        raise TypeError(
            f"{name}(): incompatible function arguments: {args} {kwargs}; supported are {overloads}"
        )

    def _fits(self, value: Any, kind: str, default: str = "") -> bool:
        last = _last(kind)
        if value is None:
            return default == "None" or last in ("None", "object") or kind.startswith("Optional")
        if last in _INT:
            return isinstance(value, int) and not isinstance(value, bool)
        if last in _BUFFER:
            return isinstance(value, bytes | bytearray | memoryview)
        if last == "Dims":
            return isinstance(value, tuple | list) and all(isinstance(size, int) for size in value)
        plain = {"str": str, "bool": bool, "tuple": tuple, "list": list, "List": list, "object": object}
        # The type of an object the bindings give no name to is not known here.
        return isinstance(
            value, plain.get(last) or (self._get(self._full[last]) if last in self._full else object)
        )


class _Number:
    """Enumerations of pybind11 become numbers only where int() is asked for."""

    value: int

    def __int__(self) -> int:
        return self.value


def _only_properties(properties: Mapping[str, bool]) -> Callable[[Any, str, Any], None]:
    def set_attribute(made: Any, name: str, value: Any) -> None:
        # A class that Python derives has attributes of its own; the library's have their properties.
        if type(made).__module__ == __name__ and not properties.get(name):
            raise AttributeError(
                f"'tensorrt.{type(made).__name__}' object has no attribute {name!r} that can be set"
            )
        object.__setattr__(made, name, value)

    return set_attribute
