"""JAX backend of `iwp_core`: nothing is compiled on a CPU, and one program of static shape serves `jit` and devices.

Found by the type of an array through the entry-point group ``iwp.backends``; there is nothing to import or to set.

- Arrays on a CPU that are no tracers: the reference, on NumPy views of the same memory. XLA would compile each of its
  operations for each number of tokens.
- Tracers, as within `jax.jit` and `jax.vmap`: `select_tokens` with ``validate=False`` as a program whose shapes
  do not depend on numbers. Answers have the length that the budget says; with a mask, rows are filled with -1.
- Arrays on other devices: the same program, tokens padded to few lengths, so that a loop over samples of many sizes
  compiles a few of them.
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
