"""The vision tokenizer as graphs want it: one matrix for query, key and value, biases and layer scales inside the products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from groma_ros.model.backbone import merge_tokens, to_map
from groma_ros.model.groma import Groma
from groma_ros.model.region_encoder import RegionPooling


class Gemm(nn.Module):
    """A linear layer over rows as one matrix product with its bias, stored input x output.

    scale: of each output, a product of its own on the weights, so that weights that are halves stay halves in a file.
    """

    def __init__(self, weight: Tensor, bias: Tensor, scale: Tensor | None = None) -> None:
        """weight: output x input, as `nn.Linear` has it."""
        super().__init__()
        self.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.scale = None if scale is None else nn.Parameter(scale.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, input) to (rows, output)."""
        if self.scale is None:
            return torch.addmm(self.bias, x, self.weight)
        return torch.addmm(self.bias * self.scale, x, self.weight * self.scale)


class _Rows(Gemm):
    """A Gemm over any leading axes."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., input) to (..., output)."""
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(-1, *x.shape[1:-1], self.weight.shape[1])


def _gemm(layer: nn.Linear, scale: Tensor | None = None, kind: type[Gemm] = Gemm) -> Gemm:
    """A linear layer, its outputs times `scale`."""
    return kind(layer.weight, torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias, scale)


def as_gemms(module: nn.Module) -> None:
    """Replace every linear layer inside a module by its Gemm."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _gemm(child, kind=_Rows))
        else:
            as_gemms(child)


def gelu(x: Tensor) -> Tensor:
    """GELU by the error function, in the operations that runtimes know as one."""
    return x * (torch.erf(x / 2**0.5) + 1.0) * 0.5


class _Block(nn.Module):
    """One DINOv2 block over the rows of all pictures. Layer scales and the scale of the scores are in the products with the weights,
    which changes no result but its last bits."""

    def __init__(self, block: Any, length: int) -> None:  # transformers says nothing of its types
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.length, self.heads, self.size = length, int(attention.num_attention_heads), int(attention.head_dim)
        layers: list[nn.Linear] = [attention.q_proj, attention.k_proj, attention.v_proj]
        width = self.heads * self.size
        biases: list[Tensor] = [torch.zeros(width) if layer.bias is None else layer.bias for layer in layers]
        scale = torch.cat([torch.full((width,), self.size**-0.5), torch.ones(2 * width)])
        self.qkv = Gemm(torch.cat([layer.weight.detach() for layer in layers]), torch.cat(biases), scale)
        self.output = _gemm(attention.o_proj, block.layer_scale1.lambda1)
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.known = hasattr(mlp, "fc1") and isinstance(mlp.activation_fn, GELUActivation)
        if self.known:
            self.fc1, self.fc2 = _gemm(mlp.fc1), _gemm(mlp.fc2, block.layer_scale2.lambda1)
        else:
            self.mlp, self.scale = mlp, block.layer_scale2

    def forward(self, x: Tensor) -> Tensor:
        """(B * L, C) to the same."""
        qkv = self.qkv(self.norm1(x)).reshape(-1, self.length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query @ key.transpose(-1, -2)).softmax(-1)
        x = x + self.output((weights @ value).transpose(1, 2).reshape(-1, self.heads * self.size))
        inner = self.norm2(x)
        return x + (self.fc2(gelu(self.fc1(inner))) if self.known else self.scale(self.mlp(inner)))


class _Patches(nn.Module):
    """Pixels to the backbone's first hidden state: the convolution without overlap is a product of patches as rows. The class token and
    all positions are constants."""

    def __init__(self, model: Groma) -> None:
        super().__init__()
        c, embeddings = model.config, model.perceiver.vis_encoder.embeddings
        projection: nn.Conv2d = embeddings.patch_embeddings.projection
        bias = torch.zeros(projection.out_channels) if projection.bias is None else projection.bias
        self.projection = Gemm(projection.weight.flatten(1), bias)
        cells = torch.zeros(1, 1 + c.grid**2, c.backbone.hidden_size)
        table = embeddings.interpolate_pos_encoding(cells, c.image_size, c.image_size).detach()
        self.first = nn.Parameter(embeddings.cls_token.detach() + table[:, :1], requires_grad=False)
        self.positions = nn.Parameter(table[:, 1:].clone(), requires_grad=False)
        self.grid, self.side = c.grid, c.backbone.patch_size

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, 1 + cells, C)."""
        squares = pixels.reshape(-1, pixels.shape[1], self.grid, self.side, self.grid, self.side).permute(0, 2, 4, 1, 3, 5)
        cells = self.projection(squares.reshape(-1, pixels.shape[1] * self.side**2)).reshape(-1, self.grid**2, self.first.shape[-1])
        return torch.cat([self.first.expand(cells.shape[0], -1, -1), cells + self.positions], 1)


