"""The attention of training against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from groma_ros.training.attention import attend


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_of_grouped_heads_in_the_type_that_it_was_given(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 9, 8, dtype=dtype) for heads in (4, 2, 2))
    out, weights = attend(torch.nn.Identity(), query, key, value, None, 8**-0.5)
    wanted = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), enable_gqa=True)
    assert out.dtype == dtype and out.shape == (2, 9, 4, 8) and weights.shape == (2, 4, 9, 9)
    torch.testing.assert_close(out.transpose(1, 2).float(), wanted, atol=0.03, rtol=0.03)
