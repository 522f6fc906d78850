"""Rules made of a preset, of the core or of the integration: asked about on pictures and on text alike."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iwp_core.budget import tokens_to_keep
from iwp_core.comparison import Duplication
from iwp_core.pooling import log_min_max
from iwp_transformers import LayerView
from iwp_transformers.methods.iwp import IWP

__all__ = [
    "AsOutputs",
    "by_deviation",
    "from_outside",
    "log_shares",
    "maximum",
    "pooled_as_outputs",
    "squared_by_output",
    "untempered",
]


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


def log_shares(keys: Tensor, queries: Tensor, context: Tensor) -> Tensor:
    """Return the log of each query's attention to the tokens, among all that it sees, shape (Hq, T, N)."""
    keys = keys.repeat_interleave(len(queries) // len(keys), dim=0)
    logits = queries @ keys.mT / math.sqrt(keys.shape[-1])
    return logits - torch.logaddexp(logits.logsumexp(-1), context)[..., None]


def squared_by_output(keys: Tensor, values: Tensor, queries: Tensor, context: Tensor) -> Tensor:
    """Return the log of the squared length of what each token adds to each query's output, shape (T, N).

    The heads of a query write side by side into one vector, so this is the sum over heads of (share times the norm of
    the value) squared. Shares are of all that a query sees: `keys` (H, N, D), and what `context` (Hq, T) stands for.
    """
    norms = values.norm(dim=-1).log().repeat_interleave(len(queries) // len(keys), dim=0)[:, None]
    return (2 * (log_shares(keys, queries, context) + norms)).logsumexp(dim=0)


def pooled_as_outputs(layers: Sequence[Tensor]) -> Tensor:
    """Pool what `squared_by_output` gives of some layers: their outputs side by side, then the mean over queries."""
    return (torch.stack(list(layers)).logsumexp(dim=0) / 2).logsumexp(dim=0)


@dataclass(frozen=True, kw_only=True)
class AsOutputs(IWP):
    """The library's rule with scores pooled as the outputs of attention are, in a model.

    Attributes
    ----------
    by_deviation : bool
        Whether hidden states are divided by their deviations.
    """

    heads: str | float = 1.0  # each query scores by itself, among all that it sees
    rope_in_magnitude: bool = True
    by_deviation: bool = False

    def scores(self, view: LayerView) -> Tensor:
        """Return what one layer adds, shape (T, N)."""
        tokens = self._tokens(view)
        return squared_by_output(*(tokens[name] for name in ("magnitude_keys", "values", "queries", "context")))

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        tokens, hidden = self._tokens(view), view.visual.hidden
        log_scores = log_min_max(pooled_as_outputs(view.layer_scores or [self.scores(view)]))
        count = tokens_to_keep(view.budget, len(log_scores))
        if count == len(log_scores):
            return torch.arange(count)
        states = by_deviation(hidden) if self.by_deviation else hidden
        pairs = Duplication(tokens["keys"], tokens["values"], states, metric=self.similarity, kernel="exponential")
        return self.strategy.select(log_scores, pairs, count).sort().values
