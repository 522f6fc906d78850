"""The trained miniatures as vLLM reads them, and what Transformers says of the same requests."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from iwp_miniature import Example, Miniature, draw_examples, load_miniature
from iwp_miniature.vocabulary import IMAGE

NAMES = ("llava-onevision", "qwen2.5-vl")
TOWER = "vision_tower."


@dataclass(frozen=True)
class Trained:
    """A miniature in Transformers, its folder for vLLM, and questions about pictures."""

    name: str
    folder: Path
    miniature: Miniature
    examples: Sequence[Example] = field(repr=False)

    def prompt(self, question: str, pictures: int = 1) -> str:
        """Return the prompt of a request, one placeholder a picture."""
        return "".join(self.miniature.architecture.prompt(IMAGE)[:1]) + self._pictures(pictures) + " " + question

    def _pictures(self, count: int) -> str:
        return "".join(self.miniature.architecture.prompt(IMAGE)[1:]) * count

    def request(self, example: Example, **options: Any) -> dict[str, Any]:
        """Return a request to vLLM; options are `mm_processor_kwargs`."""
        given = {"prompt": self.prompt(example.question.text), "multi_modal_data": {"image": example.scene.image}}
        return given | ({"mm_processor_kwargs": options} if options else {})

    def encoded(self, image: Image.Image, question: str) -> dict[str, torch.Tensor]:
        """Return the inputs of Transformers for the same request."""
        return self.miniature.encode([image], [question])


def trained(name: str, place: Path, per_kind: int = 1) -> Trained:
    """Load a miniature, and write it in bfloat16 or float32 as vLLM 0.32 names its weights."""
    miniature = load_miniature(name)
    source = Path(__import__("iwp_miniature").__file__).parent / "weights" / name
    folder = place / name
    shutil.copytree(source, folder)
    weights = {
        key.replace(TOWER, TOWER + "vision_model.") if key.startswith(TOWER) else key: value
        for key, value in load_file(source / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    examples = draw_examples(miniature.architecture, split="test", per_kind=per_kind, seed=7)
    return Trained(name, folder, miniature, examples)
