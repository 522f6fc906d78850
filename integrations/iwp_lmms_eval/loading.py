"""A model and its processor by name, once everything that its configuration can tell has been checked."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig

from iwp_lmms_eval.answering import Answerer
from iwp_lmms_eval.encoding import ProcessorEncoder
from iwp_transformers import prune_visual_tokens
from iwp_transformers.inspection import without_weights

__all__ = ["check_pruning", "load_answerer"]


def check_pruning(config: PreTrainedConfig, pruning: Mapping[str, Any]) -> None:
    """Raise unless a model can be pruned as asked; needs its configuration and no weights.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
    pruning : mapping
        Arguments of `prune_visual_tokens`.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `prune_visual_tokens` raises.
    """
    prune_visual_tokens(without_weights(config), **pruning).close()


def load_answerer(
    pretrained: str,
    pruning: Mapping[str, Any] | None,
    *,
    device: str | None = None,
    device_map: Any = None,
    dtype: str = "auto",
    attn_implementation: str | None = None,
    max_num_frames: int = 32,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Answerer:
    """Load a model that answers.

    Parameters
    ----------
    pretrained : str
        Folder, or name on the Hub. Code that comes with a model is never run.
    pruning : mapping or None
        Arguments of `prune_visual_tokens`; None answers with all tokens.
    device : str, optional
        Default: the GPU of this process (``LOCAL_RANK``) if there is one.
    device_map : str or mapping, optional
        Where the parts of the model go, in place of `device`.
    dtype : str, default "auto"
        Number format of the weights; "auto" is the checkpoint's.
    attn_implementation : str, optional
        Such as "flash_attention_2"; default: that of Transformers.
    max_num_frames : int, default 32
        Frames taken from each video, at most.
    min_pixels, max_pixels : int, optional
        Limits of the image processor, of a family that has them.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        If the model cannot be pruned as asked: before its weights are read.
    OSError
        If it cannot be found or read.
    """
    config = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
    if pruning is not None:
        check_pruning(config, pruning)
    limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    auto: Any = AutoProcessor
    encoder = ProcessorEncoder(auto.from_pretrained(pretrained, **given), max_num_frames)
    loader: Any = AutoModelForImageTextToText
    model = loader.from_pretrained(
        pretrained, dtype=dtype, attn_implementation=attn_implementation, device_map=device_map
    ).eval()
    return Answerer(model if device_map is not None else model.to(device or _own_device()), encoder, pruning)


def _own_device() -> torch.device:
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
