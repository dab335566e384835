"""All constants of Groma as config fields. The defaults are the published values; `from_dict` reads the
original config.json.

The original config.json stores nested configs as differences from their class defaults, which are not the
published values (a bare Dinov2Config is a ViT-B, for example). `ORIGINAL_DEFAULTS` holds them, so that an
absent key means what it means to the original code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from groma_ros.crop_shape import CropShape
from groma_ros.errors import quoted

ADDED_TOKENS = (
    "[PAD]",
    "<sep>",
    "<img>",
    "</img>",
    "<roi>",
    "</roi>",
    "<p>",
    "</p>",
    "<image>",
    "<region>",
    "<refer_box>",
    "<ground_box>",
    "<refer_feat>",
    "[grounding]",
)


RoiGeometry = Literal["published", "exact"]


@dataclass(frozen=True)
class BackboneConfig:
    """DINOv2; field names as in transformers' Dinov2Config."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    mlp_ratio: float = 4
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    image_size: int = 518
    """Determines the size of the position table, not of the input."""
    patch_size: int = 14
    num_channels: int = 3
    qkv_bias: bool = True
    layerscale_value: float = 1.0
    use_swiglu_ffn: bool = False
    initializer_range: float = 0.02


@dataclass(frozen=True)
class ProposerConfig:
    """Two-stage Deformable DETR; field names as in transformers' DeformableDetrConfig, followed by constants
    of the original code."""

    d_model: int = 256
    encoder_layers: int = 6
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 1024
    encoder_n_points: int = 4
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_ffn_dim: int = 1024
    decoder_n_points: int = 4
    num_queries: int = 300
    two_stage_num_proposals: int = 300
    num_feature_levels: int = 1
    two_stage: bool = True
    with_box_refine: bool = True
    class_cost: float = 2
    bbox_cost: float = 5
    giou_cost: float = 2
    cls_loss_coefficient: float = 2
    bbox_loss_coefficient: float = 5
    giou_loss_coefficient: float = 2
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    backbone_layers: int = 4  # the mean of the last 4 hidden states feeds the proposer
    bbox_hidden: int = 256
    position_temperature: float = 10000.0
    proposal_scale: float = 0.05
    coco_power: float = 0.4
    sa1b_power: float = 0.6
    crop: tuple[int, ...] = ()
    """Channels of the convolutions over the pixels of each proposal, which correct its box and objectness.
    Empty (none) in the published network."""
    crop_side: int = 32
    """Side of the pictures that the pixels of proposals are resized to."""
    crop_margin: float = 2.0
    """Side of the resized part of the picture, in sides of the box: an object may extend beyond its
    proposal."""
    crop_hidden: int = 96
    """Width of the layer after these convolutions."""
    crop_queries: int = 24
    """Proposals that are corrected, those of the highest objectness."""

    @property
    def crop_shape(self) -> CropShape | None:
        """The convolutions over the pixels of each proposal, if there are any."""
        return CropShape(self.crop, self.crop_side, self.crop_margin, self.crop_hidden) if self.crop else None


@dataclass(frozen=True)
class RegionEncoderConfig:
    """Region encoder."""

    geometry: RoiGeometry = "published"
    """published: boxes go to RoIAlign as (cx, cy, w, h) in units of 448 px over strides that are half the
    true ones, as the published weights were trained; exact: true corners in true feature pixels."""
    layers: tuple[int, ...] = (-3, -2, -1)
    upsample: tuple[int, ...] = (4, 2, 1)
    strides: tuple[float, ...] = (14 / 8, 14 / 4, 14 / 2)
    box_scale: float = 448.0
    channels: int | None = None  # None: the width of the backbone
    fuse_rounds: int = 5
    groups: int = 64
    pooled: int = 14
    sampling_ratio: int = 2
    pos_hidden: int = 256
    hidden: int = 1024
    output: int | None = None  # None: the width of the language model
    fine: tuple[int, ...] = ()
    """Channels of the convolutions of an additional level computed from the pixels, for objects hardly larger
    than a patch: the first two with stride 2, the last as wide as the other levels. Empty (none) in the
    published network."""
    crop: tuple[int, ...] = ()
    """Channels of the convolutions over the pixels of each box, every second one with stride 2, the first one
    too. What a box shows is then seen at one size, however small or large it is. Empty (none) in the
    published network."""
    crop_side: int = 32
    """Side of the pictures that the pixels of boxes are resized to."""
    crop_margin: float = 1.25
    """Side of the resized part of the picture, in sides of the box."""

    @property
    def crop_shape(self) -> CropShape | None:
        """The convolutions over the pixels of each box, if there are any."""
        if not self.crop:
            return None
        return CropShape(self.crop, self.crop_side, self.crop_margin, self.hidden, self.groups)


