"""Samples for the Triton kernels in Triton's interpreter, and what the oracle keeps of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import oracles
from tests.strategies import Tokens

__all__ = ["DTYPES", "WIDE", "chosen_by_oracle", "dtypes", "read", "tensors"]

torch.set_num_threads(1)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16", "float16"])

WIDE = {"heads": 2, "group": 2, "width": 32, "value_width": 16, "clusters": 8}
"""The least widths that are served."""


def tensors(tokens: Tokens, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return keys, values and queries in a dtype."""
    return tuple(torch.asarray(x).to(dtype) for x in (tokens.keys, tokens.values, tokens.queries))


def read(*arrays: Any) -> tuple[Any, ...]:
    """Return float64 copies of what tensors hold."""
    return tuple(x.double().numpy() for x in arrays)


def chosen_by_oracle(arrays: tuple[Any, ...], count: int, **options: Any) -> list[int]:
    """Run the whole of the paper on what the tensors hold."""
    keys, values, queries = read(*arrays)
    return oracles.select_tokens(queries, keys, values, count, **options).tolist()
