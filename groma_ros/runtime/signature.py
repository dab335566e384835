"""The names and shapes that the network config asks of the graphs of a bundle, whatever library runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groma_ros.model.config import GromaConfig
from groma_ros.runtime.bundle import Bundle, BundleError

# Name -> shape. A number must be met, "" is a dimension that must be free, -1 one of which nothing is known.
Shapes = dict[str, tuple[int | str, ...]]


def perceive_shapes(config: GromaConfig) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of the perceive graph."""
    side = config.image_size
    outputs: Shapes = {
        "image_tokens": ("", config.num_image_tokens, config.language.hidden_size),
        "boxes": ("", -1, 4),
        "objectness": ("", -1),
    }
    return {"pixels": ("", config.backbone.num_channels, side, side)}, outputs | _map_shapes(config, "")


def _map_shapes(config: GromaConfig, batch: int | str) -> Shapes:
    shape = (batch, config.backbone.hidden_size, config.grid, config.grid)
    return {f"map.{level}": shape for level in range(len(config.region.layers))}


def region_shapes(config: GromaConfig) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of the encode_regions graph."""
    return {**_map_shapes(config, 1), "boxes": ("", 4)}, {"region_tokens": ("", config.region_output)}


def language_shapes(config: GromaConfig) -> tuple[Shapes, Shapes]:
    """Inputs and outputs of the language graph."""
    c = config.language
    inputs: Shapes = {"embeddings": ("", c.hidden_size), "positions": ("",), "mask": ("", ""), "rows": ("",)}
    outputs: Shapes = {"logits": ("", config.vocab_size)}
    held = (c.num_key_value_heads or c.num_attention_heads, "", c.hidden_size // c.num_attention_heads)
    for layer in range(c.num_hidden_layers):
        for kind in ("key", "value"):
            inputs[f"past_{kind}.{layer}"] = outputs[f"present_{kind}.{layer}"] = held
    return inputs, outputs


def check_shapes(bundle: Bundle, name: str, kind: str, wanted: Shapes, found: Mapping[str, Sequence[Any]]) -> None:
    """BundleError unless the inputs or outputs (`kind`) of the graph `name` have the wanted names and shapes.

    found: shapes by name; a free dimension is anything but a number.
    """
    if set(found) != set(wanted):
        more, less = sorted(set(found) - set(wanted)), sorted(set(wanted) - set(found))
        what = f"lacks the {kind} {less[0]}" if less else f"has the {kind} {more[0]}, which nothing knows"
        raise BundleError(f"{name} of {bundle.name} {what}; make the graphs again with groma convert.")
    for key, shape in wanted.items():
        if not _fits(shape, found[key]):
            asked = ", ".join("free" if size == "" else "any" if size == -1 else str(size) for size in shape)
            raise BundleError(
                f"{name} of {bundle.name} has the {kind} {key} of shape ({', '.join(map(str, found[key]))}), but its network "
                f"config asks for ({asked}); make the graphs again with groma convert."
            )


def _fits(wanted: Sequence[int | str], found: Sequence[Any]) -> bool:
    """Whether a shape is the one asked for."""
    if len(wanted) != len(found):
        return False
    free = [not isinstance(size, int) for size in found]
    return all(size == -1 or (is_free if size == "" else size == real) for size, real, is_free in zip(wanted, found, free, strict=True))
