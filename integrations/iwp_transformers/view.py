"""What a selector sees of one sample: the layer that prunes, each part computed only when somebody asks."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """What a selector sees: one sample at the entrance of the layer that prunes.

    Attributes
    ----------
    visual : TokenView
        The candidates, N tokens; a selector returns indices into them.
    text : TokenView
        All other tokens of the forward but padding and drafts; earlier turns on the cache are not among them.
    question : TokenView
        Text after the first visual token; all text where none follows; the candidates where there is no text.
    budget : int
        Number of candidates to keep, from 1 to N.
    tolerance : Tolerance or None
        The error that is allowed, where the budget is a `Tolerance`: the rule keeps the fewest candidates that stay
        within it, and `budget` is N, the most that it may keep. Only the paper's rule is given one.
    scaling : float
        What the layer multiplies products of queries and keys with.
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
        return self._sources.here.rotated.scaling

    @property
    def layer_scores(self) -> Sequence[Tensor]:
        """Log magnitudes of the candidates, shape (N,), by each scoring layer; empty where this layer alone scores."""
        scores = self._sources.scores
        return () if scores is None else scores(self._sample, self.visual_positions - self._sources.here.before)

    @cached_property
    def outside(self) -> TokenView:
        """All tokens of the prompt that are no candidates: text, and visual tokens that stay whatever is chosen."""
        left = self._sources.left[self._sample].to(self.visual_positions.device) + self._sources.here.before
        others = left[~torch.isin(left, self.visual_positions)]
        return self.at(torch.cat((self.text_positions, others)).sort().values)

    @property
    def sizes(self) -> Tensor:
        """How many tokens each candidate stands for since earlier stages, shape (N,), float32."""
        return self._sources.sizes_of(self._sample, self.visual_positions)

    @property
    def at_entrance(self) -> bool:
        """Whether the layer is the decoder's first, whose inputs are what the projector returned."""
        return self._sources.here.layer is self._sources.first.layer

    @cached_property
    def tower(self) -> TowerView:
        """What the vision tower computed for the candidates.

        Raises
        ------
        ValueError
            If the rule has not said by an attribute ``reads = ("vision tower",)`` that it reads the tower.
        """
        if self._sources.tower is None:
            msg = "`view.tower` is read by a rule that does not say so by an attribute `reads` with 'vision tower'"
            raise ValueError(msg)
        return TowerView(self._sources.tower, self._sample, self.visual_positions)

    @cached_property
    def last(self) -> TokenView:
        """The last token of the prompt, whose row the next token is read from."""
        return self.at(self._real[-1:])

    @cached_property
    def ids(self) -> Tensor:
        """Token ids of the whole prompt without padding, shape (n,)."""
        return self._sources.ids[self._sample, self._real - self._sources.here.before]

    @cached_property
    def grids(self) -> tuple[Tensor, ...]:
        """Where the candidates stand in pictures: indices of shape (h, w), each in one grid; newlines in one of a row.

        Raises
        ------
        NotImplementedError
            If tokens were dropped before, or it is not known where the model's tokens look.
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
        """Return the tokens at some positions of the input sequence, shape (n,), ascending."""
        return TokenView(positions, self._sources.here, self._sample)

    def scaled(self, part: Tensor) -> Tensor:
        """Return queries or keys so that their products over the root of the width are the layer's own logits."""
        # Half of the factor goes to the queries, half to the keys.
        scale = (self.scaling * part.shape[-1] ** 0.5) ** 0.5
        return part if abs(scale - 1) <= torch.finfo(torch.float32).eps else part.float() * scale

    def log_outside(self, queries: TokenView, *, rotated: bool) -> Tensor:
        """Return the log-sum-exp of the scaled logits of queries over what they see outside of the candidates.

        Parameters
        ----------
        queries : TokenView
            Whose, n tokens.
        rotated : bool
            With rotary embedding, or without.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n); -inf where a query sees nothing else. The `context` of `iwp_core.select_tokens`.

        Raises
        ------
        NotImplementedError
            If the cache holds tokens of earlier turns, or tokens weigh by their size.
        """
        here = self._sources.here
        return here.log_seen(self._sample, queries.positions, self.outside.positions, rotated=rotated)

    def before(self, tokens: TokenView) -> TokenView:
        """Return some tokens as the layer before sees them: states that enter it, its keys.

        Raises
        ------
        ValueError
            If pruning starts at layer 0, which no layer precedes.
        """
        return TokenView(tokens.positions, self._layer_before("before()"), self._sample)

    def embedded(self, tokens: TokenView) -> TokenView:
        """Return some tokens as the decoder's first layer sees them: its inputs are their embeddings."""
        return TokenView(tokens.positions, self._sources.first, self._sample)

    def normed(self, tokens: TokenView) -> Tensor:
        """Return the states of some tokens through the decoder's last norm, shape (n, E).

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
        """Return the positions of some tokens in the input sequence with padding not counted, shape (n,), int64."""
        return torch.searchsorted(self._real, tokens.positions)

    def attention_rows(self, queries: TokenView | None = None) -> Tensor:
        """Return how some tokens attend to the candidates in the layer before; only these rows are computed.

        Parameters
        ----------
        queries : TokenView, optional
            Whose attention, n tokens; by default `last`.

        Returns
        -------
        torch.Tensor
            Shape (Hq, n, N): soft-max weights over all that a token may see, of which the candidates' are returned; in
            the dtype of the model, as its eager attention returns them.

        Raises
        ------
        ValueError
            If pruning starts at layer 0, which no layer precedes.
        """
        before = self._layer_before("attention_rows()")
        weights = before.attention(self._sample, (queries or self.last).positions)
        return weights[..., before.rows_of(self._sample, self.visual_positions).to(weights.device)]

    def last_attention(self) -> Tensor:
        """Return how the previous layer's last token attends, averaged over heads; only this row is computed.

        Returns
        -------
        torch.Tensor
            Shape (T,), float32, indexed by position in the input sequence; 0 for padding and what was dropped before.

        Raises
        ------
        NotImplementedError
            If the cache holds tokens of earlier turns, whose keys are not read.
        ValueError
            If pruning starts at layer 0, which no layer precedes.
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
    """Return what a rule is shown of one sample.

    Parameters
    ----------
    sources : Sources
        What the view is computed from.
    sample : int
        Row of the batch.
    candidates : torch.Tensor
        Shape (N,), int64, ascending: their rows in the forward.
    budget, tolerance
        As the attributes of the view.
    """
    device, text = sources.here.hidden.device, sources.prompt.text[sample].nonzero().squeeze(1)
    # A view counts positions from the beginning of the cache.
    visual, text = (rows.to(device) + sources.here.before for rows in (candidates, text))
    return LayerView(visual, text, budget, sources, sample, tolerance)
