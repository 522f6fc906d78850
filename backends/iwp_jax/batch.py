"""A batch of samples: by the reference on a CPU, else by one compiled program of static shape."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from iwp_core import MMR, PCMMR, Tolerance, TopK
from iwp_core.budget import tokens_to_keep
from iwp_core.choice import Rule
from iwp_core.samples import Samples
from iwp_core.select import select_batch as reference_select_batch
from iwp_jax.host import is_traced, lies_on_host, on_host
from iwp_jax.strategies import chosen, innermost
from iwp_jax.tokens import Tokens

__all__ = ["select_batch", "supports_select_batch"]

SERVED = (PCMMR, MMR, TopK)


def supports_select_batch(keys: Array, samples: Samples, budget: float | Tolerance, rule: Rule, **_others: Any) -> bool:
    """Return whether `select_batch` serves a call: within a trace always, since nothing else could."""
    del keys
    arrays = samples.arrays.values()
    if any(map(is_traced, arrays)):
        return True
    if type(innermost(rule.strategy)) not in SERVED:  # it expects arrays of the caller's library
        return False
    return lies_on_host(*arrays) or (not isinstance(budget, Tolerance) and samples.mask is None)


def select_batch(keys: Array, samples: Samples, budget: float | Tolerance, rule: Rule, *, check: bool) -> Array:
    """Choose; see `iwp_core.kernels.select_batch`.

    Raises
    ------
    NotImplementedError
        If a strategy of the user's own is asked within a trace.
    """
    arrays = samples.arrays
    traced = any(map(is_traced, arrays.values()))
    if not traced and lies_on_host(*arrays.values()):
        hosted = on_host(samples)
        kept = reference_select_batch(hosted.keys, hosted, budget, rule, check=check)
        with jax.default_device(next(iter(keys.devices()))):
            return jnp.asarray(kept)
    if type(innermost(rule.strategy)) not in SERVED:
        msg = (
            f"`strategy` is {rule.strategy!r}, expected PCMMR(), MMR(), TopK() or AboveChance()"
            " within `jax.jit` and `jax.vmap`"
        )
        raise NotImplementedError(msg)
    if isinstance(budget, Tolerance):
        msg = f"`budget` is {budget!r}, expected a count or a share"
        raise NotImplementedError(msg)
    count = tokens_to_keep(budget, samples.count)
    if traced:
        kept = _select(_described(samples, arrays, samples.count), _sizes(rule, count), rule=rule, room=count)
    else:
        room = min(_few(count), _few(samples.count))
        padded = _described(samples, arrays, _few(samples.count))
        kept = _select(padded, _padded_sizes(rule, count), rule=rule, room=room)[:, :count]
    return jnp.reshape(kept, (*samples.leading, count))


def _described(samples: Samples, arrays: dict[str, Array], room: int) -> dict[str, Array]:
    """Return the arrays, tokens padded to `room`, and which of them are real."""
    missing = room - samples.count
    given = dict(arrays)
    if samples.magnitude_keys is samples.keys:
        del given["magnitude_keys"]
    if "mask" not in given:
        given["mask"] = jnp.ones((samples.keys.shape[0], samples.count), dtype=bool)
    if missing:
        axes = {"keys": 2, "values": 2, "magnitude_keys": 2, "hidden": 1, "mask": 1}
        for name, axis in axes.items():
            if name in given:
                widths = [(0, missing if index == axis else 0) for index in range(given[name].ndim)]
                given[name] = jnp.pad(given[name], widths)
    return given


@partial(jax.jit, static_argnames=("rule", "room"))
def _select(arrays: dict[str, Array], sizes: Array, *, rule: Rule, room: int) -> Array:
    """Return the ascending positions that each sample keeps, filled with -1 to `room`, shape (B, room)."""

    def select(one: dict[str, Array]) -> Array:
        tokens = Tokens(one, rule)
        kept = chosen(rule.strategy, tokens, sizes) & one["mask"]
        positions = jnp.arange(kept.shape[0])
        places = jnp.where(kept, jnp.cumsum(kept) - 1, room)
        return jnp.full(room, -1, dtype=positions.dtype).at[places].set(positions, mode="drop")

    result: Array = jax.vmap(select)(arrays)
    return result


def _sizes(rule: Rule, count: int) -> Any:
    """Return how many tokens are chosen at a time."""
    strategy = innermost(rule.strategy)
    sizes = strategy.chunk_sizes(count) if isinstance(strategy, PCMMR) else [count]
    return np.asarray(sizes, dtype=np.int32)


def _padded_sizes(rule: Rule, count: int) -> Any:
    """Return the same with zeros behind, so that counts share a program."""
    sizes = _sizes(rule, count)
    return np.pad(sizes, (0, _few(len(sizes)) - len(sizes)))


def _few(length: int) -> int:
    """Return the least of few lengths that is no shorter: powers of two, and the middles between them."""
    above = 1 << max(length - 1, 1).bit_length()
    return 3 * above // 4 if length <= 3 * above // 4 else above
