"""A trained miniature for processes of Ray, with the library's own processor less its video half, and ways to die."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Qwen2_5_VLProcessor

from iwp_miniature import load_miniature

DEADLY = "lethal"
"""A word that kills the process of whoever encodes it; no question has it."""


class MiniatureProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor around the miniature's own tokenizer and image processor; needs no torchvision."""

    def __init__(self, miniature: Any) -> None:
        self.image_processor, self.tokenizer = miniature.architecture.image_processor, miniature.tokenizer
        for kind in ("image", "video"):
            token_id = getattr(miniature.model.config, f"{kind}_token_id")
            setattr(self, f"{kind}_token_id", token_id)
            setattr(self, f"{kind}_token", self.tokenizer.convert_ids_to_tokens(token_id))
        self.chat_template = self.tokenizer.chat_template

    def apply_chat_template(self, turns: Any, **options: Any) -> Any:
        """Render a turn."""
        return self.tokenizer.apply_chat_template(turns, tokenize=False, **options)

    def __call__(self, *, text: list[str], **arguments: Any) -> Any:
        """Encode, or die."""
        if any(DEADLY in each for each in text):
            os.abort()
        return super().__call__(text=text, **arguments)


@dataclass(frozen=True)
class MiniatureLoader:
    """Loads the Qwen2.5-VL miniature, and leaves a file with the number of the process in a folder.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    def __call__(self) -> tuple[Any, Any]:
        """Return the model and its processor."""
        miniature = load_miniature("qwen2.5-vl")
        (self.folder / str(os.getpid())).touch()
        return miniature.model, MiniatureProcessor(miniature)


def fails_to_load() -> tuple[Any, Any]:
    """Stand for a model whose weights are damaged."""
    msg = "the weights are damaged"
    raise OSError(msg)
