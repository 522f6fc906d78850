"""The contract between the core and backends: which functions a backend may replace, and what its kernels may read.

A backend lists its kernels under the names of `FUNCTIONS` (`iwp_core.Backend` says how a backend is found). A kernel
takes the arguments of its function and returns the same result. Arguments that later versions of the core add are
passed as keywords, so a kernel's ``supports`` should return False for keywords that it does not know.
`iwp_core.testing` compares a backend with the reference.

=========================== ====================================================================================
function                    what it does
=========================== ====================================================================================
all_finite                  whether an array holds neither NaN nor infinity
log_norm                    log of the norm of each row
gaussian_rows               keys moved by their mean and scaled, with the two coordinates that hold their norms
hash_rows                   an integer for each of some tokens, equal for equal tokens; values are the backend's own
log_magnitude               the information magnitude of one sample
duplication_block           head mean of the squared similarity of gathered tokens
scatter                     a vector with new values at ascending positions
take                        entries at indices along an axis
largest                     the largest entries of a vector, descending
progressive_chunked_mmr     all of PC-MMR; any order within a chunk
select_batch                all of `select_tokens` behind its checks, for a batch
=========================== ====================================================================================

The coarse kernels (`log_magnitude`, `progressive_chunked_mmr`) are for devices on which launching an operation is
expensive; the others save temporary arrays. A coarse kernel reads the tokens, in their own dtypes, from the factors of
a `Duplication` (`Cosine.tokens`, `Gaussian.tokens`), and computes in their `accumulation_dtype`. A kernel of
`select_batch` asks `Rule.factors` for the factors of all samples, with tokens of shape (B, H, N, D).

Examples
--------
>>> sorted(FUNCTIONS)[:3]
['all_finite', 'duplication_block', 'gaussian_rows']
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from iwp_core._arrays import accumulation_dtype, scatter, take
from iwp_core._validate import all_finite
from iwp_core.choice import Rule
from iwp_core.comparison import Duplication, duplication_block
from iwp_core.identical import hash_rows
from iwp_core.magnitude import log_magnitude
from iwp_core.norms import log_norm
from iwp_core.pc_mmr import largest, progressive_chunked_mmr
from iwp_core.samples import Samples
from iwp_core.select import select_batch
from iwp_core.similarity import Cosine, Gaussian, gaussian_rows

__all__ = [
    "FUNCTIONS",
    "Cosine",
    "Duplication",
    "Gaussian",
    "Rule",
    "Samples",
    "accumulation_dtype",
    "all_finite",
    "duplication_block",
    "gaussian_rows",
    "hash_rows",
    "largest",
    "log_magnitude",
    "log_norm",
    "progressive_chunked_mmr",
    "scatter",
    "select_batch",
    "take",
]

FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType({
    function.__name__: function
    for function in (
        all_finite,
        log_norm,
        gaussian_rows,
        hash_rows,
        log_magnitude,
        duplication_block,
        scatter,
        take,
        largest,
        progressive_chunked_mmr,
        select_batch,
    )
})
"""The reference functions, by the names under which a backend lists its kernels."""
