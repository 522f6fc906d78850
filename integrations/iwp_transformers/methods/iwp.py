"""IWP: information magnitude and duplication in the implicit weight of attention."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from iwp_core import PCMMR, Strategy, select_tokens
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.token_view import TokenView
from iwp_transformers.view import LayerView

__all__ = ["IWP", "Query"]

Query = Literal["text", "image", "last_text"]
QUERIES = get_args(Query)


@dataclass(frozen=True, kw_only=True)
class IWP(Method):
    """Choose by information magnitude and duplication; the parameters are those of `prune_visual_tokens`."""

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
        """Check all names now, and not in the first forward.

        Raises
        ------
        TypeError
            If `strategy` is none.
        ValueError
            If a name is unknown.
        """
        if self.query not in QUERIES:
            msg = f"`query` is {self.query!r}, expected one of {', '.join(map(repr, QUERIES))}"
            raise ValueError(msg)
        # A budget that keeps both of two tokens is answered after the checks, without asking the strategy.
        token = torch.ones(1, 2, 1)
        select_tokens(token, token, token[:, :1], 2, hidden=token[0], **self._metrics())

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual = view.visual
        asked = self._asked(view)
        keys = visual.rotated_keys if self.rope_in_duplication else visual.keys
        own_keys = visual.rotated_keys if self.rope_in_magnitude else visual.keys
        queries = asked.rotated_queries if self.rope_in_magnitude else asked.queries
        # The kernel of the paper divides by the root of the width; a layer that scales otherwise is met half-way.
        scale = (view.scaling * keys.shape[-1] ** 0.5) ** 0.5
        if abs(scale - 1) > torch.finfo(torch.float32).eps:
            keys, own_keys, queries = (part.float() * scale for part in (keys, own_keys, queries))
        kept: Tensor = select_tokens(
            keys,
            visual.values.to(keys.dtype),
            queries,
            view.budget,
            magnitude_keys=own_keys,
            hidden=visual.hidden if self.similarity == "hidden" else None,
            # The shapes are the model's own; a look at the numbers would wait for the device.
            validate=False,
            **self._metrics(),
        )
        return kept

    def _metrics(self) -> dict[str, Any]:
        names = ("strategy", "magnitude", "similarity", "heads")
        return {name: getattr(self, name) for name in names}

    def _asked(self, view: LayerView) -> TokenView:
        if self.query == "image":
            return view.visual
        if self.query == "last_text":
            return view.at(view.question.positions[-1:])
        return view.question
