"""A trained miniature: loaded from a folder, asked questions about pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from iwp_miniature.architectures import Architecture, architecture
from iwp_miniature.vocabulary import IMAGE, check_words

__all__ = ["Miniature", "MiniatureError", "load_miniature", "miniature_folder"]


class MiniatureError(OSError):
    """A folder that holds no miniature; the message says what is missing."""


@dataclass(frozen=True)
class Miniature:
    """A model, its tokenizer and its image processor; made by `load_miniature`.

    Parameters
    ----------
    architecture : Architecture
        Its architecture.
    model : PreTrainedModel
        The model in evaluation mode, on any device.
    tokenizer : PreTrainedTokenizerFast
        Pads on the left.
    """

    architecture: Architecture
    model: Any
    tokenizer: Any

    def encode(self, images: Sequence[Image.Image], questions: Sequence[str]) -> dict[str, Tensor]:
        """Return the model's inputs for one question about each picture.

        Parameters
        ----------
        images : sequence of PIL.Image.Image, length B
        questions : sequence of str, length B
            Any case, the question mark may touch the last word.

        Returns
        -------
        dict of str to torch.Tensor
            As its processor would return them, padded on the left, on the model's device.

        Raises
        ------
        VocabularyError
            If a question has an unknown word.
        """
        for question in questions:
            check_words(question)
        pixels = [self.architecture.image_processor(image.convert("RGB"), return_tensors="pt") for image in images]
        texts = []
        for question, picture in zip(questions, pixels, strict=True):
            words = self.architecture.prompt(IMAGE * len(self.architecture.patches(picture)))
            texts.append("".join(words) + " " + question)
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt")
        inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        inputs |= {name: torch.cat([picture[name] for picture in pixels]) for name in pixels[0]}
        if "image_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.model.config.image_token_id).int()
        return {name: value.to(self.model.device) for name, value in inputs.items()}

    def encode_text(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """Return the model's inputs for questions without a picture. Parameters and errors are those of `encode`."""
        texts = ["".join(self.architecture.prompt("")) + " " + question for question in questions]
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt")
        return {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

    def answer(self, inputs: Mapping[str, Tensor]) -> list[str]:
        """Return one word for each row of the inputs, found by `generate`."""
        with torch.no_grad():
            output = self.model.generate(**inputs, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]


def miniature_folder(name: str) -> Path:
    """Return the folder of a miniature that is shipped: weights, tokenizer and processor, as `from_pretrained` reads.

    Parameters
    ----------
    name : {"llava-onevision", "qwen2.5-vl"}

    Raises
    ------
    ValueError
        If there is no such architecture.
    """
    return Path(str(files("iwp_miniature"))) / "weights" / architecture(name).name


def load_miniature(name: str = "llava-onevision", folder: Path | None = None) -> Miniature:
    """Load a trained miniature.

    Parameters
    ----------
    name : {"llava-onevision", "qwen2.5-vl"}
    folder : Path, optional
        Where its files are. Default: those that are shipped.

    Returns
    -------
    Miniature
        In float32, on the CPU.

    Raises
    ------
    ValueError
        If there is no such architecture.
    MiniatureError
        If the folder or one of its files is missing.

    Examples
    --------
    >>> miniature = load_miniature()
    >>> type(miniature.model).__name__
    'LlavaOnevisionForConditionalGeneration'
    """
    kind = architecture(name)
    place = miniature_folder(name) if folder is None else folder
    wanted = ("config.json", "model.safetensors", "tokenizer.json")
    missing = [item for item in wanted if not (place / item).is_file()]
    if missing:
        msg = f"`folder` is {str(place)!r}, which lacks {', '.join(missing)}; expected what iwp-train-miniature writes"
        raise MiniatureError(msg)
    model = kind.model_class.from_pretrained(place, dtype=torch.float32).eval()
    return Miniature(kind, model, AutoTokenizer.from_pretrained(place))
