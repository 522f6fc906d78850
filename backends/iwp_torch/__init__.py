"""PyTorch backend of `iwp_core`: Triton kernels on CUDA, plain torch elsewhere, and guarded precision.

It is found by the type of a tensor through the entry-point group ``iwp.backends``; there is nothing to import or to
set.

- CUDA tensors of float16, bfloat16 and float32 on cards of compute capability 8.0 and up, with Triton 3.4 and up:
  `iwp_core.select_tokens` with ``PCMMR``, a count or share, and ``heads`` "mean" or "softmax_mean" takes as many
  launches for a batch as for one sample, also where lengths and budgets differ. With ``validate=False`` and without a
  ``mask`` it runs without synchronising the device, and can be captured in a CUDA graph (after one call with the same
  shapes, which compiles the kernels). With a mask it synchronises twice, whatever the batch size: to check that every
  row has a token, and to learn how many.
- Other strategies, budgets and heads on such tensors: sample by sample, with the kernels that apply.
- Within `torch.export`, `torch.vmap` and `torch.compile` (see `iwp_torch.compiling`): one operator.
- All other tensors: the operations of the reference with fewer temporaries. Answers equal the reference's bit for bit.
"""

import sys
from collections.abc import Mapping

from iwp_core import Kernel
from iwp_torch.batch import select_batch, supports_select_batch
from iwp_torch.fused import (
    log_magnitude,
    progressive_chunked_mmr,
    supports_log_magnitude,
    supports_progressive_chunked_mmr,
)
from iwp_torch.kernels import all_finite, duplication_block, gaussian_rows, hash_rows, largest, log_norm, scatter, take
from iwp_torch.precision import full_precision
from iwp_torch.traced import is_traced

__all__ = ["context", "is_traced", "kernels", "name"]

name = "torch"

kernels: Mapping[str, Kernel] = {
    "all_finite": Kernel(run=all_finite),
    "duplication_block": Kernel(run=duplication_block),
    "gaussian_rows": Kernel(run=gaussian_rows),
    "hash_rows": Kernel(run=hash_rows),
    "largest": Kernel(run=largest),
    "log_magnitude": Kernel(run=log_magnitude, supports=supports_log_magnitude),
    "log_norm": Kernel(run=log_norm),
    "progressive_chunked_mmr": Kernel(run=progressive_chunked_mmr, supports=supports_progressive_chunked_mmr),
    "scatter": Kernel(run=scatter),
    "select_batch": Kernel(run=select_batch, supports=supports_select_batch),
    "take": Kernel(run=take),
}

context = full_precision

if "torch._dynamo" in sys.modules:  # it takes seconds to load, so nobody else pays for it
    import iwp_torch.compiling  # noqa: F401 - tells dynamo
