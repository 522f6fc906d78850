"""A model and its processor by name: checked before any process starts, loaded in each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers import logging as transformers_logging

from iwp_transformers import prune_visual_tokens
from iwp_transformers.media.errors import quoted

__all__ = ["Checkpoint"]

WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a model is, and how it is loaded.

    Attributes
    ----------
    name : str
        Folder that every node can read, or name on the Hub.
    dtype : str
        Number format of the weights, "auto" for the checkpoint's.
    attention : str or None
        Attention implementation, None for the default.
    local_files_only : bool
        Whether to keep off the network.
    """

    name: str
    dtype: str
    attention: str | None
    local_files_only: bool

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise the errors that `prune_visual_tokens` would raise with these settings, without reading weights.

        Parameters
        ----------
        settings : mapping
            Arguments of `prune_visual_tokens`.

        Raises
        ------
        TypeError, ValueError, NotImplementedError
            As `prune_visual_tokens`.
        OSError
            If there is no model of that name, or a folder has no weights.
        """
        config = AutoConfig.from_pretrained(
            self.name, local_files_only=self.local_files_only, trust_remote_code=False, attn_implementation="eager"
        )
        auto: Any = AutoModelForImageTextToText
        with torch.device("meta"):
            model = auto.from_config(config)
        prune_visual_tokens(model, **settings).close()
        folder = Path(self.name)
        if folder.is_dir() and not any(each.suffix in WEIGHTS for each in folder.iterdir()):
            msg = f"{quoted(folder)} holds no weights, expected files that end in {' or '.join(WEIGHTS)}"
            raise OSError(msg)

    def __call__(self) -> tuple[Any, Any]:
        """Load the model, onto the GPU that this process has or onto the CPU, and its processor."""
        # The function carries no annotations, hence the ignore; progress bars of many processes would mix.
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        auto: Any = AutoProcessor
        processor = auto.from_pretrained(self.name, local_files_only=self.local_files_only)
        kind: Any = AutoModelForImageTextToText
        model = kind.from_pretrained(
            self.name, dtype=self.dtype, attn_implementation=self.attention, local_files_only=self.local_files_only
        )
        return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), processor
