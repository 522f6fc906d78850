"""Read queries, keys and values of one decoder layer, each computed only when somebody asks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from iwp_transformers.families import Family

__all__ = ["LayerRows", "LayerView", "TokenView"]


@dataclass(frozen=True, eq=False)
class TokenView:
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
    """

    positions: Tensor
    hidden: Tensor
    _rows: "LayerRows"

    def __len__(self) -> int:
        """Return the number of tokens n."""
        return int(self.positions.shape[0])

    @cached_property
    def queries(self) -> Tensor:
        """Queries without rotary embedding."""
        return self._project("q")

    @cached_property
    def keys(self) -> Tensor:
        """Keys without rotary embedding."""
        return self._project("k")

    @cached_property
    def values(self) -> Tensor:
        """Values."""
        return self._project("v")

    @cached_property
    def rotated_queries(self) -> Tensor:
        """Queries as the attention compares them."""
        return self._rotate(self.queries)

    @cached_property
    def rotated_keys(self) -> Tensor:
        """Keys as the attention compares them."""
        return self._rotate(self.keys)

    def _project(self, name: str) -> Tensor:
        return self._rows.family.project(self._rows.layer, self.hidden, name)

    def _rotate(self, heads: Tensor) -> Tensor:
        cos, sin = (part[self.positions.to(part.device)].to(heads.device) for part in (self._rows.cos, self._rows.sin))
        return self._rows.family.rotate(self._rows.layer, heads, cos, sin)


@dataclass(frozen=True, eq=False)
class LayerRows:
    """One sample's rows at the entrance of one decoder layer.

    Attributes
    ----------
    family : Family
        How the layer projects and rotates.
    layer : torch.nn.Module
        The decoder layer.
    hidden : torch.Tensor
        Shape (T, E), padding included.
    cos, sin : torch.Tensor
        Shape (T, D): the rotary embedding of the rows.
    """

    family: Family
    layer: nn.Module
    hidden: Tensor
    cos: Tensor
    sin: Tensor

    def at(self, positions: Tensor) -> TokenView:
        """Return the tokens at some positions, shape (n,), on the layer's device."""
        rows = self.hidden[positions]
        weights = next(self.layer.parameters()).device
        # The first layer of another device sees its inputs before they are moved; offloaded weights have no device yet.
        return TokenView(positions, rows if weights.type == "meta" else rows.to(weights), self)


@dataclass(frozen=True, eq=False)
class LayerView:
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
        Number of candidates to keep, from 1 to N.
    """

    rows: LayerRows
    visual_positions: Tensor
    text_positions: Tensor
    budget: int
    previous: LayerRows | None

    @cached_property
    def visual(self) -> TokenView:
        """The candidates."""
        return self.rows.at(self.visual_positions)

    @cached_property
    def text(self) -> TokenView:
        """All tokens but the candidates and padding."""
        return self.rows.at(self.text_positions)

    @cached_property
    def question(self) -> TokenView:
        """The text that the candidates are weighed against."""
        if not len(self.text_positions):
            return self.visual
        after = self.text_positions[self.text_positions > self.visual_positions[0]]
        return self.rows.at(after) if len(after) else self.text

    def last_attention(self) -> Tensor:
        """Return how the previous layer's last token attends, averaged over heads; only this row is computed.

        Returns
        -------
        torch.Tensor
            Shape (T,), float32, indexed by position in the input sequence; 0 for padding.

        Raises
        ------
        ValueError
            If pruning starts at layer 0, which no layer precedes.
        """
        if self.previous is None:
            msg = "`last_attention()` reads the layer before the one that prunes, which `layer=0` does not have"
            raise ValueError(msg)
        positions = torch.cat((self.visual_positions, self.text_positions)).sort().values
        tokens = self.previous.at(positions)
        query = self.previous.at(positions[-1:]).rotated_queries.float()
        attention: Any = self.previous.layer.self_attn
        keys = tokens.rotated_keys.float().repeat_interleave(query.shape[0] // tokens.rotated_keys.shape[0], dim=0)
        scores: Tensor = query @ keys.transpose(1, 2) * attention.scaling
        weights = scores.softmax(-1).mean(0).squeeze(0)
        row = weights.new_zeros(self.previous.hidden.shape[0])
        row[positions.to(row.device)] = weights
        return row
