"""PyTorch backend of `iwp_core`: the reference's own operations without its temporaries, and guarded precision.

Found by the type of a tensor through the entry-point group ``iwp.backends``; there is nothing to import or to set.
Answers are those of the reference, bit for bit.
"""

from collections.abc import Mapping

from iwp_core import Kernel
from iwp_torch.kernels import all_finite, duplication_block, largest, take_tokens
from iwp_torch.precision import full_precision

__all__ = ["context", "kernels", "name"]

name = "torch"

kernels: Mapping[str, Kernel] = {
    "all_finite": Kernel(run=all_finite),
    "duplication_block": Kernel(run=duplication_block),
    "largest": Kernel(run=largest),
    "take_tokens": Kernel(run=take_tokens),
}

context = full_precision
