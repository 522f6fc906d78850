"""What one thread is in the middle of: state that never leaves the thread that runs a forward."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from transformers import Cache

from iwp_transformers.chunked_prefill import ChunkedPrefill
from iwp_transformers.chunks import Chunk
from iwp_transformers.prefill import Prefill
from iwp_transformers.replay import Replay
from iwp_transformers.tower import Encoding

if TYPE_CHECKING:
    from iwp_transformers.session import PruningSession

__all__ = ["Forward", "ThreadState"]


class Forward:
    """What one forward of the multimodal model needs, held by the thread that runs it.

    Attributes
    ----------
    session : PruningSession
        Kept alive until the forward ends.
    arguments : mapping
        What the multimodal model was called with, by name; in a chunk, what it would be called with in one piece.
    chunk : Chunk or None
        Which chunk of a prompt it was called with; None for a prompt in one piece.
    held : ChunkedPrefill or None
        What is held of a prompt in chunks; known once the decoder is called.
    prefill : Prefill or None
        Known once the decoder is called, where the forward sees visual tokens and the end of their prompt.
    entered : int or None
        The last layer whose arguments were shortened before it was checkpointed.
    finished : bool
        Whether the decoder has returned.
    encoded : dict
        What the vision tower returned within this forward, by medium; only where a rule reads the tower.
    """

    def __init__(self, session: "PruningSession", arguments: Mapping[str, Any], chunk: Chunk | None) -> None:
        self.session = session
        self.arguments = arguments if chunk is None else chunk.whole
        self.chunk = chunk
        self.held: ChunkedPrefill | None = None
        self.prefill: Prefill | None = None
        self.generation: Any = None
        self.entered: int | None = None
        self.finished = False
        self.encoded: dict[str, Any] = {}

    @property
    def running(self) -> Prefill | ChunkedPrefill | None:
        """What the decoder's layers are called for; None where there is nothing to prune, or no longer."""
        if self.finished:
            return None
        return self.prefill if self.held is None else self.held


class ThreadState(threading.local):
    """What one thread is in the middle of."""

    def __init__(self) -> None:
        self.forwards: list[Forward | None] = []
        self.replay: Replay | None = None
        self.encoding: Encoding | None = None
        self.held: WeakKeyDictionary[Cache, ChunkedPrefill] = WeakKeyDictionary()
