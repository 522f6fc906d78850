"""CuPy backend of `iwp_core`: the magnitude and algorithm 1 in CUDA kernels, for float16, float32 and float64.

It is found by the type of an array through the entry-point group ``iwp.backends``; there is nothing to import or to
set. `iwp_core.select_tokens` with ``PCMMR``, a count or share, and ``heads`` "mean" or "softmax_mean" takes as many
launches for a batch as for one sample, also where lengths and budgets differ. With a ``mask`` the host waits for the
device twice, whatever the batch size: to check that every row has a token, and to learn how many. Other calls go sample
by sample. Where the kernels do not apply, or cannot be compiled, the reference runs on the CuPy arrays.
"""

from collections.abc import Mapping

from iwp_core import Kernel
from iwp_cupy.batch import select_batch, serves_batch
from iwp_cupy.finite import all_finite
from iwp_cupy.magnitude import log_magnitude, serves_magnitude
from iwp_cupy.pc_mmr import progressive_chunked_mmr, serves_selection
from iwp_cupy.precision import full_precision

__all__ = ["context", "kernels", "name"]

name = "cupy"

kernels: Mapping[str, Kernel] = {
    "all_finite": Kernel(run=all_finite),
    "log_magnitude": Kernel(run=log_magnitude, supports=serves_magnitude),
    "progressive_chunked_mmr": Kernel(run=progressive_chunked_mmr, supports=serves_selection),
    "select_batch": Kernel(run=select_batch, supports=serves_batch),
}

context = full_precision
