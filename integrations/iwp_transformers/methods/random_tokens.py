"""Random choice of visual tokens: the baseline that every method has to beat."""

from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import torch
from torch import Tensor

from iwp_core.methods import random_tokens
from iwp_transformers.methods._method import Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["Random"]


@dataclass(frozen=True, kw_only=True)
class Random(Method):
    """`iwp_core.methods.random_tokens` with a draw that depends on the seed and on the prompt alone.

    So different prompts have different draws, and the same prompt has the same draw in every batch and on every device.

    Attributes
    ----------
    seed : int
        At least 0. Report the mean of at least three seeds.
    """

    name: ClassVar[str] = "random"
    paper: ClassVar[Paper | None] = None
    reads: ClassVar[tuple[Reads, ...]] = ("nothing",)
    layer: ClassVar[int] = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the seed.

        Raises
        ------
        TypeError
            If `seed` is not an int.
        ValueError
            If it is below 0.
        """
        random_tokens(torch.ones(1, 1), 1, seed=self.seed)

    def __call__(self, view: LayerView) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        # The draw hangs on the ids without padding, which are the same on every device and in every batch.
        prompt = repr((self.seed, view.ids.tolist())).encode()
        seed = int.from_bytes(sha256(prompt).digest()[:8])
        kept: Tensor = random_tokens(view.visual.hidden, view.budget, seed=seed)
        return kept
