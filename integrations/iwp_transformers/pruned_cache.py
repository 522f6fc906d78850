"""What later steps have to know of a pruned cache, kept on the cache's own layers, so that it travels with them."""

from collections.abc import Callable, Sequence
from functools import cache as remembered
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, cache_utils
from transformers.cache_utils import CacheLayerMixin, StaticLayer

from iwp_transformers.layer_kinds import ATTENDING
from iwp_transformers.pruned_rows import PrunedRows
from iwp_transformers.rows import KeptRows

__all__ = ["Lease", "PrunedLayer", "mark", "pruned_layer", "shorten_static", "waiting_layer"]

# Static layers are shortened by a multiple of this many tokens, so that prompts of similar length share their shapes.
STEP = 64


class Lease:
    """Whether the session that pruned a cache is open; one object for the cache and all its copies.

    Attributes
    ----------
    open : bool
        False once the session was closed, and in a cache that was pickled.
    """

    def __init__(self, *, open_: bool = True) -> None:
        self.open = open_

    def __deepcopy__(self, memo: object) -> "Lease":
        """Return the lease itself: a copy of a cache lives as long as the cache."""
        return self

    def __reduce__(self) -> tuple[Callable[..., "Lease"], tuple[()]]:
        """Pickle as a lease that has ended: hooks do not travel with a file."""
        return _ended, ()


def _ended() -> Lease:
    return Lease(open_=False)


class PrunedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # in Transformers
    """Mixin of every layer of a pruned cache; its type is also what compiled steps are told apart by.

    Attributes
    ----------
    lease : Lease or None
        Whether the session is open; None once the layer was reset, and is like any other again.
    rows : PrunedRows or None
        The map of a layer that was shortened or hides tokens; None for those before.
    shortened : bool
        Whether the layer lacks the dropped tokens.
    base : int
        Rows that the layer held after the prompt, which cannot be cropped.
    fresh : bool
        Whether the mask of a step is made anew at this layer, and not shared with the layer before.
    closing : bool
        Whether no later layer shares the masks of a step.
    owner : bool
        Whether the layer takes `rows` along when samples are reordered: one map serves many layers.
    waiting : bool
        Whether the layer holds nothing until the last chunk of a prompt has come.
    """

    _layer_type = None
    lease: Lease | None
    rows: PrunedRows | None
    shortened: bool
    base: int
    fresh: bool
    closing: bool
    owner: bool
    waiting: bool = False

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values, unless nobody would shorten the mask that goes with them.

        Raises
        ------
        NotImplementedError
            If the session that pruned the cache is closed, or the layer waits for the end of a prompt.
        """
        if self.waiting:
            msg = (
                "this cache holds the beginning of a prompt in chunks, whose end no open session has seen: its later"
                " layers hold nothing yet; keep the session open, or start again from the prompt"
            )
            raise NotImplementedError(msg)
        if self.lease is not None and not self.lease.open:
            msg = (
                "this cache was pruned by a session that is closed (or is a pickled copy): only its hooks know which"
                " tokens it lacks; keep the session open, or start again from the prompt"
            )
            raise NotImplementedError(msg)
        return super().update(key_states, value_states, *args, **kwargs)  # type: ignore[safe-super]  # a mixin

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens, as long as they were decoded after the prompt.

        Raises
        ------
        NotImplementedError
            If the crop reaches into the prompt, or is given as a length to keep.
        """
        if self.lease is not None:
            added = int(self.get_seq_length()) - self.base
            if tokens_to_remove > 0 or added + tokens_to_remove < 0:
                msg = (
                    f"`crop({tokens_to_remove})` on a pruned cache, to which {added} tokens were added behind its"
                    " prompt: it can lose those, given as a negative number, but none of the prompt, whose tokens are"
                    " not the same in all layers"
                )
                raise NotImplementedError(msg)
        super().crop(tokens_to_remove)  # type: ignore[misc]  # the class that it is mixed into has it

    def reset(self) -> None:
        """Empty the layer, which is like any other from then on."""
        super().reset()
        self.lease, self.rows, self.waiting = None, None, False
        wide = self.__dict__.pop("full_capacity", None)
        if wide is not None:
            self.max_cache_len, self.is_initialized = wide, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the samples in another order."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]  # any integers will do
        self._select(lambda part: part.index_select(0, beam_idx.to(part.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some samples."""
        super().batch_select_indices(indices)  # type: ignore[misc]  # the class that it is mixed into has it
        self._select(lambda part: part[indices.to(part.device) if isinstance(indices, Tensor) else indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sample."""
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]  # the class that it is mixed into has it
        self._select(lambda part: part.repeat_interleave(repeats, dim=0))

    def _select(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.rows is not None and self.owner:
            self.rows.select(change)


@remembered
def _pruned_class(base: Any) -> type:
    return type(
        f"Pruned{base.__name__}",
        (PrunedLayer, base),
        {"__module__": __name__, "__qualname__": f"Pruned{base.__name__}"},
    )


def __getattr__(name: str) -> type:
    """Return the class of pruned layers for a class of Transformers, so that pickle finds it by its name.

    Raises
    ------
    AttributeError
        If it is the name of no such class.
    """
    base = getattr(cache_utils, name.removeprefix("Pruned"), None)
    if name.startswith("Pruned") and isinstance(base, type):
        return _pruned_class(base)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def pruned_layer(cache: Cache | None, index: int) -> PrunedLayer | None:
    """Return a layer of a pruned cache; None where the cache is none such, or was reset."""
    if cache is None or index >= len(cache.layers):
        return None
    part = cache.layers[index]
    return part if isinstance(part, PrunedLayer) and part.lease is not None else None


def waiting_layer(part: Any) -> PrunedLayer:
    """Return a layer of the same contents that takes nothing until its attribute `waiting` is False."""
    layer: PrunedLayer = _as_pruned(part)
    layer.__dict__.update(lease=None, rows=None, waiting=True)
    return layer


def shorten_static(cache: Cache | None, first: int, removed: int) -> None:
    """Let static layers from `first` on be allocated without the rows that they will never hold."""
    less = removed // STEP * STEP
    if cache is None or not less:
        return
    for index in range(first, len(cache.layers)):
        layer: Any = cache.layers[index]
        if type(layer) is StaticLayer or type(layer).__mro__[1:3] == (PrunedLayer, StaticLayer):
            # Some versions allocate all layers before the prefill; this one holds nothing yet, and is allocated anew.
            layer.full_capacity = layer.max_cache_len
            layer.max_cache_len -= less
            layer.keys = layer.values = None
            layer.is_initialized = False


def mark(
    cache: Cache,
    stages: Sequence[tuple[int, int, KeptRows, Tensor, Tensor | None]],
    lease: Lease,
    kinds: Sequence[str],
    *,
    before: int,
    drafts: int,
) -> None:
    """Write on a cache that was just pruned what later steps need to know.

    Parameters
    ----------
    cache : transformers.Cache
        The cache, which holds the prompt, and what stood before and behind it.
    stages : sequence of tuple
        For each time that tokens were dropped, ascending: the layer from which they are hidden, the layer from which
        they are removed, the rows that stay, which tokens are visible, shape (B, T), and the logarithm of how many
        tokens each stands for in attention, of the same shape, None if all stand for themselves.
    lease : Lease
        Whether the session is open.
    kinds : sequence of str
        What each layer lets a token see; those that do not attend have nothing to be told.
    before : int
        Tokens that the cache held before; what earlier forwards dropped of them stays so.
    drafts : int
        Tokens behind the prompt, which can be cropped.

    Raises
    ------
    NotImplementedError
        If something else has taken tokens out of the cache.
    """
    layers: list[Any] = cache.layers
    unknown = {"rows": None, "shortened": False, "fresh": False, "closing": False, "owner": False}
    for index, part in enumerate(layers):
        if isinstance(part, CacheLayerMixin):
            told = {} if pruned_layer(cache, index) is not None else unknown
            layers[index] = _as_pruned(part)
            layers[index].__dict__.update(told, lease=lease, base=int(part.get_seq_length()) - drafts)
    for number, concerned in _alike(layers, [stage[0] for stage in stages], kinds).items():
        _, removed_from, rows, visible, log_sizes = stages[number[0]]
        shorter = [index for index in concerned if index >= removed_from or layers[index].shortened]
        # The first of a kind holds all tokens; another kind may hold fewer.
        last = layers[(shorter or concerned)[0]]
        first = layers[kinds.index(kinds[(shorter or concerned)[0]])]
        capacity = (first.max_cache_len, last.max_cache_len) if isinstance(last, StaticLayer) else None
        known = PrunedRows(*_behind(layers[concerned[0]].rows, before, rows, visible), capacity, log_sizes)
        for index in concerned:
            _check_held(layers[index], index, (known.kept if index in shorter else known.full) + drafts)
            layers[index].__dict__.update(
                rows=known,
                shortened=index in shorter,
                fresh=index in (concerned[0], *shorter[:1]),
                closing=index == concerned[-1],
                owner=index == concerned[0],
            )


def _check_held(layer: Any, index: int, given: int) -> None:
    """Raise if a layer lacks tokens that it was given."""
    held = int(layer.get_seq_length())
    if held != given:
        msg = (
            f"layer {index} of the cache holds {held} of the {given} tokens that it was given: something else takes"
            " tokens out of the cache, and which is not known; use the one or the other"
        )
        raise NotImplementedError(msg)


def _alike(layers: Sequence[Any], hidden_from: Sequence[int], kinds: Sequence[str]) -> dict[Any, list[int]]:
    """Return the layers for which a stage makes one map: what it drops, behind what one earlier map tells."""
    alike: dict[Any, list[int]] = {}
    for index, kind in enumerate(kinds):
        stage = sum(first <= index for first in hidden_from) - 1
        if stage >= 0 and kind in ATTENDING:
            alike.setdefault((stage, id(layers[index].rows)), []).append(index)
    return alike


def _behind(known: PrunedRows | None, before: int, rows: KeptRows, visible: Tensor) -> tuple[KeptRows, Tensor]:
    """Return what stays, and what is visible, of the `before` tokens that a cache held and of those behind them."""
    if not before:
        return rows, visible
    if known is None:
        index = torch.arange(before, device=rows.index.device).expand(rows.index.shape[0], -1)
        real = torch.ones_like(index, dtype=torch.bool)
        return KeptRows(index, real, before, filled=False).followed_by(rows), torch.cat((real, visible), dim=1)
    return known.held(before).followed_by(rows), torch.cat((known.seen(before), visible), dim=1)


def _as_pruned(part: Any) -> Any:
    """Return a layer of the same contents that knows what was pruned."""
    if isinstance(part, PrunedLayer):
        return part
    twin: Any = object.__new__(_pruned_class(type(part)))  # type: ignore[arg-type]  # classes can be hashed
    twin.__dict__.update(part.__dict__)
    return twin
