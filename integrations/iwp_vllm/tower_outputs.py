"""Outputs of the vision tower, kept on the host for further questions about the same image."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["TowerOutputs"]


class TowerOutputs:
    """The latest embeddings of whole images, up to some memory.

    Parameters
    ----------
    mib : int
        Memory in MiB; 0 keeps nothing.

    Attributes
    ----------
    runs, hits : int
        How often the tower ran, and how often it did not have to.

    Examples
    --------
    >>> outputs = TowerOutputs(1)
    >>> for _ in range(3):
    ...     _ = outputs.get("image", lambda: torch.ones(2, 4))
    >>> outputs.runs, outputs.hits
    (1, 2)
    """

    def __init__(self, mib: int) -> None:
        self.limit, self.held = mib << 20, 0
        self.runs = self.hits = 0
        self._kept: OrderedDict[str, tuple[Tensor, torch.device]] = OrderedDict()

    def get(self, source: str, run: Callable[[], Tensor]) -> Tensor:
        """Return the embeddings of an image, shape (N, E), on the device where the tower runs.

        Parameters
        ----------
        source : str
            Tells it from others.
        run : callable
            Runs the tower.
        """
        if source in self._kept:
            self.hits += 1
            self._kept.move_to_end(source)
            embeddings, device = self._kept[source]
            return embeddings.to(device)
        self.runs += 1
        embeddings = run()
        self._keep(source, embeddings)
        return embeddings

    def _keep(self, source: str, embeddings: Tensor) -> None:
        size = embeddings.nbytes
        if size > self.limit:
            return
        while self.held + size > self.limit:
            _, (oldest, _) = self._kept.popitem(last=False)
            self.held -= oldest.nbytes
        # A view would keep the pictures of its whole batch.
        self._kept[source] = embeddings.to("cpu", copy=True), embeddings.device
        self.held += size
