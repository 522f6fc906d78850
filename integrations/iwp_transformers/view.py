"""What a selector sees of one sample at the pruning layer. Each part is computed only when it is used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from iwp_core import Tolerance
from iwp_transformers.layer_inputs import LayerInputs, Sources
from iwp_transformers.placement import beside_weights
from iwp_transformers.token_grids import grids_of
from iwp_transformers.token_view import Explained, TokenView
from iwp_transformers.tower_view import TowerView

__all__ = ["LayerView", "view_of"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerView(Explained):
    """What a selector sees: one sample at the entrance of the pruning layer.

    Attributes
    ----------
    visual : TokenView
        The candidates, N tokens. A selector returns indices into them.
    text : TokenView
        All tokens of this forward except candidates, padding and drafts of assisted decoding. Earlier turns that are in
        the cache are not included.
    question : TokenView
        Text after the first visual token. If there is none, all text; if there is no text at all, the candidates.
    budget : int
        Number of candidates to keep, from 1 to N.
    tolerance : Tolerance or None
        The allowed error if the budget is a `Tolerance`. The rule then keeps the fewest candidates that stay within it,
        and `budget` is N, the most that it may keep. Only the method "iwp" is given a tolerance.
    scaling : float
        Factor with which the layer scales the dot products of queries and keys.
    """

    visual_positions: Tensor
    text_positions: Tensor
    budget: int
    _sources: Sources
    _sample: int
    tolerance: Tolerance | None = None

    def __repr__(self) -> str:
        """Return how many tokens there are and how many are to be kept."""
        return f"LayerView({len(self.visual_positions)} candidates, {self.tolerance or self.budget} to keep)"

    @cached_property
    def visual(self) -> TokenView:
        """The candidates."""
        return self.at(self.visual_positions)

    @cached_property
    def text(self) -> TokenView:
        """All tokens except candidates and padding."""
        return self.at(self.text_positions)

    @cached_property
    def question(self) -> TokenView:
        """The text after the first visual token, which the candidates are scored against."""
        if not len(self.text_positions):
            return self.visual
        after = self.text_positions[self.text_positions > self.visual_positions[0]]
        return self.at(after) if len(after) else self.text

    @property
    def scaling(self) -> float:
        """Factor with which the layer scales the dot products of queries and keys."""
        return self._sources.here.rotated.scaling

    @property
    def layer_scores(self) -> Sequence[Tensor]:
        """Log magnitudes of the candidates from each scoring layer, shape (N,); empty if only this layer scores."""
        scores = self._sources.scores
        return () if scores is None else scores(self._sample, self.visual_positions - self._sources.here.before)

    @cached_property
    def outside(self) -> TokenView:
        """All tokens of the prompt that are not candidates: text, and visual tokens that are always kept."""
        left = self._sources.left[self._sample].to(self.visual_positions.device) + self._sources.here.before
        others = left[~torch.isin(left, self.visual_positions)]
        return self.at(torch.cat((self.text_positions, others)).sort().values)

    @property
    def sizes(self) -> Tensor:
        """Number of tokens that each candidate stands for after earlier stages, shape (N,), float32."""
        return self._sources.sizes_of(self._sample, self.visual_positions)

    @cached_property
    def entrance(self) -> "LayerView":
        """The sample as it enters the decoder. All its visual tokens are candidates, also those dropped since."""
        sources = self._sources
        first = replace(
            sources, here=sources.first, before=None, left=sources.prompt.visual, log_sizes=None, scores=None
        )
        visual = sources.prompt.visual[self._sample]
        return view_of(first, self._sample, visual, len(visual))

    @property
    def at_entrance(self) -> bool:
        """Whether the pruning layer is the first of the decoder. Its inputs are the output of the projector."""
        return self._sources.here.layer is self._sources.first.layer

    @cached_property
    def tower(self) -> TowerView:
        """What the vision tower computed for the candidates.

        Raises
        ------
        ValueError
            If the rule has no attribute `reads` that contains "vision tower".
        """
        if self._sources.tower is None:
            msg = "`view.tower` is read by a rule that does not say so by an attribute `reads` with 'vision tower'"
            raise ValueError(msg)
        return TowerView(self._sources.tower, self._sample, self.visual_positions)

    @cached_property
    def last(self) -> TokenView:
        """The last token of the prompt, from whose output the next token is predicted."""
        return self.at(self._real[-1:])

    @cached_property
    def ids(self) -> Tensor:
        """Token ids of the whole prompt without padding, shape (n,), int64."""
        return self._sources.ids[self._sample, self._real - self._sources.here.before]

    @cached_property
    def grids(self) -> tuple[Tensor, ...]:
        """The candidates as grids: tensors of indices, int64, each of shape (h, w). Separators form grids with one row.

        Raises
        ------
        NotImplementedError
            If tokens were dropped before, or the places of the model's visual tokens in the picture are not known.
        """
        regions = self._sources.regions(self._sample)
        if len(regions) != len(self.visual_positions):
            msg = (
                f"the grid of the visual tokens is asked for, but {len(regions) - len(self.visual_positions)} of"
                f" {len(regions)} are gone: it is known before anything is dropped"
            )
            raise NotImplementedError(msg)
        return tuple(grid.to(self.visual_positions.device) for grid in grids_of(regions))

    def at(self, positions: Tensor) -> TokenView:
        """Return the tokens at given positions of the input sequence, shape (n,), int64, ascending."""
        return TokenView(positions, self._sources.here, self._sample)

    def scaled(self, part: Tensor) -> Tensor:
        """Scale queries or keys so that their dot products divided by sqrt(D) are the logits of the layer."""
        # Half of the factor goes to the queries, half to the keys.
        scale = (self.scaling * part.shape[-1] ** 0.5) ** 0.5
        return part if abs(scale - 1) <= torch.finfo(torch.float32).eps else part.float() * scale

    def log_outside(self, queries: TokenView, *, rotated: bool) -> Tensor:
        """Return the log-sum-exp of each query's scaled logits over everything that it sees except the candidates.

        Parameters
        ----------
        queries : TokenView
            The n tokens whose queries are used.
        rotated : bool
            Whether queries and keys have rotary embedding.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n), float32 or float64; -inf for a query that sees nothing else. This is the `context` of
            `iwp_core.select_tokens`.

        Raises
        ------
        NotImplementedError
            If the cache holds tokens of earlier turns, or attention is weighed by the sizes of merged tokens.
        """
        here = self._sources.here
        return here.log_seen(self._sample, queries.positions, self.outside.positions, rotated=rotated)

    def before(self, tokens: TokenView) -> TokenView:
        """Return given tokens as the layer before sees them: its states, queries, keys and values.

        Raises
        ------
        ValueError
            If the pruning layer is layer 0.
        """
        return TokenView(tokens.positions, self._layer_before("before()"), self._sample)

    def embedded(self, tokens: TokenView) -> TokenView:
        """Return given tokens as the first layer of the decoder sees them. Its inputs are their embeddings."""
        return TokenView(tokens.positions, self._sources.first, self._sample)

    def normed(self, tokens: TokenView) -> Tensor:
        """Return the states of given tokens after the decoder's final norm, shape (n, E).

        Raises
        ------
        NotImplementedError
            If the decoder has no such norm.
        """
        norm = self._sources.norm
        if norm is None:
            msg = "the decoder has no `norm` behind its layers to send states through"
            raise NotImplementedError(msg)
        hidden, _ = beside_weights(norm, tokens.hidden, {})
        normed: Tensor = norm(hidden)
        return normed.to(tokens.hidden.device)

    def unpadded_positions(self, tokens: TokenView) -> Tensor:
        """Return the positions of given tokens in the input sequence without its padding, shape (n,), int64."""
        return torch.searchsorted(self._real, tokens.positions)

    def attention_rows(self, queries: TokenView | None = None) -> Tensor:
        """Return the attention of given tokens to the candidates in the layer before. Only these rows are computed.

        Parameters
        ----------
        queries : TokenView, optional
            The n tokens that attend. Default: `last`.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n, N), in the dtype of the model, as its eager attention computes it: softmax weights over
            everything that a token sees, restricted to the candidates.

        Raises
        ------
        ValueError
            If the pruning layer is layer 0.
        """
        before = self._layer_before("attention_rows()")
        weights = before.attention(self._sample, (queries or self.last).positions)
        return weights[..., before.rows_of(self._sample, self.visual_positions).to(weights.device)]

    def last_attention(self) -> Tensor:
        """Return the attention of the last token in the layer before, averaged over heads. Only this row is computed.

        Returns
        -------
        torch.Tensor
            Shape (T,), float32, indexed by position in the input sequence; 0 for padding and for tokens dropped before.

        Raises
        ------
        NotImplementedError
            If the cache holds tokens of earlier turns, whose keys are not read.
        ValueError
            If the pruning layer is layer 0.
        """
        before = self._layer_before("last_attention()")
        weights = before.attention(self._sample, self.last.positions).float().mean(0).squeeze(0)
        row, columns = weights.new_zeros(before.length), before.columns[self._sample].to(weights.device)
        # Neither filling nor drafts behind the prompt are anything that it attends to.
        seen = (columns >= 0) & (columns < before.length)
        row[columns[seen]] = weights[seen]
        return row

    @cached_property
    def _real(self) -> Tensor:
        rows = self._sources.prompt.asked[self._sample].nonzero().squeeze(1)
        return rows.to(self.visual_positions.device) + self._sources.here.before

    def _layer_before(self, asked: str) -> LayerInputs:
        if self._sources.before is None:
            msg = f"`{asked}` reads the layer before the one that prunes, which `layer=0` does not have"
            raise ValueError(msg)
        return self._sources.before


def view_of(
    sources: Sources, sample: int, candidates: Tensor, budget: int, tolerance: Tolerance | None = None
) -> LayerView:
    """Return the view of one sample.

    Parameters
    ----------
    sources : Sources
        What the view is computed from.
    sample : int
        Row of the batch.
    candidates : torch.Tensor
        Shape (N,), int64, ascending: rows of the candidates in the forward.
    budget, tolerance : int, Tolerance or None
        As the attributes of the view.
    """
    device, text = sources.here.hidden.device, sources.prompt.text[sample].nonzero().squeeze(1)
    # A view counts positions from the beginning of the cache.
    visual, text = (rows.to(device) + sources.here.before for rows in (candidates, text))
    return LayerView(visual, text, budget, sources, sample, tolerance)
