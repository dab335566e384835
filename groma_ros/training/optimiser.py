"""Muon for the matrices inside blocks, AdamW for the rest; warm-up, constant rate, linear decay to zero;
checkpoints; bfloat16 where the hardware has it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groma_ros.atomic_write import replacing
from groma_ros.training.config import Stage

BLOCKS = (
    "encoder.layer",
    "encoder.layers",
    "decoder.layers",
    "model.layers",
    "img_txt_bridge",
    "flatten_linear",
    "updims",
    "crop.flatten",
    "crop.output",
)


@dataclass(frozen=True)
class Schedule:
    """Learning rate schedule: warm-up from 0, constant at `rate`, linear decay to 0 over the last `decay`
    steps; with `cosine`, half a cosine from the end of the warm-up to the last step."""

    steps: int
    rate: float
    warmup: int = 100
    decay: int = 0
    cosine: bool = False

    @classmethod
    def of(cls, stage: Stage) -> Schedule:
        """The schedule of a stage."""
        return cls(stage.steps, stage.rate, stage.warmup, stage.decay, stage.cosine)

    def factor(self, step: int) -> float:
        """Factor on the rate at a step."""
        up = min(1.0, (step + 1) / max(self.warmup, 1))
        if self.cosine:
            done = max(0, step - self.warmup) / max(1, self.steps - self.warmup)
            return max(0.0, min(up, 0.5 * (1 + math.cos(math.pi * done))))
        down = min(1.0, (self.steps - step) / self.decay) if self.decay else 1.0
        return max(0.0, min(up, down))


class Optimiser:
    """Two optimisers with one schedule. Muon (Jordan et al. 2024) orthogonalises the update of a matrix; both
    use weight decay."""

    def __init__(
        self,
        modules: list[nn.Module],
        schedule: Schedule,
        weight_decay: float,
        muon: bool = True,
        offsets: float = 1.0,
    ) -> None:
        named = [(n, p) for module in modules for n, p in module.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if muon and p.ndim == 2 and any(part in n for part in BLOCKS)]
        chosen = {id(p) for p in matrices}
        slow = [p for n, p in named if id(p) not in chosen and offsets != 1 and "sampling_offsets" in n]
        rest = [p for _, p in named if id(p) not in chosen | {id(p) for p in slow}]
        self.parameters = [*matrices, *rest, *slow]
        self.schedule = schedule
        groups = [{"params": rest, "share": 1.0}, *([{"params": slow, "share": offsets}] if slow else [])]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=weight_decay)
        ]
        if matrices:
            self._parts.append(
                torch.optim.Muon(
                    matrices, lr=schedule.rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, step: int, clip: float = 1.0) -> float:
        """Clip, update at the schedule's rate, clear. Returns the gradient norm before clipping."""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, clip))
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self.schedule.rate * self.schedule.factor(step) * group.get("share", 1.0)
            part.step()
            part.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def save_checkpoint(path: Path, **content: Any) -> None:
    """Write a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        torch.save(content, stream)


@cache
def halves(kind: str) -> bool:
    """Whether a type of device ("cpu", "cuda") has hardware for bfloat16; a CPU without it is about 40 times
    slower in bfloat16 than in float32."""
    if kind != "cpu":
        return True
    known = torch.cpu.get_capabilities()
    return bool(known.get("amx_tile") or known.get("avx512_bf16"))


def fast(device: torch.device) -> AbstractContextManager[object]:
    """Context in which matrix products run in bfloat16 where that is fast, in float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=halves(device.type))
