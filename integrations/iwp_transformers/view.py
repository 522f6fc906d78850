"""What a selector sees of one sample: the layer that prunes, each part computed only when somebody asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from iwp_core import Tolerance
from iwp_transformers.attention import AttentionInputs, attention_inputs
from iwp_transformers.placement import beside_weights

__all__ = ["LayerInputs", "LayerView", "TokenView"]


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
        Length T of the input sequence, padding counted.
    gather : callable, optional
        Gathers heads from all ranks, where the model is sharded.
    """

    layer: nn.Module
    hidden: Tensor
    arguments: Mapping[str, Any]
    columns: Tensor
    length: int
    gather: Callable[[Tensor], Tensor] | None = None

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

    def _read(self, *, rotated: bool) -> AttentionInputs:
        hidden, arguments = beside_weights(self.layer, self.hidden, self.arguments)
        own = attention_inputs(self.layer, hidden, arguments, rotated=rotated)
        if self.gather is None:
            return own
        queries, keys, values = map(self.gather, (own.queries, own.keys, own.values))
        return AttentionInputs(queries, keys, values, own.scaling)


class _Explained:
    """Says at a wrong attribute which there are."""

    def __getattr__(self, name: str) -> NoReturn:
        """Raise.

        Raises
        ------
        AttributeError
            Always: only what is missing is looked for here.
        """
        known = ", ".join(key for key in dir(type(self)) if not key.startswith("_"))
        fields = ", ".join(key for key in getattr(self, "__dataclass_fields__", ()) if not key.startswith("_"))
        msg = f"{type(self).__name__} has no attribute {name!r}; it has {fields}, {known}"
        raise AttributeError(msg)


@dataclass(frozen=True, eq=False, repr=False)
class TokenView(_Explained):
    """Some tokens of one sample, as one decoder layer is about to see them.

    Attributes
    ----------
    positions : torch.Tensor
        Shape (n,), int64, ascending: their positions in the input sequence, padding counted.
    hidden : torch.Tensor
        Shape (n, E): the layer's inputs.
    queries, rotated_queries : torch.Tensor
        Shape (Hq, n, D), without and with rotary embedding.
    keys, rotated_keys : torch.Tensor
        Shape (H, n, D), without and with rotary embedding.
    values : torch.Tensor
        Shape (H, n, Dv).

    Notes
    -----
    Queries, keys and values are those that the layer's module hands to its attention function, for every model: norms,
    gates and partial rotations included.
    """

    positions: Tensor
    _inputs: LayerInputs
    _sample: int

    def __len__(self) -> int:
        """Return the number of tokens n."""
        return int(self.positions.shape[0])

    def __repr__(self) -> str:
        """Return how many tokens there are."""
        return f"TokenView({len(self)} tokens)"

    @cached_property
    def hidden(self) -> Tensor:
        """The layer's inputs."""
        return self._inputs.hidden[self._sample, self._rows]

    @cached_property
    def queries(self) -> Tensor:
        """Queries without rotary embedding."""
        return self._heads(self._inputs.unrotated.queries)

    @cached_property
    def keys(self) -> Tensor:
        """Keys without rotary embedding."""
        return self._heads(self._inputs.unrotated.keys)

    @cached_property
    def values(self) -> Tensor:
        """Values."""
        return self._heads(self._inputs.rotated.values)

    @cached_property
    def rotated_queries(self) -> Tensor:
        """Queries as the attention compares them."""
        return self._heads(self._inputs.rotated.queries)

    @cached_property
    def rotated_keys(self) -> Tensor:
        """Keys as the attention compares them."""
        return self._heads(self._inputs.rotated.keys)

    @cached_property
    def _rows(self) -> Tensor:
        return self._inputs.rows_of(self._sample, self.positions)

    def _heads(self, part: Tensor) -> Tensor:
        return part[self._sample][:, self._rows.to(part.device)]


