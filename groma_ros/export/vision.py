"""The vision tokenizer as a graph wants it: one matrix for query, key and value, biases and layer scales inside the products."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from groma_ros.model.backbone import merge_tokens, to_map
from groma_ros.model.groma import Groma


class Gemm(nn.Module):
    """A linear layer over any leading axes as one matrix product with its bias, stored input x output."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: output x input, as `nn.Linear` has it."""
        super().__init__()
        self.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[1:-1], self.weight.shape[1])
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat if x.dim() == 2 else flat.reshape(-1, *shape)


def _gemm(layer: nn.Linear, scale: Tensor | None = None) -> Gemm:
    """A linear layer, its outputs times `scale`."""
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
    return Gemm(layer.weight, bias) if scale is None else Gemm(layer.weight * scale[:, None], bias * scale)


def as_gemms(module: nn.Module) -> None:
    """Replace every linear layer inside a module by its Gemm."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _gemm(child))
        else:
            as_gemms(child)


def gelu(x: Tensor) -> Tensor:
    """GELU by the error function, in the operations that runtimes know as one."""
    return x * (torch.erf(x / 2**0.5) + 1.0) * 0.5


class _Block(nn.Module):
    """One DINOv2 block. The layer scales and the scale of the scores are in the weights, which changes no result but its last bits."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.heads, self.size = attention.num_attention_heads, attention.head_dim
        layers = (attention.q_proj, attention.k_proj, attention.v_proj)
        scales = (torch.full((self.heads * self.size,), self.size**-0.5), None, None)
        parts = [_gemm(layer, scale) for layer, scale in zip(layers, scales, strict=True)]
        self.qkv = Gemm(torch.cat([part.weight.T for part in parts]), torch.cat([part.bias for part in parts]))
        self.output = _gemm(attention.o_proj, block.layer_scale1.lambda1)
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.known = hasattr(mlp, "fc1") and isinstance(mlp.activation_fn, GELUActivation)
        if self.known:
            self.fc1, self.fc2 = _gemm(mlp.fc1), _gemm(mlp.fc2, block.layer_scale2.lambda1)
        else:
            self.mlp, self.scale = mlp, block.layer_scale2

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) to the same."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, self.size)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query @ key.transpose(-1, -2)).softmax(-1)
        x = x + self.output((weights @ value).transpose(1, 2).flatten(2))
        inner = self.norm2(x)
        return x + (self.fc2(gelu(self.fc1(inner))) if self.known else self.scale(self.mlp(inner)))


class _Patches(nn.Module):
    """Pixels to the backbone's first hidden state. The class token and all positions are constants."""

    def __init__(self, model: Groma) -> None:
        super().__init__()
        c, embeddings = model.config, model.perceiver.vis_encoder.embeddings
        self.projection = embeddings.patch_embeddings.projection
        cells = torch.zeros(1, 1 + c.grid**2, c.backbone.hidden_size)
        table = embeddings.interpolate_pos_encoding(cells, c.image_size, c.image_size).detach()
        self.first = nn.Parameter(embeddings.cls_token.detach() + table[:, :1], requires_grad=False)
        self.positions = nn.Parameter(table[:, 1:].clone(), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        cells = self.projection(pixels).flatten(2).transpose(1, 2) + self.positions
        return torch.cat([self.first.expand(cells.shape[0], -1, -1), cells], 1)


class PerceiveGraph(nn.Module):
    """A copy of the perceiving half of a network, its linear layers as Gemms. The network keeps its weights."""

    def __init__(self, model: Groma) -> None:
        super().__init__()
        self.config = model.config
        self.patches = _Patches(model)
        self.blocks = nn.ModuleList([_Block(block) for block in model.perceiver.vis_encoder.encoder.layer])
        self.input_proj = model.perceiver.input_proj
        self.detector = copy.deepcopy(model.perceiver.ddetr_transformer)
        self.bridge = nn.ModuleList([_gemm(layer) for layer in model.img_txt_bridge if isinstance(layer, nn.Linear)])
        as_gemms(self.detector)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Normalised pixels (B, 3, S, S) to image tokens (B, T, D), boxes (B, Q, 4) cxcywh, objectness (B, Q), region maps."""
        c = self.config
        states = [self.patches(pixels)]
        for block in self.blocks:
            states.append(block(states[-1]))
        last = states[-c.proposer.backbone_layers :]
        mean = sum(last[1:], last[0]) / len(last)
        boxes, objectness = self.detector.infer([projection(to_map(mean)) for projection in self.input_proj])
        merged = merge_tokens(states[c.vis_output_layer], c.token_merge)
        tokens = self.bridge[1](gelu(self.bridge[0](merged)))
        return (tokens, boxes, objectness, *(to_map(states[layer]) for layer in c.region.layers))

