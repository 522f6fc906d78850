"""Write a trained model as a folder that `from_pretrained` and `AutoProcessor` read."""

import json
from pathlib import Path
from typing import Any

import torch

from iwp_miniature.architectures import Architecture
from iwp_miniature.vocabulary import make_tokenizer

__all__ = ["save_miniature"]


def save_miniature(architecture: Architecture, model: Any, folder: Path) -> None:
    """Write weights in bfloat16, configuration, tokenizer and processor.

    Parameters
    ----------
    architecture : Architecture
    model : PreTrainedModel
    folder : Path
        Made if it is missing.

    Notes
    -----
    Needs no torchvision, which the processors of both families demand for their videos: the files that they read are
    written one by one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16)
    copy.generation_config.max_new_tokens = 2
    copy.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    architecture.image_processor.save_pretrained(folder)
    for name, content in architecture.processor_files().items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
