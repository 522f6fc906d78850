"""Visual tokens on a cache that holds tokens already: what its layers hold, and how new columns stand behind that."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import StaticLayer

from iwp_transformers.decode import step_mask
from iwp_transformers.layer_kinds import ATTENDING
from iwp_transformers.pruned_cache import pruned_layer
from iwp_transformers.pruned_rows import PrunedRows
from iwp_transformers.rows import KeptRows, restored_attention

__all__ = ["EarlierTokens"]


class EarlierTokens:
    """What a cache holds when a forward brings visual tokens: nothing, text, or turns that were pruned.

    Parameters
    ----------
    cache : transformers.Cache or None
        The cache, as it is before the forward.
    length : int
        Tokens of the forward, Q.

    Attributes
    ----------
    count : int
        Tokens that the cache has seen, S, padding and dropped ones counted.

    Raises
    ------
    NotImplementedError
        If merged tokens of the cache are weighed by their sizes.
    """

    def __init__(self, cache: Cache | None, length: int) -> None:
        self.count = 0 if cache is None else int(cache.get_seq_length())
        self._cache, self._length = cache, length
        # The maps are read now, since the forward puts longer ones in their place.
        self._maps: dict[int, PrunedRows] = {}
        for index in range(len(cache.layers) if cache is not None and self.count else 0):
            part = pruned_layer(cache, index)
            if part is not None and part.rows is not None:
                if part.rows.log_sizes is not None:
                    self._refuse_sizes()
                if part.shortened:
                    self._maps[index] = part.rows

    def check_weighing(self) -> None:
        """Raise if there are earlier tokens: a method that weighs tokens is not served behind them.

        Raises
        ------
        NotImplementedError
            If the cache holds tokens.
        """
        if self.count:
            self._refuse_sizes()

    @staticmethod
    def _refuse_sizes() -> NoReturn:
        msg = (
            "images in later turns are not served by methods that weigh merged tokens by their sizes: begin a new cache"
            ", or use a method that weighs none"
        )
        raise NotImplementedError(msg)

    def masked(
        self,
        config: PreTrainedConfig,
        kinds: Sequence[str],
        index: int,
        hidden: Tensor,
        arguments: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Return the arguments of a layer, for all Q tokens, without what earlier turns dropped."""
        part = pruned_layer(self._cache, index) if self.count else None
        if self._cache is None or part is None or part.rows is None:
            return arguments
        # Masks are sized on all tokens of the forward, of which the layer may get fewer.
        sized = hidden.new_empty(hidden.shape[0], self._length, 0)
        mask = step_mask(config, self._cache, index, sized, arguments["attention_mask"], kinds)
        return {**arguments, "attention_mask": mask}

    def columns(self, index: int) -> int:
        """Return how many columns a layer's attention has in front of the forward's own."""
        if self._cache is None or not self.count:
            return 0
        part: Any = self._cache.layers[index]
        if isinstance(part, StaticLayer):
            return int(part.get_seq_length())
        return int(part.get_mask_sizes(self._length)[0]) - self._length

    def held(self, layers: int) -> list[int]:
        """Return how many of the tokens seen each layer still counts."""
        return [
            self._maps[index].kept + self.count - self._maps[index].full if index in self._maps else self.count
            for index in range(layers)
        ]

    def restored(
        self, weights: Sequence[Tensor], indices: Sequence[int], kinds: Sequence[str], rows: Sequence[KeptRows | None]
    ) -> tuple[Tensor, ...]:
        """Put the attention weights of the forward back at full length.

        Parameters
        ----------
        weights : sequence of torch.Tensor
            What layers returned, each of shape (B, Hq, R, K).
        indices : sequence of int
            The layers that they belong to.
        kinds : sequence of str
            What each layer lets a token see.
        rows : sequence of KeptRows or None
            For each layer, the rows that it got, where these are fewer than all Q.
        """
        # The first layer of each kind holds all tokens, and a static cache more columns than those.
        wide: dict[str, int] = {}
        restored = []
        for index, part in zip(indices, weights, strict=True):
            keys = wide.setdefault(kinds[index] if kinds[index] in ATTENDING else "", part.shape[-1])
            restored.append(self._restored(index, part, rows[index], keys))
        return tuple(restored)

    def _restored(self, index: int, weights: Tensor, rows: KeptRows | None, keys: int) -> Tensor:
        known = self._maps.get(index)
        if rows is None and known is None:
            return weights
        samples, device = weights.shape[0], weights.device
        own = torch.arange(self._length, device=device).expand(samples, -1)
        own = own if rows is None else rows.columns().to(device)
        before = torch.arange(self.count, device=device).expand(samples, -1)
        if known is not None:
            before = known.columns(known.kept + self.count - known.full).to(device)
        columns = torch.cat((before, own.where(own < 0, own + self.count)), dim=1)
        # A window holds the newest columns only.
        columns = columns[:, -weights.shape[-1] :] - max(self.count + self._length - keys, 0)
        return restored_attention(weights, own, columns, (self._length, keys))
