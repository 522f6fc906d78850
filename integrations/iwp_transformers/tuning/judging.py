"""How far a pruned model is from the unpruned one on an answer of the latter."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Verdict", "verdict_on"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The pruned model beside the unpruned one, at each position of an answer of n tokens.

    Attributes
    ----------
    agreed : tuple of bool
        Whether both find the same token most likely, all earlier ones given.
    divergence : tuple of float
        Kullback-Leibler divergence of the next token, from the unpruned model's distribution to the pruned one's, in
        nats, >= 0.
    """

    agreed: tuple[bool, ...]
    divergence: tuple[float, ...]


def verdict_on(full: Tensor, pruned: Tensor) -> Verdict:
    """Compare two models on one answer.

    Parameters
    ----------
    full, pruned : torch.Tensor
        Shape (n, vocabulary): logarithms of probabilities.

    Examples
    --------
    >>> import torch
    >>> even, odd = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    >>> verdict_on(even, odd).agreed, round(verdict_on(even, odd).divergence[0], 4)
    ((False,), 0.1438)
    """
    full, pruned = full.double(), pruned.double()
    # A token that the unpruned model rules out adds nothing, whatever the pruned model thinks of it.
    divergence = (full.exp() * (full - pruned)).where(full.isfinite(), 0).sum(-1).clamp(min=0)
    agreed = full.argmax(-1) == pruned.argmax(-1)
    return Verdict(agreed=tuple(agreed.tolist()), divergence=tuple(divergence.tolist()))
