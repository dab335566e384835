"""A small network in the published layout, as written by `tools/make_checkpoint.py`."""

from __future__ import annotations

from groma_ros.network_config import BackboneConfig, GromaConfig, LanguageConfig, ProposerConfig
from tests.tools.loading import load_tool

_MODULE = load_tool("make_checkpoint")
make_checkpoint = _MODULE.make_checkpoint
published_shapes = _MODULE.published_shapes

# What a published config.json cannot say (the region encoder's sizes, the input size) keeps its published
# value.
SMALL = GromaConfig(
    backbone=BackboneConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=1, image_size=112
    ),
    proposer=ProposerConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=16,
        two_stage_num_proposals=16,
    ),
    language=LanguageConfig(
        vocab_size=400,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
    ),
)
