"""Write a trained model as a folder that `from_pretrained` and `AutoProcessor` read."""

import json
from pathlib import Path
from typing import Any

import torch

from iwp_miniature.architectures import Architecture
from iwp_miniature.vocabulary import IMAGE, make_tokenizer

__all__ = ["save_miniature"]

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- if message['content'] is string -%}{{ ' ' + message['content'] }}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}PICTURE{%- elif part['type'] == 'text' -%}{{ ' ' + part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
)
"""A picture, then a question; PICTURE stands for the words that an architecture puts there."""


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
    Needs no torchvision, which the processors of both families demand for their videos: the file that they read is
    written without making one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    # An answer is one word and the end.
    copy.generation_config.max_new_tokens = 2
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("PICTURE", "".join(architecture.prompt(IMAGE)))
    tokenizer.save_pretrained(folder)
    content = json.dumps(_processor(architecture), indent=2) + "\n"
    (folder / "processor_config.json").write_text(content, encoding="utf-8")


def _processor(architecture: Architecture) -> dict[str, Any]:
    """Return what the family's processor would save of itself."""
    images = architecture.image_processor.to_dict()
    kind = images["image_processor_type"].removesuffix("Pil")
    shared = {name: value for name, value in images.items() if name not in ("image_processor_type", "processor_class")}
    frames = {name: value for name, value in shared.items() if name not in ("do_pad", "image_grid_pinpoints")}
    return {
        "processor_class": architecture.processor_class,
        "image_processor": {**shared, "image_processor_type": kind},
        "video_processor": {**frames, "video_processor_type": kind.replace("Image", "Video")},
        **architecture.processor_options,
    }
