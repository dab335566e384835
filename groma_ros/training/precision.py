"""In which numbers a machine multiplies matrices fastest while training."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import torch


@cache
def halves(kind: str) -> bool:
    """Whether a device of a type ("cpu", "cuda") has hardware for bfloat16; a CPU without it is some 40 times
    slower in it."""
    if kind != "cpu":
        return True
    known = torch.cpu.get_capabilities()
    return bool(known.get("amx_tile") or known.get("avx512_bf16"))


def fast(device: torch.device) -> AbstractContextManager[object]:
    """Products of matrices in bfloat16 where that is fast, in float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=halves(device.type))