@dataclass(frozen=True, eq=False, repr=False)
class LayerView(_Explained):
    """What a selector sees: one sample at the entrance of the layer that prunes.

    Attributes
    ----------
    visual : TokenView
        The candidates, N tokens; a selector returns indices into them.
    text : TokenView
        All other tokens but padding.
    question : TokenView
        Text after the first visual token; all text where none follows; the candidates where there is no text.
    budget : int
        Number of candidates to keep, from 1 to N. (The paper's rule is also told a `Tolerance`.)
    scaling : float
        What the layer multiplies products of queries and keys with.
    """

    visual_positions: Tensor
    text_positions: Tensor
    budget: int | Tolerance
    _inputs: LayerInputs
    _previous: LayerInputs | None
    _sample: int
    # All that is neither a candidate, nor padding, nor dropped; text, where nothing else is said.
    _outside: Tensor | None = None
    # What layers have said of the candidates, where several have a say.
    _said: tuple[Tensor, ...] = ()

    def __repr__(self) -> str:
        """Return how many tokens there are and how many are to be kept."""
        return f"LayerView({len(self.visual_positions)} candidates, {self.budget} to keep)"

    @cached_property
    def visual(self) -> TokenView:
        """The candidates."""
        return self.at(self.visual_positions)

    @cached_property
    def text(self) -> TokenView:
        """All tokens but the candidates and padding."""
        return self.at(self.text_positions)

    @cached_property
    def question(self) -> TokenView:
        """The text that the candidates are weighed against."""
        if not len(self.text_positions):
            return self.visual
        after = self.text_positions[self.text_positions > self.visual_positions[0]]
        return self.at(after) if len(after) else self.text

    @property
    def scaling(self) -> float:
        """What the layer multiplies products of queries and keys with."""
        return self._inputs.rotated.scaling

    @property
    def said(self) -> tuple[Tensor, ...]:
        """What layers have said of the candidates, shape (N,) for each; empty where only this one has a say."""
        return self._said

    @property
    def outside(self) -> Tensor:
        """Positions of all tokens that are seen and no candidates, shape (n,)."""
        return self.text_positions if self._outside is None else self._outside

    def at(self, positions: Tensor) -> TokenView:
        """Return the tokens at some positions of the input sequence, shape (n,), ascending."""
        return TokenView(positions, self._inputs, self._sample)

    def scaled(self, part: Tensor) -> Tensor:
        """Return queries or keys so that products over the root of the width are the layer's own logits."""
        scale = (self.scaling * part.shape[-1] ** 0.5) ** 0.5
        return part if abs(scale - 1) <= torch.finfo(torch.float32).eps else part.float() * scale

    def log_outside(self, positions: Tensor, *, rotated: bool) -> Tensor:
        """Return the log-sum-exp of logits over what queries see outside of the candidates.

        Parameters
        ----------
        positions : torch.Tensor
            Shape (n,), ascending: of the queries.
        rotated : bool
            With rotary embedding, or without.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n); -inf where a query sees nothing else.
        """
        others = self.outside.sort().values
        asked, seen = self.at(positions), self.at(others)
        queries, keys = (asked.rotated_queries, seen.rotated_keys) if rotated else (asked.queries, seen.keys)
        wide = torch.float64 if queries.dtype == torch.float64 else torch.float32
        keys = keys.to(wide).repeat_interleave(queries.shape[0] // keys.shape[0], dim=0)
        logits = queries.to(wide) @ keys.transpose(1, 2) * self.scaling
        allowed = self._allowed(positions, others).to(logits.device)
        return logits.masked_fill(~allowed, -torch.inf).logsumexp(-1)

    def _allowed(self, positions: Tensor, others: Tensor) -> Tensor:
        """Return whether tokens may look at others, by the layer's mask, or by their order where it has none."""
        mask = self._inputs.arguments.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 4:  # noqa: PLR2004 - samples, heads, rows, columns
            return others <= positions[:, None]
        rows, columns = (self._inputs.rows_of(self._sample, part).to(mask.device) for part in (positions, others))
        own = mask[min(self._sample, mask.shape[0] - 1), 0, rows][:, columns]
        return own if own.dtype == torch.bool else own > torch.finfo(own.dtype).min / 2

    def last_attention(self) -> Tensor:
        """Return how the previous layer's last token attends, averaged over heads; only this row is computed.

        Returns
        -------
        torch.Tensor
            Shape (T,), float32, indexed by position in the input sequence; 0 for padding and what was dropped before.

        Raises
        ------
        ValueError
            If pruning starts at layer 0, which no layer precedes.
        """
        if self._previous is None:
            msg = "`last_attention()` reads the layer before the one that prunes, which `layer=0` does not have"
            raise ValueError(msg)
        positions = torch.cat((self.visual_positions, self.text_positions)).sort().values
        tokens = TokenView(positions, self._previous, self._sample)
        query = tokens.rotated_queries[:, -1:].float()
        keys = tokens.rotated_keys.float().repeat_interleave(query.shape[0] // tokens.rotated_keys.shape[0], dim=0)
        scores: Tensor = query @ keys.transpose(1, 2) * self._previous.rotated.scaling
        weights = scores.softmax(-1).mean(0).squeeze(0)
        row = weights.new_zeros(self._previous.length)
        row[positions.to(row.device)] = weights
        return row
