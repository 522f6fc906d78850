"""The phase of MustDrop in the vision tower: which visual tokens are merged, and which are key tokens."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from iwp_core.methods import mustdrop_key_tokens, mustdrop_merge
from iwp_transformers.methods._method import Merged
from iwp_transformers.methods._sources import unprojected
from iwp_transformers.view import LayerView

__all__ = ["TowerPhase"]


@dataclass(frozen=True, kw_only=True)
class TowerPhase:
    """Merge similar windows, and find the tokens that the vision tower attends to most.

    Deviations: the tower runs at full length. Windows that are similar behind its first layer are merged before the
    projector, or behind it if it projects several patches as one. Windows are cut out of the grids that the language
    model sees. A merged window stands in the place of its last token.

    Attributes
    ----------
    threshold : float
        Smallest mean cosine, -1 to 1, with which a window is merged. It is computed from the output of the tower's
        first layer.
    window : int
        Side of a square window, at least 2. Rows and columns of a grid that fill no window are not merged.
    share : float
        Share of key tokens among the tokens of each image, tile or frame after merging, 0 to 1, rounded up. 0: none.
    """

    threshold: float
    window: int
    share: float

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TypeError
            If a number has the wrong type.
        ValueError
            If an option is out of range.
        """
        side = self.window if isinstance(self.window, int) and self.window > 1 else 1
        mustdrop_merge(torch.ones(side**2, 1), grid=(side, side), threshold=self.threshold, window=self.window)
        mustdrop_key_tokens(torch.ones(1, 1), share=self.share)

    def merge(self, whole: LayerView) -> Merged:
        """Return the tokens of a sample before the decoder; the last token of a merged window has the window's mean."""
        kept, slots, sizes = self._merged(whole)
        features, project = unprojected(whole)
        states = whole.visual.hidden[kept].clone()
        means = _means(features.float(), slots, sizes).to(features)
        several = sizes > 1
        if several.any():
            states[several] = project(means[several]).to(states)
        return Merged(indices=kept, states=states, assignment=slots)

    def key_tokens(self, view: LayerView) -> Tensor:
        """Return the candidates that are key tokens, shape (R,), int64, ascending.

        Key tokens are found by the attention of the tower's last layer. A merged window gets the mean attention of its
        tokens.
        """
        whole = view.entrance
        kept, slots, sizes = self._merged(whole)
        attention = whole.tower.attention("last")
        attention = _means(attention.T.float(), slots, sizes).T.to(attention)
        source = whole.tower.source[kept]
        groups = [(source == number).nonzero().squeeze(1) for number in source[source >= 0].unique()]  # type: ignore[no-untyped-call]  # untyped in torch
        found = [own[mustdrop_key_tokens(attention[:, own], share=self.share)] for own in groups if self.share]
        positions = whole.visual_positions[kept[torch.cat((*found, slots[:0]))]]
        return torch.isin(view.visual_positions, positions).nonzero().squeeze(1)

    def _merged(self, whole: LayerView) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens that stay, ascending; for each token the one it goes into; and how many go into each."""
        states = whole.tower.first_states
        place = torch.arange(len(states), device=states.device)
        for grid in whole.grids:
            height, width = (side // self.window * self.window for side in grid.shape)
            if height and width:
                own = grid[:height, :width].flatten().to(place.device)
                merged = mustdrop_merge(states[own], grid=(height, width), threshold=self.threshold, window=self.window)
                place[own] = own[merged.kept[merged.assignment]]
        found = place.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]  # untyped in torch
        return cast("tuple[Tensor, Tensor, Tensor]", found)


def _means(rows: Tensor, slots: Tensor, sizes: Tensor) -> Tensor:
    sums = rows.new_zeros(len(sizes), rows.shape[1]).index_add_(0, slots, rows)
    return sums / sizes[:, None]
