"""What runs in the process of one variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groma_ros.bench.child import About, Memory, Variant
from groma_ros.bench.claims import Paths, measure_paths
from groma_ros.bench.frames import to_frame
from groma_ros.bench.goals import mixed_goals, single_goals
from groma_ros.bench.machine import Ceilings, gpu_used_mb, peak_mb
from groma_ros.bench.stages import Sample, TimedGrounder
from groma_ros.bench.untrained import NETWORKS, TEMPLATE, random_runtime, random_tokenizer
from groma_ros.runtime.bundle import Bundle
from groma_ros.timing import use_clock


class Worker:
    """A loaded variant. Errors are those of `Grounder.load`."""

    def __init__(self, variant: Variant) -> None:
        use_clock(variant.clock)
        self._gpu_before = gpu_used_mb()
        self._trained = variant.model is not None
        self._grounder, network = _untrained(variant) if variant.model is None else _trained(variant, variant.model)
        runtime = self._grounder.runtime
        assert runtime is not None
        self.about = About(runtime.backend, runtime.precision, runtime.device, network)

    def measure(self, jpeg: bytes, goals: int) -> Sample:
        """Answer so many goals about a picture."""
        asked = mixed_goals(goals) if self._trained else single_goals(goals)
        return self._grounder.measure(lambda: to_frame(jpeg), asked)

    def paths(self, jpeg: bytes) -> Paths:
        """The same answers by the short way and by the long ones."""
        return measure_paths(self._grounder, to_frame(jpeg), self._trained)

    def memory(self) -> Memory:
        """Of this process so far; on a GPU also what came to be used there since before it loaded."""
        used = gpu_used_mb() if self.about.device == "cuda" else None
        return Memory(peak_mb(), None if used is None else used - (self._gpu_before or 0))

    def ceilings(self) -> Ceilings | None:
        """Of the GPU this variant runs on; None on the CPU, or where PyTorch is not there to measure it."""
        if self.about.device != "cuda":
            return None
        try:
            from groma_ros.runtime.torch import device_ceilings
        except ImportError:
            return None
        return Ceilings(*device_ceilings(self.about.device), "float16 on the GPU")


def _trained(variant: Variant, model: Path) -> tuple[TimedGrounder, dict[str, Any]]:
    """The model of a folder, and its network's config."""
    grounder = TimedGrounder.load(
        model, device=variant.device, backend=variant.backend, threads=variant.threads, precision=variant.precision
    )
    assert isinstance(grounder, TimedGrounder)
    return grounder, Bundle.load(model).network


def _untrained(variant: Variant) -> tuple[TimedGrounder, dict[str, Any]]:
    """Random weights of a size, and their network's config."""
    config = NETWORKS[variant.size]
    runtime = random_runtime(variant)
    tokenizer = random_tokenizer(config)
    grounder = TimedGrounder(runtime.vision, runtime.language, tokenizer, TEMPLATE, runtime=runtime)
    return grounder, config.to_dict()