class PerceiveGraph(nn.Module):
    """The perceiving half of a network, its linear layers as Gemms. It takes the network's detector, which is not to be used afterwards.

    dtype: of the backbone, the bridge and the maps; the detector, which makes boxes and scores, stays float32.
    """

    def __init__(self, model: Groma, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.dtype = model.config, dtype
        length = 1 + model.config.grid**2
        self.patches = _Patches(model).to(dtype)
        self.blocks = nn.ModuleList([_Block(block, length).to(dtype) for block in model.perceiver.vis_encoder.encoder.layer])
        self.bridge = nn.ModuleList([_gemm(layer) for layer in model.img_txt_bridge if isinstance(layer, nn.Linear)]).to(dtype)
        self.input_proj, self.detector = model.perceiver.input_proj, model.perceiver.ddetr_transformer
        as_gemms(self.detector)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Normalised pixels (B, 3, S, S) to image tokens (B, T, D), boxes (B, Q, 4) cxcywh, objectness (B, Q), region maps."""
        c = self.config
        first = self.patches(pixels.to(self.dtype))
        rows = [first.reshape(-1, first.shape[-1])]
        for block in self.blocks:
            rows.append(block(rows[-1]))
        states = [first, *(row.reshape(-1, *first.shape[1:]) for row in rows[1:])]
        last = [state.float() for state in states[-c.proposer.backbone_layers :]]
        mean = sum(last[1:], last[0]) / len(last)
        boxes, objectness = self.detector.infer([projection(to_map(mean)) for projection in self.input_proj])
        merged = merge_tokens(states[c.vis_output_layer], c.token_merge)
        inner = gelu(self.bridge[0](merged.reshape(-1, merged.shape[-1])))
        tokens = self.bridge[1](inner).reshape(-1, merged.shape[1], c.language.hidden_size)
        return (tokens.float(), boxes, objectness, *(to_map(states[layer]) for layer in c.region.layers))


class RegionGraph(nn.Module):
    """The region encoder of a network, its convolutions of pooled levels as one. It takes the encoder, which is not to be used afterwards.

    dtype: of the convolutions and the first linear layer; sampling places, resizes and a box's own embedding stay float32.
    """

    def __init__(self, model: Groma, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        c, encoder = model.config, model.region_encoder
        self.dtype = dtype
        self.fuse, self.pooling = encoder.mlvl_fuse.to(dtype), encoder.roi_align
        self.conv = _one_convolution(self.pooling).to(dtype)
        self.flatten = _gemm(self.pooling.flatten_linear).to(dtype)
        as_gemms(self.pooling.pos_embedd)
        self.updims = _gemm(self.pooling.updims)
        names = model.new_input_embs.weight[c.first_region_id - c.language.vocab_size :] if c.index_in_feature_slot else None
        self.names = None if names is None else nn.Parameter(names.detach().clone(), requires_grad=False)

    def forward(self, maps: list[Tensor], boxes: Tensor) -> Tensor:
        """Region maps (1, C, s, s), one a level, and boxes (R, 4) cxcywh to what stands in the feature slots (R, D)."""
        pooled = self.pooling.pool(self.fuse([level.to(self.dtype) for level in maps]), boxes[None])
        total = self.conv(torch.cat([level[0] for level in pooled], 1).to(self.dtype))
        flat = self.flatten(F.relu(total).flatten(1)).float()
        tokens = self.updims(flat + self.pooling.pos_embedd(boxes))
        return tokens if self.names is None else tokens + self.names[: tokens.shape[0]]


def _one_convolution(pooling: RegionPooling) -> nn.Conv2d:
    """The convolutions of all levels, whose results are added, as one over all their channels."""
    layers = [layer for layer in pooling.pconvs if isinstance(layer, nn.Conv2d)]
    weight = torch.cat([layer.weight.detach() for layer in layers], 1)
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers if layer.bias is not None]).sum(0), requires_grad=False)
    return conv
