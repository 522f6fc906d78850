"""Conversations of several turns on one cache, and the full-length model that is blind to what each turn dropped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.integrations.tiny_models import CACHE
from tests.models.factory import attending, decoder_of

Turn = dict[str, Any] | Tensor
"""What a model is called with, or the ids of a turn of text without padding."""


@dataclass
class Heard:
    """What a model answered to one turn: its whole output, where the turn begins, and which of its rows are real."""

    output: Any
    begin: int
    real: Tensor

    @property
    def logits(self) -> Tensor:
        """Shape (B, Q, vocabulary)."""
        logits: Tensor = self.output.logits
        return logits

    def rows(self, records: Sequence[Any]) -> Tensor:
        """Return which rows are compared: all that are neither padding nor dropped, shape (B, Q)."""
        gone = dropped(records, 10**6, self.begin + self.real.shape[1], len(self.real))
        return self.real & ~gone[:, self.begin :]


class Dialogue:
    """A model, a cache, and what a caller has to know to go on: the mask so far, and the next position."""

    def __init__(self, model: nn.Module, cache: Any) -> None:
        self.model, self.cache = model, cache
        self.mask: Tensor | None = None
        self._next: Tensor | int = 0

    def say(self, turn: Turn, **options: Any) -> Heard:
        """Run a turn in one forward."""
        if isinstance(turn, Tensor):
            turn = {"input_ids": turn, "attention_mask": torch.ones_like(turn)}
        own = turn["attention_mask"]
        begin = 0 if self.mask is None else self.mask.shape[1]
        self.mask = own if self.mask is None else torch.cat((self.mask, own), dim=1)
        positions = self._positions(turn)
        self._next = positions.view(-1, *own.shape).amax((0, 2)).unsqueeze(-1) + 1
        given = {**turn, "attention_mask": self.mask, "position_ids": positions, CACHE: self.cache, **options}
        with torch.no_grad():
            return Heard(self.model(**given, use_cache=True), begin, own.bool())

    def crop(self, count: int) -> None:
        """Take the newest tokens, all of them text, back."""
        self.cache.crop(-count)
        assert self.mask is not None
        self.mask = self.mask[:, :-count]
        self._next = self._next - count

    def on(self, cache: Any) -> "Dialogue":
        """Return the same on another cache."""
        other = Dialogue(self.model, cache)
        other.mask, other._next = self.mask, self._next
        return other

    def _positions(self, turn: dict[str, Any]) -> Tensor:
        own = turn["attention_mask"]
        plain = (own.cumsum(1) - 1).clamp(min=0) + self._next
        if not hasattr(self.model.model, "get_rope_index"):
            return plain
        if "image_grid_thw" not in turn:
            return plain.expand(3, -1, -1)
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        rope: Any = self.model.model.get_rope_index
        positions: Tensor = rope(**{name: turn[name] for name in names})[0]
        return positions + self._next


def dropped(records: Sequence[Any], layer: int, length: int, samples: int) -> Tensor:
    """Return which of the first tokens of a conversation a layer does not see, shape (B, length)."""
    gone = torch.zeros(samples, length, dtype=torch.bool)
    for record in records:
        kept = [stage.kept for stage in record.stages if stage.layer <= layer]
        for row, visual in enumerate(record.visual if kept else ()):
            gone[row, visual[visual < length]] = True
            gone[row, kept[-1][row][kept[-1][row] < length]] = False
    return gone


@contextmanager
def blind(model: Any, records: Sequence[Any]) -> Iterator[None]:
    """Let no layer of a full-length model look at what records of its turns say was dropped in front of it.

    Each layer keeps its own mask, as plain attention writes it, less the columns of dropped tokens.
    """

    def less(index: int) -> Any:
        def hide(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            mask, hidden = kwargs["attention_mask"], args[0]
            # The first layer has taken the tokens of this forward in when the others are called.
            seen = kwargs[CACHE].get_seq_length() + (hidden.shape[1] if index == 0 else 0)
            columns = dropped(records, index, seen, len(hidden))[:, -mask.shape[-1] :]
            lowest = torch.finfo(mask.dtype).min
            return args, {**kwargs, "attention_mask": mask.masked_fill(columns[:, None, None], lowest)}

        return hide

    handles = [
        layer.register_forward_pre_hook(less(index), with_kwargs=True)
        for index, layer in enumerate(decoder_of(model).layers)
    ]
    try:
        with attending(model, "eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()
