"""IWP: choose by information magnitude and duplication, from the implicit weight of attention."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from iwp_core import PCMMR, Strategy, select_tokens
from iwp_core._plugins import backend_context
from iwp_core.choice import Rule, chosen_tokens
from iwp_core.pooling import QUERY_MAGNITUDES
from iwp_core.samples import check_tokens
from iwp_transformers.bounds import bounded_sample
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.token_view import TokenView
from iwp_transformers.view import LayerView

__all__ = ["IWP", "Query"]

Query = Literal["text", "image", "last_text"]
QUERIES = get_args(Query)


@dataclass(frozen=True, kw_only=True)
class IWP(Method):
    """The method of this library: `iwp_core.select_tokens` on queries, keys and values of the pruning layer.

    Attributes
    ----------
    strategy, magnitude, similarity, heads : Strategy, str, str, str or float
        As in `iwp_core.select_tokens`.
    query : {"text", "image", "last_text"}
        Whose queries are used: the text after the first visual token, the visual tokens, or the last text token.
    rope_in_magnitude, rope_in_duplication : bool
        Whether magnitude and duplication are computed with rotary embedding.
    """

    name: ClassVar[str] = "iwp"
    paper: ClassVar[Paper | None] = Paper(title="IWP", year=2026, arxiv="2604.00757")
    reads: ClassVar[tuple[Reads, ...]] = ("queries and keys",)
    layer: ClassVar[int] = 4

    strategy: Strategy = field(default_factory=PCMMR)
    magnitude: str = "dual"
    similarity: str = "dual"
    heads: str | float = "mean"
    query: Query = "text"
    rope_in_magnitude: bool = False
    rope_in_duplication: bool = True

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        TypeError
            If `strategy` is not a strategy, or `heads` neither a name nor a number.
        ValueError
            If a name is unknown, or `heads` is out of range.
        """
        if self.query not in QUERIES:
            msg = f"`query` is {self.query!r}, expected one of {', '.join(map(repr, QUERIES))}"
            raise ValueError(msg)
        # A budget that keeps both of two tokens is answered after the checks, without asking the strategy.
        token = torch.ones(1, 2, 1)
        select_tokens(token, token, token[:, :1], 2, hidden=token[0], **self._metrics())

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        tokens, tolerance = self._tokens(view), view.tolerance
        by_outputs = tolerance is not None and tolerance.bound == "output"
        if not view.layer_scores and not by_outputs:
            # The shapes are the model's own; a look at the numbers would wait for the device.
            kept: Tensor = select_tokens(**tokens, budget=tolerance or view.budget, validate=False, **self._metrics())
            return kept
        (sample,) = check_tokens(**tokens, finite=False)
        bounded = bounded_sample(view) if by_outputs else None
        budget, scores = tolerance or view.budget, view.layer_scores
        with backend_context(sample.keys):
            kept = chosen_tokens(sample, budget, self._rule, check=False, scores=scores, bounded=bounded)
        return kept  # noqa: RET504 - typed above

    def scores(self, view: LayerView) -> Tensor:
        """Return the logarithm of each candidate's magnitude, shape (N,). So several layers can be pooled."""
        (sample,) = check_tokens(**self._tokens(view), finite=False)
        with backend_context(sample.keys):
            scores: Tensor = self._rule.log_scores(sample)
        return scores

    def _tokens(self, view: LayerView) -> dict[str, Any]:
        """Return the arrays of `select_tokens`."""
        visual, asked, rotated = view.visual, self._asked(view), self.rope_in_magnitude
        keys = view.scaled(visual.rotated_keys if self.rope_in_duplication else visual.keys)
        shares = self.magnitude in QUERY_MAGNITUDES and (self.heads == "max" or not isinstance(self.heads, str))
        return {
            "keys": keys,
            "values": visual.values.to(keys.dtype),
            "queries": view.scaled(asked.rotated_queries if rotated else asked.queries),
            "magnitude_keys": view.scaled(visual.rotated_keys if rotated else visual.keys),
            "hidden": visual.hidden if self.similarity == "hidden" else None,
            # A query's share is of all that it sees, text and attention sinks included.
            "context": view.log_outside(asked, rotated=rotated) if shares else None,
        }

    @property
    def _rule(self) -> Rule:
        return Rule(kernel="exponential", **self._metrics())

    def _metrics(self) -> dict[str, Any]:
        names = ("strategy", "magnitude", "similarity", "heads")
        return {name: getattr(self, name) for name in names}

    def _asked(self, view: LayerView) -> TokenView:
        if self.query == "image":
            return view.visual
        if self.query == "last_text":
            return view.at(view.question.positions[-1:])
        return view.question