@dataclass(frozen=True)
class LanguageConfig:
    """Llama; field names as in transformers' LlamaConfig."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None  # None: one per attention head
    hidden_act: str = "silu"
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    bos_token_id: int = 1
    eos_token_id: int = 2


@dataclass(frozen=True)
class GromaConfig:
    """The whole network."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    proposer: ProposerConfig = field(default_factory=ProposerConfig)
    region: RegionEncoderConfig = field(default_factory=RegionEncoderConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    image_size: int = 448
    """Side of the square input, pixels."""
    vis_output_layer: int = -2
    token_merge: int = 2  # side of the square of cells merged to one image token
    num_new_token: int = 114
    max_region_num: int = 100
    box_score_thres: float = 0.15
    nms_thres: float = 0.6
    ground_box_score: float = 0.2
    index_in_feature_slot: bool = (
        False  # add the embedding of <rK> to region feature K; off in the published network
    )

    def __post_init__(self) -> None:
        """Raise ValueError naming the field for values with which no network can be built."""
        for part in (self, self.backbone, self.proposer, self.language, self.region):
            _check_bounds(part)
        step = self.backbone.patch_size * self.token_merge
        checks = (
            (
                self.image_size % step == 0,
                f"image_size {self.image_size} must be divisible by {step} (patch x merge)",
            ),
            (
                self.num_new_token > len(ADDED_TOKENS),
                f"num_new_token {self.num_new_token} leaves no region token",
            ),
            (
                1 <= self.max_region_num <= self.num_new_token - len(ADDED_TOKENS),
                f"max_region_num {self.max_region_num} is not 1 to "
                f"{self.num_new_token - len(ADDED_TOKENS)}, the region tokens there are",
            ),
            (
                0 <= self.box_score_thres < 1,
                f"box_score_thres {self.box_score_thres} must be from 0 to below 1",
            ),
            (0 <= self.nms_thres <= 1, f"nms_thres {self.nms_thres} must be from 0 to 1"),
            (
                self.proposer.two_stage and self.proposer.with_box_refine,
                "proposer: only the two-stage form with box refinement exists (two_stage and "
                "with_box_refine true)",
            ),
            (
                len(self.region.layers) == len(self.region.upsample) == len(self.region.strides),
                "region: layers, upsample and strides must have one entry a level",
            ),
            (
                self.backbone.hidden_size % self.backbone.num_attention_heads == 0,
                "backbone: heads must divide hidden_size",
            ),
            (
                self.language.hidden_size % self.language.num_attention_heads == 0,
                "language: heads must divide hidden_size",
            ),
            (self.region_channels % self.region.groups == 0, "region: groups must divide the channels"),
            (
                not self.region.fine
                or (len(self.region.fine) >= 2 and self.region.fine[-1] == self.region_channels),
                "region: fine must name two or more widths, the last of them the region channels",
            ),
            (
                not self.region.fine or self.region.geometry == "exact",
                "region: fine needs the exact geometry",
            ),
            (
                not self.region.fine or self.image_size % 4 == 0,
                "region: fine needs an image_size that 4 divides",
            ),
            (
                not self.region.crop or self.region.geometry == "exact",
                "region: crop needs the exact geometry",
            ),
            *(self.region.crop_shape.checks("region") if self.region.crop_shape else ()),
            *(self.proposer.crop_shape.checks("proposer") if self.proposer.crop_shape else ()),
        )
        for good, sentence in checks:
            if not good:
                raise ValueError(f"The network config is wrong: {sentence}.")

    @property
    def grid(self) -> int:
        """Cells along one side of the backbone's feature map."""
        return self.image_size // self.backbone.patch_size

    @property
    def num_image_tokens(self) -> int:
        return (self.grid // self.token_merge) ** 2

    @property
    def region_channels(self) -> int:
        return self.region.channels or self.backbone.hidden_size

    @property
    def map_shapes(self) -> list[tuple[int, int, int]]:
        """(channels, height, width) of every map from which regions are encoded: the backbone's levels, the
        fine one, and the pixels."""
        coarse = (self.backbone.hidden_size, self.grid, self.grid)
        fine = (
            [(self.region_channels, self.image_size // 4, self.image_size // 4)] if self.region.fine else []
        )
        pixels = [(self.backbone.num_channels, self.image_size, self.image_size)] if self.region.crop else []
        return [coarse] * len(self.region.layers) + fine + pixels

    @property
    def region_output(self) -> int:
        return self.region.output or self.language.hidden_size

    @property
    def vocab_size(self) -> int:
        return self.language.vocab_size + self.num_new_token

    @property
    def language_parameters(self) -> int:
        """Number of weights of the language model, without its input embeddings."""
        c = self.language
        keys = c.hidden_size // c.num_attention_heads * (c.num_key_value_heads or c.num_attention_heads)
        layer = 2 * c.hidden_size * (c.hidden_size + keys + 1) + 3 * c.hidden_size * c.intermediate_size
        return c.num_hidden_layers * layer + c.hidden_size * (self.vocab_size + 1)

    @property
    def first_region_id(self) -> int:
        """Token id of <r0>."""
        return self.language.vocab_size + len(ADDED_TOKENS)

    def token_id(self, token: str) -> int:
        """Id of one of Groma's added tokens (`ADDED_TOKENS`)."""
        return self.language.vocab_size + ADDED_TOKENS.index(token)

    def to_dict(self) -> dict[str, Any]:
        """The nested form of the original config.json with additional fields, for `from_dict`."""
        own = {k: getattr(self, k) for k in _GROMA_KEYS}
        return {
            "model_type": "groma",
            **own,
            "llm_cfg": dataclasses.asdict(self.language),
            "region_cfg": dataclasses.asdict(self.region),
            "perceiver_cfg": {
                "vis_output_layer": self.vis_output_layer,
                "vis_encoder_cfg": dataclasses.asdict(self.backbone),
                "ddetr_cfg": dataclasses.asdict(self.proposer),
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GromaConfig:
        """Read a parsed config.json, ours or the original's. Raises ValueError naming what is wrong."""
        try:
            perceiver = data["perceiver_cfg"]
            parts: dict[str, Any] = {
                "backbone": _read(BackboneConfig, perceiver["vis_encoder_cfg"]),
                "proposer": _read(ProposerConfig, perceiver["ddetr_cfg"]),
                "language": _read(LanguageConfig, data["llm_cfg"]),
                "region": _read(RegionEncoderConfig, data.get("region_cfg", {})),
                "vis_output_layer": perceiver.get("vis_output_layer", -1),
            }
        except KeyError as error:
            raise ValueError(
                f"The network config has no key {error}; it is not a Groma config.json."
            ) from None
        own = {key: data[key] for key in _GROMA_KEYS if key in data}
        _check_types(cls, {**own, "vis_output_layer": parts["vis_output_layer"]})
        return cls(**parts, **own)


def check_family(config: Mapping[str, Any], path: object, whole: bool = True) -> None:
    """Raise ValueError if a config.json describes a network of another family or, if the whole network is
    needed, only Groma's region proposer. path: names the file in errors."""
    if "vis_encoder_cfg" in config and "llm_cfg" not in config:
        if whole:
            raise ValueError(
                f"{path} describes Groma's region proposer alone (the first training stage); name the "
                "checkpoint of a whole Groma, such as groma-7b."
            )
        return
    family = config.get("model_type", "groma")
    if family != "groma":
        raise ValueError(f"{path} describes a model of the family {quoted(family)} and not Groma.")


_GROMA_KEYS = (
    "image_size",
    "token_merge",
    "num_new_token",
    "max_region_num",
    "box_score_thres",
    "nms_thres",
    "ground_box_score",
    "index_in_feature_slot",
)

# What an absent key means in the original: transformers 4.32 class defaults where they differ from the
# published values.
ORIGINAL_DEFAULTS: dict[type, dict[str, Any]] = {
    BackboneConfig: {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
    },
    ProposerConfig: {
        "num_feature_levels": 4,
        "two_stage": False,
        "with_box_refine": False,
        "class_cost": 1,
        "cls_loss_coefficient": 1,
    },
    LanguageConfig: {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    RegionEncoderConfig: {},
}

MOST = 1_000_000
"""Upper bound of whole numbers without an entry in `LIMITS`; the largest of the published network is
32000."""
LIMITS = {
    "num_hidden_layers": 512,
    "encoder_layers": 64,
    "decoder_layers": 64,
    "backbone_layers": 512,
    "num_feature_levels": 16,
    "fuse_rounds": 64,
    "image_size": 16_384,
    "hidden_size": 65_536,
    "intermediate_size": 262_144,
    "encoder_ffn_dim": 65_536,
    "decoder_ffn_dim": 65_536,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "d_model": 16_384,
    "channels": 65_536,
    "output": 65_536,
    "hidden": 65_536,
    "fine": 65_536,
    "crop": 65_536,
    "crop_side": 1024,
    "crop_hidden": 65_536,
    "crop_queries": 100_000,
    "num_queries": 100_000,
    "two_stage_num_proposals": 100_000,
    "pooled": 256,
    "sampling_ratio": 64,
    "num_new_token": 100_000,
    "max_position_embeddings": 16_777_216,
}
"""Bounds of whole numbers by the name of their field, checked before a network is built: the published
network stays below each by a factor of ten or more, and a manifest cannot make a list of 2^31 layers."""
_MAY_BE_ZERO = frozenset(
    {
        "max_region_num",
        "num_new_token",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "vis_output_layer",
    }
)


_WIDTHS = frozenset({"fine", "crop", "upsample"})
"""Lists of numbers of which each must be 1 or more."""


def _check_bounds(part: Any) -> None:
    """Raise ValueError naming a whole number of a config that is out of bounds."""
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if item.type == "tuple[int, ...]" and (
            not isinstance(value, tuple) or any(type(number) is not int for number in value)
        ):
            raise ValueError(
                f"The network config is wrong: {item.name} is {quoted(value)} and not a list of whole "
                "numbers."
            )
        numbers = value if isinstance(value, tuple) else (value,)
        if len(numbers) > 64:
            raise ValueError(
                f"The network config is wrong: {item.name} has {len(numbers)} entries, at most 64 may be."
            )
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(
                        f"The network config is wrong: {item.name} is {number}, not a finite number."
                    )
                continue
            most = LIMITS.get(item.name, MOST)
            least = (
                -most
                if item.name in _MAY_BE_ZERO or (item.type[:3] != "int" and item.name not in _WIDTHS)
                else 1
            )
            if not least <= number <= most:
                raise ValueError(
                    f"The network config is wrong: {item.name} is {number}, not {least} to {most}."
                )


_TYPES: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "str": str}


def _check_types(kind: type, values: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first value whose type is not its field's."""
    for item in dataclasses.fields(kind):
        wanted, value = _TYPES.get(str(item.type)), values.get(item.name, item.default)
        if wanted is not None and (
            not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool)
        ):
            raise ValueError(
                f"The network config is wrong: {item.name} is {quoted(value)} and not of type {item.type}."
            )


def _read(kind: type, data: Mapping[str, Any]) -> Any:
    """Build a config dataclass from the keys it knows; unknown keys are the original's bookkeeping."""
    known = {f.name for f in dataclasses.fields(kind)}
    values = {**ORIGINAL_DEFAULTS[kind], **{k: v for k, v in data.items() if k in known}}
    _check_types(kind, values)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
