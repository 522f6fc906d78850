"""Digests that tell whether a model or a sample is the one that was measured before."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["digest_of_inputs", "digest_of_model"]

# Entries of each tensor of weights that are looked at: other checkpoints differ in the first.
LOOKED_AT = 8


def digest_of_inputs(inputs: Mapping[str, Any]) -> str:
    """Return a digest of everything that a model is called with."""
    digest = sha256()
    for name in sorted(inputs):
        value = inputs[name]
        digest.update(name.encode())
        digest.update(_bytes_of(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()[:16]


def digest_of_model(model: nn.Module) -> str:
    """Return a digest of a model's weights: names, shapes, and a few entries of each."""
    digest = sha256()
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if isinstance(weight, Tensor) and weight.device.type != "meta":
            digest.update(_bytes_of(weight.detach().reshape(-1)[:LOOKED_AT]))
    return digest.hexdigest()[:16]


def _bytes_of(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{tuple(tensor.shape)} {tensor.dtype}".encode() + flat.view(torch.uint8).numpy().tobytes()
