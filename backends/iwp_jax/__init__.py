"""JAX backend of `iwp_core`: NumPy on a CPU, and one program of static shapes under `jax.jit` and on other devices.

It is found by the type of an array through the entry-point group ``iwp.backends``; there is nothing to import or to
set.

- Arrays on a CPU, outside of `jax.jit`: the reference runs on NumPy views of the same memory. XLA would compile each of
  its operations anew for each number of tokens.
- Inside `jax.jit` and `jax.vmap`: `select_tokens` with ``validate=False`` becomes a program with static shapes. Answers
  have the length that the budget says; with a mask, shorter rows are filled with -1.
- Arrays on other devices: the same program. The number of tokens is padded to one of a few lengths, so that a loop over
  samples of many sizes compiles only a few programs.
"""

from collections.abc import Mapping

from iwp_core import Kernel
from iwp_jax.batch import select_batch, supports_select_batch
from iwp_jax.host import all_finite, is_traced, lies_on_host

__all__ = ["is_traced", "kernels", "name"]

name = "jax"

kernels: Mapping[str, Kernel] = {
    "all_finite": Kernel(run=all_finite, supports=lies_on_host),
    "select_batch": Kernel(run=select_batch, supports=supports_select_batch),
}
