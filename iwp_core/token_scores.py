"""Log scores of tokens before heads are pooled (tables 1 and 2)."""

import math

from iwp_core._arrays import Array, accumulation_dtype, as_dtype, namespace, safe_log, tiles
from iwp_core.norms import key_center, log_feature_norm, log_norm
from iwp_core.similarity import Cosine, Gaussian

__all__ = ["TokenScores"]


class TokenScores:
    """Keys and values to score, with the factors of a duplication that may be of the same arrays."""

    def __init__(self, keys: Array, values: Array, factors: tuple[Cosine | Gaussian, ...]) -> None:
        self.keys, self.values = keys, values
        gaussians = [one for one in factors if isinstance(one, Gaussian) and one.tokens is keys]
        cosines = [one for one in factors if isinstance(one, Cosine) and one.tokens is values]
        self.gaussian = gaussians[0] if gaussians else None
        self.cosine = cosines[0] if cosines else Cosine(values)

    def log_scores(self, queries: Array | None, *, metric: str, kernel: str) -> Array:
        """Return the log scores of table 1 before heads are pooled: (Hq, N) if a query is read, else (H, N)."""
        if metric == "value_norm":
            return self.cosine.log_norms
        if metric == "raw_key_norm":
            return log_norm(self.keys)
        if metric == "key_norm":
            return log_feature_norm(self.keys, kernel=kernel)
        if metric == "gradient_norm":
            return log_feature_norm(self.keys, kernel=kernel) + self.cosine.log_norms
        xp = namespace(self.keys)
        log_kernel = self._products(queries, 1 / math.sqrt(self.keys.shape[-1]) if kernel == "exponential" else 1.0)
        if kernel == "linear":
            log_kernel = safe_log(xp.abs(log_kernel))
        if metric == "dual":
            log_kernel += self.cosine.log_norms[:, None, :]
        return xp.reshape(log_kernel, (-1, self.keys.shape[1]))

    def _products(self, queries: Array, scale: float) -> Array:
        """Return q_h.k_i times `scale`, shape (H, Hq/H, N); query head h reads key/value head h // (Hq/H)."""
        xp = namespace(queries)
        heads, _, width = self.keys.shape
        dtype = accumulation_dtype(self.keys, queries)
        grouped = xp.reshape(as_dtype(queries, dtype), (heads, -1, width)) * scale
        center = key_center(self.keys, dtype) if self.gaussian is None else self.gaussian.center
        at_center = xp.matmul(grouped, xp.matrix_transpose(center))
        if self.gaussian is not None:
            moved = self.gaussian.rows[..., :width]
            products = xp.matmul(grouped / self.gaussian.scale, xp.matrix_transpose(moved))
            products += at_center
            return products
        parts = [
            xp.matmul(grouped, xp.matrix_transpose(as_dtype(self.keys[:, tile, :], dtype) - center))
            for tile in tiles(self.keys.shape[1])
        ]
        return xp.concat(parts, axis=-1) + at_center
