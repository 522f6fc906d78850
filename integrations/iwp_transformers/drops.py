"""What one forward has dropped so far: the rows that are left for each layer, and the way back to full length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from iwp_transformers.arguments import ShortenedArguments
from iwp_transformers.rows import KeptRows

__all__ = ["Drop", "Drops"]


@dataclass(frozen=True, eq=False)
class Drop:
    """What was dropped at one stage.

    Attributes
    ----------
    layer, removal : int
        Layers from which the dropped tokens are hidden, and removed.
    rows : KeptRows
        The rows that stay.
    visible : torch.Tensor
        Shape (B, T), bool: which tokens are neither padding nor dropped.
    arguments : ShortenedArguments
        Shortens what the layers are called with.
    log_sizes : torch.Tensor or None
        Shape (B, T): logarithm of how many tokens each stands for in attention; None if all stand for themselves.
    """

    layer: int
    removal: int
    rows: KeptRows
    visible: Tensor
    arguments: ShortenedArguments
    log_sizes: Tensor | None

    def told(self, length: int) -> tuple[int, int, KeptRows, Tensor, Tensor | None]:
        """Return what a cache is told of it, for the first `length` tokens."""
        log_sizes = None if self.log_sizes is None else self.log_sizes[:, :length]
        return self.layer, self.removal, self.rows.first(length), self.visible[:, :length], log_sizes


class Drops:
    """What one forward has dropped so far, by ascending layer.

    Attributes
    ----------
    made : list of Drop
        One for each stage that dropped anything.
    """

    def __init__(self) -> None:
        self.made: list[Drop] = []
        self._removed: Drop | None = None

    @property
    def rows(self) -> KeptRows | None:
        """The rows that are there; None as long as all are."""
        return None if self._removed is None else self._removed.rows

    def changed(self, index: int, hidden: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return inputs and arguments of layer `index` without what has been dropped so far."""
        due = [drop for drop in self.made if drop.removal <= index]
        if not due:
            hiding = self.made[-1].arguments.hiding(index, hidden, arguments) if self.made else arguments
            return hidden, dict(hiding)
        if due[-1] is not self._removed:
            rows = due[-1].rows.to(hidden.device)
            place = rows.index if self._removed is None else rows.within(self._removed.rows.to(hidden.device))
            hidden = hidden.gather(1, place.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
            self._removed = due[-1]
        return hidden, due[-1].arguments.shortened(index, hidden, arguments)

    def rows_at(self, index: int) -> KeptRows | None:
        """Return the rows that a layer got, where these are not all."""
        return next((drop.rows for drop in reversed(self.made) if drop.removal <= index), None)

    def restored(self, last: Tensor) -> Tensor:
        """Return what the decoder returns at full length, zero where tokens were dropped."""
        if self._removed is not None:
            return self._removed.rows.scatter(last)
        # A single layer is not shortened, it hides what was dropped.
        return last.where(self.made[-1].visible.to(last.device).unsqueeze(-1), 0)

    def without_hidden_queries(self, index: int, weights: Tensor) -> Tensor:
        """Return attention weights of layer `index` at full length, zero for queries of tokens that it hides."""
        hidden = self._hidden_at(index)
        return weights if hidden is None else weights.where(hidden.visible.to(weights.device)[:, None, :, None], 0)

    def _hidden_at(self, index: int) -> Drop | None:
        """Return what was dropped last in a layer that holds all rows; None where it lacks some, or hides none."""
        made = [drop for drop in self.made if drop.layer <= index]
        return made[-1] if made and self.rows_at(index) is None else None

    def restored_states(self, states: Sequence[Tensor | None], last: Tensor) -> tuple[Tensor | None, ...]:
        """Return the states between the layers at full length; one is None where the caller selected others."""
        restored = list(states)
        for place in range(1, len(states) - 1):
            # What stands at `place` is what the layer before returned.
            rows, state, hidden = self.rows_at(place - 1), states[place], self._hidden_at(place - 1)
            if state is not None and rows is not None:
                restored[place] = rows.scatter(state)
            elif state is not None and hidden is not None:
                restored[place] = state.where(hidden.visible.to(state.device).unsqueeze(-1), 0)
        restored[-1] = None if states[-1] is None else last
        return tuple(restored)
