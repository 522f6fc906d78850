"""The trained miniatures as vLLM reads them, and what Transformers says of the same requests."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from iwp_miniature import Example, Miniature, draw_examples, load_miniature
from iwp_miniature.vocabulary import IMAGE
from iwp_transformers import prune_visual_tokens

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
        begin, *picture = self.miniature.architecture.prompt(IMAGE)
        return begin + "".join(picture) * pictures + " " + question

    def request(self, example: Example, **options: Any) -> dict[str, Any]:
        """Return a request to vLLM; options are `mm_processor_kwargs`."""
        given = {"prompt": self.prompt(example.question.text), "multi_modal_data": {"image": example.scene.image}}
        return given | ({"mm_processor_kwargs": options} if options else {})

    def inputs(self, image: Image.Image, question: str) -> dict[str, torch.Tensor]:
        """Return the inputs of Transformers for the same request."""
        return self.miniature.encode([image], [question])

    def answer(self, example: Example, tokens: int = 2) -> list[int]:
        """Return what Transformers says with all visual tokens."""
        inputs = self.inputs(example.scene.image, example.question.text)
        with torch.no_grad():
            output = self.miniature.model.generate(**inputs, do_sample=False, max_new_tokens=tokens)
        answer: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
        return answer

    def kept(self, image: Image.Image, question: str, budget: float = 0.222, **options: Any) -> list[int]:
        """Return what a session in Transformers keeps."""
        with torch.no_grad(), prune_visual_tokens(self.miniature.model, budget=budget, **options) as session:
            self.miniature.model(**self.inputs(image, question))
        kept: list[int] = session.records[-1].kept_indices[0].tolist()
        return kept

    def answer_of_rows(self, example: Example, kept: torch.Tensor, tokens: int = 2) -> list[int]:
        """Return what Transformers' decoder says of a prompt that lacks all other visual tokens from its first layer.

        Positions are those of the whole prompt.
        """
        model = self.miniature.model
        inputs = self.inputs(example.scene.image, example.question.text)
        entered: list[dict[str, Any]] = []
        hook = model.model.language_model.register_forward_pre_hook(
            lambda _module, _arguments, named: entered.append(named), with_kwargs=True
        )
        with torch.no_grad():
            model(**inputs)
        hook.remove()
        visual = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
        stays = torch.ones(inputs["input_ids"].shape[1], dtype=torch.bool)
        stays[visual] = False
        stays[visual[kept]] = True
        rows, positions = entered[0]["inputs_embeds"][:, stays], entered[0].get("position_ids")
        positions = torch.arange(len(stays))[None, stays] if positions is None else positions[..., stays]
        answer: list[int] = []
        with torch.no_grad():
            for _ in range(tokens):
                # Without a mask, positions with gaps would mean several sequences in one row.
                mask = torch.ones(rows.shape[:2], dtype=torch.int64)
                hidden = model.model.language_model(
                    inputs_embeds=rows, attention_mask=mask, position_ids=positions, use_cache=False
                )
                answer.append(int(model.lm_head(hidden.last_hidden_state[0, -1]).argmax()))
                said = model.get_input_embeddings()(torch.tensor([[answer[-1]]]))
                rows = torch.cat([rows, said], dim=1)
                positions = torch.cat([positions, positions[..., -1:] + 1], dim=-1)
        return answer


def trained(name: str, place: Path, per_kind: int = 1) -> Trained:
    """Load a miniature, and write it in float32 as vLLM 0.32 names its weights."""
    miniature = load_miniature(name)
    source = Path(str(files("iwp_miniature"))) / "weights" / name
    folder = place / name
    shutil.copytree(source, folder)
    weights = {
        key.replace(TOWER, TOWER + "vision_model.") if key.startswith(TOWER) else key: value
        for key, value in load_file(source / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    examples = draw_examples(miniature.architecture, split="test", per_kind=per_kind, seed=7)
    return Trained(name, folder, miniature, examples)
