"""VisionZip: keep the most attended (dominant) tokens, and merge the others into contextual tokens."""

from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

from torch import Tensor

from iwp_core.methods import visionzip
from iwp_transformers.methods._method import Merged, Paper, Reads
from iwp_transformers.methods._sources import TowerMethod, merged_by_source, unprojected
from iwp_transformers.view import LayerView

__all__ = ["VisionZip"]


@dataclass(frozen=True, kw_only=True)
class VisionZip(TowerMethod):
    """`iwp_core.methods.visionzip` on the tower layer whose output is the features.

    Tokens are merged before the projector. If the model projects several patches as one (Qwen2-VL, Qwen2.5-VL), or at a
    later layer, the states that enter the layer are merged. A contextual token has the position of its target. For a
    tower without class token, the attention is averaged over all patches as queries. Each image, tile or frame keeps
    the same share of its tokens, as the official code does for crops. Deviation: the class token has no place in the
    sequence, so one more dominant token is kept.

    Attributes
    ----------
    contextual : float
        Share of the kept tokens that is contextual, 0 to 1. At least one token is dominant. The paper has 10 of 64.
    """

    name: ClassVar[str] = "visionzip"
    paper: ClassVar[Paper | None] = Paper(title="VisionZip", year=2024, arxiv="2412.04467")
    reads: ClassVar[tuple[Reads, ...]] = ("vision tower", "states")

    contextual: float = 10 / 64

    def __post_init__(self) -> None:
        """Check the options now, and not in the first forward.

        Raises
        ------
        TypeError
            If `contextual` is not a real number.
        ValueError
            If it is not from 0 to 1.
        """
        if isinstance(self.contextual, bool) or not isinstance(self.contextual, Real):
            msg = f"`contextual` is {self.contextual!r}, expected a number from 0 to 1"
            raise TypeError(msg)
        if not 0 <= self.contextual <= 1:
            msg = f"`contextual` is {self.contextual!r}, expected from 0 to 1: the share of the kept tokens"
            raise ValueError(msg)

    def __call__(self, view: LayerView) -> Merged:
        """Return what stays, with the states of contextual tokens."""
        attention, keys = view.tower.attention(), view.tower.keys().mean(0)
        states, project = unprojected(view)

        def merge(tokens: Tensor, count: int) -> Merged:
            contextual = min(int(count * self.contextual + 0.5), count - 1)
            merged = visionzip(
                states[tokens],
                keys[tokens],
                attention[:, tokens],
                dominant=count - contextual,
                contextual=contextual,
                class_token=False,
            )
            rows = view.visual.hidden[tokens[merged.kept]].clone()
            rows[count - contextual :] = project(merged.tokens[count - contextual :])
            return Merged(indices=merged.kept, states=rows, assignment=merged.assignment)

        return merged_by_source(view, merge)
