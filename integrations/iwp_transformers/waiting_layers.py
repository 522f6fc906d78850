"""The layers of a cache that hold nothing before the last chunk of a prompt."""

import copy
from typing import Any

from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from iwp_transformers.pruned_cache import PrunedLayer, waiting_layer

__all__ = ["WaitingLayers"]


class WaitingLayers:
    """Layers of one cache that wait, each until it is called with the last chunk.

    Transformers counts tokens, and sizes masks, by the first layers of each kind: in their place, copies are filled.
    The others refuse all but their own turn, so that nobody can go on with the cache of a prompt that broke off.

    Parameters
    ----------
    cache : transformers.Cache
        The cache, empty.
    first, removal : int
        Layers from which on all wait, and from which on nobody counts tokens by them.
    count : int
        Layers of the decoder.
    """

    def __init__(self, cache: Cache, first: int, removal: int, count: int) -> None:
        replicate = cache.layer_class_to_replicate
        while replicate is not None and len(cache.layers) < count:
            cache.layers.append(replicate())
        layers: list[Any] = cache.layers
        self._aside: dict[int, Any] = {}
        for index in range(first, len(layers)):
            if index < removal:
                self._aside[index], layers[index] = layers[index], copy.deepcopy(layers[index])
            elif isinstance(layers[index], CacheLayerMixin):
                layers[index] = waiting_layer(layers[index])

    def stop(self, cache: Cache | None, index: int) -> None:
        """Let layer `index` of the cache take what it is about to get."""
        if cache is None:
            return
        layers: list[Any] = cache.layers
        if index in self._aside:
            layers[index] = self._aside.pop(index)
        elif index < len(layers) and isinstance(layers[index], PrunedLayer):
            layers[index].waiting = False
