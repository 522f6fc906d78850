"""Rules made of a preset, of the core or of the integration: asked about on pictures and on text alike."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["by_deviation", "from_outside", "maximum", "untempered"]


def maximum(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset that pools by the maximum over heads and queries."""
    return {**preset, "heads": "max"}


def untempered(preset: Mapping[str, Any]) -> Any:
    """Return a preset's strategy without `temper`."""
    return replace(preset["strategy"], temper=1.0)


def by_deviation(hidden: Tensor) -> Tensor:
    """Divide each dimension of hidden states (N, E) by its standard deviation over the tokens.

    The dimensions with the largest numbers decide a cosine, and a few of a pretrained model's are far larger than the
    others (massive activations, arXiv 2402.17762). A dimension that is the same for all tokens becomes 0.
    """
    return hidden / _deviations(hidden)


def from_outside(hidden: Tensor) -> Tensor:
    """Return standardised hidden states as they are seen from outside of their cloud, shape (N, E + 1).

    Each dimension loses its mean and is divided by its standard deviation. One coordinate is added, the same for all:
    the root mean square of a token's length. Without it, tokens close to the mean, such as the background of a picture,
    would have directions of chance, although they are alike.
    """
    states = (hidden - hidden.mean(dim=0)) / _deviations(hidden)
    length = states.square().sum(dim=1).mean().sqrt()
    return torch.cat((states, length.expand(len(states), 1)), dim=1)


def _deviations(hidden: Tensor) -> Tensor:
    """Return the standard deviation of each dimension, shape (E,); infinite where there is none but rounding."""
    deviations = hidden.std(dim=0, correction=0)
    rounding = 16 * torch.finfo(hidden.dtype).eps * hidden.abs().amax(dim=0)
    return torch.where(deviations > rounding, deviations, math.inf)
