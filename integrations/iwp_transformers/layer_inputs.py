"""What a view is computed from: inputs of decoder layers for the whole batch, each part computed when asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from iwp_transformers.attention import AttentionInputs, attention_inputs
from iwp_transformers.masks import allowed_rows
from iwp_transformers.prompt import Prompt
from iwp_transformers.regions import Region
from iwp_transformers.tower_view import TowerReader

__all__ = ["LayerInputs", "Sources"]

# Logits held at a time: 16 MB of float32.
BLOCK = 1 << 22


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

    def log_seen(self, sample: int, positions: Tensor, others: Tensor, *, rotated: bool) -> Tensor:
        """Return the log-sum-exp of the scaled logits of some tokens of a sample over those of others that they see.

        Parameters
        ----------
        sample : int
            Row of the batch.
        positions, others : torch.Tensor
            Shapes (n,) and (m,), int64, ascending: positions in the input sequence.
        rotated : bool
            With rotary embedding, or without.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n), float32, or float64 for queries of float64; -inf where a token sees none of the others.

        Raises
        ------
        NotImplementedError
            If the cache holds tokens of earlier turns, whose keys are not read, or tokens weigh by their size.
        """
        if self.before or self.log_sizes is not None:
            what = "weigh by their size" if self.log_sizes is not None else "come on a cache that holds others"
            msg = (
                f"tokens {what}, so that a query's share of all that it sees, which `heads` 'max' or a number and a"
                " `Tolerance` of outputs count, would be another: use other `heads`; a number, or bound='deletion'"
            )
            raise NotImplementedError(msg)
        own = self.rotated if rotated else self.unrotated
        device, wide = own.queries.device, torch.promote_types(own.queries.dtype, torch.float32)
        rows, seen = (self.rows_of(sample, part).to(device) for part in (positions, others))
        columns, mask = self.columns[sample].to(device), self.arguments.get("attention_mask")
        keys = own.keys[sample][:, seen].to(wide).transpose(1, 2)
        parts = []
        for block in torch.split(rows, max(1, BLOCK // max(own.queries.shape[1] * len(seen), 1))):
            queries = own.queries[sample][:, block].to(wide)
            grouped = queries.reshape(len(keys), -1, *queries.shape[1:])
            logits = (grouped @ keys.unsqueeze(1)).flatten(0, 1) * own.scaling
            allowed = allowed_rows(mask, columns, block, sample, own.window)[0][..., seen]
            parts.append(logits.masked_fill(~allowed, -torch.inf).logsumexp(-1))
        return torch.cat(parts, dim=1)

    def _read(self, *, rotated: bool) -> AttentionInputs:
        own = attention_inputs(self.layer, self.hidden, self.arguments, rotated=rotated)
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
    left : sequence of torch.Tensor
        For each sample, int64 and ascending: rows, in the forward, of the visual tokens that earlier stages left.
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
    scores : callable, optional
        Sample and rows of candidates to one tensor (N,) for each of the layers that score; None where only the one that
        prunes does.
    """

    here: LayerInputs
    before: LayerInputs | None
    first: LayerInputs
    prompt: Prompt
    left: Sequence[Tensor]
    ids: Tensor
    regions: Callable[[int], Sequence[Region]]
    norm: nn.Module | None
    tower: TowerReader | None = None
    log_sizes: Tensor | None = None
    scores: Callable[[int, Tensor], Sequence[Tensor]] | None = None

    def sizes_of(self, sample: int, positions: Tensor) -> Tensor:
        """Return how many tokens those at some positions of a sample stand for, shape (n,), float32."""
        if self.log_sizes is None:
            return torch.ones(len(positions), device=positions.device)
        return self.log_sizes[sample, positions.to(self.log_sizes.device)].exp().to(positions.device)
