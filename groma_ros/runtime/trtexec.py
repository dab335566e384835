"""The command of NVIDIA's that builds the same engine, for who would rather build it by hand or look into it."""

from __future__ import annotations

import shlex
from pathlib import Path

from groma_ros.runtime.tensorrt import Plan, Profile


def trtexec_line(graph: Path, engine: Path, timing: Path | None, plan: Plan, strongly_typed: bool) -> str:
    """A line for a shell. graph: the ONNX file; engine: the file to write; timing: the timing cache to use and to write."""
    words = ["trtexec", f"--onnx={graph}", f"--saveEngine={engine}", *_shapes(plan.profile), "--noTF32"]
    words.append(f"--memPoolSize=workspace:{plan.workspace >> 20}")
    words += ["--stronglyTyped"] if strongly_typed else []
    words += [f"--timingCacheFile={timing}"] if timing else []
    return shlex.join(words)


def _shapes(profile: Profile) -> list[str]:
    words: list[str] = []
    if not profile:
        return words
    for index, kind in enumerate(("min", "opt", "max")):
        shapes = (f"{name}:{'x'.join(map(str, sizes[index]))}" for name, sizes in profile.items())
        words.append(f"--{kind}Shapes={','.join(shapes)}")
    return words
