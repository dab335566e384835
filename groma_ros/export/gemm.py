"""Linear layers as graphs want them: one product over rows with its bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gemm(nn.Module):
    """A linear layer over rows as one matrix product with its bias, stored input x output.

    scale: of each output, a product of its own on the weights, so that weights that are halves stay halves in a file.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> None:
        """weight: output x input, as `nn.Linear` has it."""
        super().__init__()
        bias = torch.zeros(len(weight)) if bias is None else bias
        self.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.scale = None if scale is None else nn.Parameter(scale.detach().clone(), requires_grad=False)

    @classmethod
    def of(cls, layer: nn.Linear, scale: Tensor | None = None) -> Gemm:
        """A linear layer, its outputs times `scale`."""
        return cls(layer.weight, layer.bias, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, input) to (rows, output)."""
        if self.scale is None:
            return torch.addmm(self.bias, x, self.weight)
        return torch.addmm(self.bias * self.scale, x, self.weight * self.scale)


def as_gemms(module: nn.Module) -> None:
    """Replace every linear layer inside a module, all of which work on rows, by its Gemm."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Gemm.of(child))
        else:
            as_gemms(child)


def gelu(x: Tensor) -> Tensor:
    """GELU by the error function, in the operations that runtimes know as one."""
    return x * (torch.erf(x / 2**0.5) + 1.0) * 0.5
