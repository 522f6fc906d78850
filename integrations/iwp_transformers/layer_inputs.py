"""What a view is computed from: inputs of decoder layers for the whole batch, each part computed when asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from iwp_transformers.attention import AttentionInputs, attention_inputs
from iwp_transformers.masks import allowed_rows
from iwp_transformers.placement import beside_weights
from iwp_transformers.prompt import Prompt
from iwp_transformers.regions import Region
from iwp_transformers.tower_view import TowerReader

__all__ = ["LayerInputs", "Sources"]


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """What one decoder layer is called with, for the whole batch.

    Attributes
    ----------
    layer : torch.nn.Module
        The decoder layer.
    hidden : torch.Tensor
        Shape (B, R, E): its inputs, R rows a sample.
    arguments : mapping
        Its other arguments, by name.
    columns : torch.Tensor
        Shape (B, R), int64: position in the input sequence of each row, -1 for filling.
    length : int
        Length T of the input sequence, padding counted, and what the cache held before it.
    before : int
        Tokens that the cache held before; positions count them.
    gather : callable, optional
        Gathers heads from all ranks, where the model is sharded.
    log_sizes : torch.Tensor, optional
        Shape (B, R): logarithm of how many tokens each row stands for, added to the logits of attention.
    """

    layer: nn.Module
    hidden: Tensor
    arguments: Mapping[str, Any]
    columns: Tensor
    length: int
    before: int
    gather: Callable[[Tensor], Tensor] | None = None
    log_sizes: Tensor | None = None

    @cached_property
    def rotated(self) -> AttentionInputs:
        """What the attention function receives."""
        return self._read(rotated=True)

    @cached_property
    def unrotated(self) -> AttentionInputs:
        """What it would receive without rotary embedding."""
        return self._read(rotated=False)

    def rows_of(self, sample: int, positions: Tensor) -> Tensor:
        """Return the rows of some positions of a sample, shape (n,), ascending as they are."""
        # Filling stands in front of all else, so that positions ascend.
        return torch.searchsorted(self.columns[sample].contiguous(), positions.to(self.columns.device))

    def attention(self, sample: int, positions: Tensor) -> Tensor:
        """Return how the tokens at some positions of a sample attend, by the family's own eager function.

        Parameters
        ----------
        sample : int
            Row of the batch.
        positions : torch.Tensor
            Shape (n,), int64, ascending: positions in the input sequence.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n, R): soft-max weights on all R rows of the layer.

        Raises
        ------
        NotImplementedError
            If the cache holds tokens of earlier turns, whose keys are not read.
        """
        if self.before:
            msg = (
                "attention rows of a forward on a cache that holds tokens would lack what these are attended to: use a"
                " method that reads no attention for images in later turns"
            )
            raise NotImplementedError(msg)
        own = self.rotated
        rows = self.rows_of(sample, positions).to(own.queries.device)
        allowed = allowed_rows(
            self.arguments.get("attention_mask"), self.columns[sample].to(rows.device), rows, sample, own.window
        )
        one = slice(sample, sample + 1)
        added = None if self.log_sizes is None else self.log_sizes[sample]
        return own.weigh(own.queries[one, :, rows], own.keys[one], own.values[one], allowed, added)

    def _read(self, *, rotated: bool) -> AttentionInputs:
        hidden, arguments = beside_weights(self.layer, self.hidden, self.arguments)
        own = attention_inputs(self.layer, hidden, arguments, rotated=rotated)
        if self.gather is None:
            return own
        queries, keys, values = map(self.gather, (own.queries, own.keys, own.values))
        return replace(own, queries=queries, keys=keys, values=values)


@dataclass(frozen=True, eq=False)
class Sources:
    """What a view is computed from, for the whole batch.

    Attributes
    ----------
    here : LayerInputs
        The layer that prunes.
    before : LayerInputs or None
        The layer before it; None at layer 0.
    first : LayerInputs
        The decoder's first layer, whose inputs are the embeddings.
    prompt : Prompt
        What stands where.
    ids : torch.Tensor
        Shape (B, T): the token ids.
    regions : callable
        Sample to one `Region` for each of its visual tokens, in sequence order.
    norm : torch.nn.Module, optional
        The decoder's last norm.
    tower : TowerReader, optional
        What reads the vision tower; None where the rule does not.
    log_sizes : torch.Tensor, optional
        Shape (B, T): logarithm of how many tokens each stands for; None as long as all stand for themselves.
    """

    here: LayerInputs
    before: LayerInputs | None
    first: LayerInputs
    prompt: Prompt
    ids: Tensor
    regions: Callable[[int], Sequence[Region]]
    norm: nn.Module | None
    tower: TowerReader | None = None
    log_sizes: Tensor | None = None

    def sizes_of(self, sample: int, positions: Tensor) -> Tensor:
        """Return how many tokens those at some positions of a sample stand for, shape (n,), float32."""
        if self.log_sizes is None:
            return torch.ones(len(positions), device=positions.device)
        return self.log_sizes[sample, positions.to(self.log_sizes.device)].exp().to(positions.device)
