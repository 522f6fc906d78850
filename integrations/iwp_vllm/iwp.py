"""The library's own rule, which chooses by magnitude and duplication."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from iwp_core import select_tokens
from iwp_core.presets import preset_named
from iwp_vllm.rule import Rule
from iwp_vllm.seen import Seen

__all__ = ["IWP"]

Query = Literal["text", "image", "last_text"]


@dataclass(frozen=True, kw_only=True)
class IWP(Rule):
    """`iwp_core.select_tokens`: the options are those of `prune_visual_tokens` in Transformers, with its defaults.

    Attributes
    ----------
    query : {"text", "image", "last_text"}
        Whose queries the magnitude is computed with: those of the text after the image, of the image's own tokens, or
        of the last token. "image" reads no text: the layers before `layer` run over the image alone.
    magnitude, similarity, heads : str, str, str or float
        As in `select_tokens`.
    preset : str or None
        A name in `iwp_core.presets.PRESETS`, which then sets `heads`, the strategy, `rope_in_magnitude` and, in some
        presets, `similarity`.
    rope_in_magnitude, rope_in_duplication : bool
        Whether queries and keys have their rotary embedding in the magnitude, and keys in the duplication.
    """

    name: ClassVar[str] = "iwp"
    layer: int = 4
    query: Query = "text"
    magnitude: str = "dual"
    similarity: str = "dual"
    heads: str | float = "mean"
    preset: str | None = None
    rope_in_magnitude: bool = False
    rope_in_duplication: bool = True

    def __post_init__(self) -> None:
        """Check all options now, and not in the first request.

        Raises
        ------
        TypeError
            If `layer` is no int.
        ValueError
            If a name is unknown, or `heads` needs what text and image together are not asked for.
        """
        super().__post_init__()
        if self.query not in get_args(Query):
            msg = f"`query` is {self.query!r}, expected one of {', '.join(map(repr, get_args(Query)))}"
            raise ValueError(msg)
        if self.heads == "max" or not isinstance(self.heads, str):
            msg = f"`heads` is {self.heads!r}, which needs a query's share of all that it sees; expected a mean"
            raise ValueError(msg)
        preset = {} if self.preset is None else preset_named(self.preset)
        for name in ("heads", "similarity"):
            if name in preset and getattr(self, name) != getattr(type(self), name):
                msg = f"`{name}` is {getattr(self, name)!r} beside `preset`, which sets it: expected one of the two"
                raise ValueError(msg)
        # A budget that keeps both of two tokens is answered after the checks of all names.
        token = torch.ones(1, 2, 1)
        select_tokens(token, token, token[:, :1], 2, hidden=token[0], **self._metrics()[0])

    @property
    def reads_text(self) -> bool:
        """Whether text asks."""
        return self.query != "image"

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual, asked = seen.visual, self._asked(seen)
        metrics, rotated = self._metrics()
        kept: Tensor = select_tokens(
            (seen.rotated_keys if self.rope_in_duplication else seen.keys)[:, visual],
            seen.values[:, visual],
            (seen.rotated_queries if rotated else seen.queries)[:, asked],
            count,
            magnitude_keys=(seen.rotated_keys if rotated else seen.keys)[:, visual],
            hidden=seen.hidden[visual] if metrics["similarity"] == "hidden" else None,
            validate=False,
            **metrics,
        )
        return kept

    def _asked(self, seen: Seen) -> slice:
        if self.query == "image":
            return seen.visual
        return seen.question if self.query == "text" else slice(seen.question.stop - 1, seen.question.stop)

    def _metrics(self) -> tuple[dict[str, Any], bool]:
        """Return options of `select_tokens`, and whether the magnitude reads rotary embeddings."""
        options: dict[str, Any] = {"heads": self.heads, "rope_in_magnitude": self.rope_in_magnitude}
        if self.preset is not None:
            options = dict(preset_named(self.preset))
        rotated = bool(options.pop("rope_in_magnitude"))
        return {"magnitude": self.magnitude, "similarity": self.similarity, **options}, rotated
