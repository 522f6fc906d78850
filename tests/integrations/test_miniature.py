"""The shipped miniatures: they answer, they need the picture, and pruning costs them what it should."""

from __future__ import annotations

import importlib.resources
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="the digits come from scikit-learn")

from transformers import AutoProcessor

from iwp_miniature import ARCHITECTURES, KINDS, Example, Miniature, MiniatureError, draw_examples, in_batches
from iwp_miniature import load_miniature as load
from iwp_miniature.saving import save_miniature
from iwp_transformers import prune_visual_tokens
from tests.integrations import oracle

SHIPPED = sorted(folder.name for folder in (importlib.resources.files("iwp_miniature") / "weights").iterdir())
every_miniature = pytest.mark.parametrize("name", SHIPPED)
needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="the processors need torchvision"
)
PER_KIND = 20
LEAST = {"llava-onevision": 0.88, "qwen2.5-vl": 0.90}
"""What each must reach on these questions; some points below what they do, for other machines and versions."""

load_miniature = cache(load)


@cache
def examples(name: str) -> list[Example]:
    """Draw pictures of digits that took no part in training."""
    return draw_examples(ARCHITECTURES[name], split="test", per_kind=PER_KIND, seed=7)


def accuracy(asked: list[Example], words: list[str]) -> float:
    """Return the share of right answers, each kind of question weighing the same."""
    right = {kind: [] for kind in KINDS}  # type: dict[str, list[bool]]
    for word, each in zip(words, asked, strict=True):
        right[each.question.kind].append(word == each.question.answer)
    return float(np.mean([np.mean(part) for part in right.values()]))


def encoded(miniature: Miniature, asked: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Return the inputs for a batch of questions."""
    return miniature.encode([each.scene.image for each in asked], [each.question.text for each in asked])


def answers(miniature: Miniature, asked: list[Example]) -> list[str]:
    """Answer every question about its picture."""
    return [word for batch in in_batches(asked, 60) for word in miniature.answer(encoded(miniature, batch))]


@every_miniature
def test_most_answers_are_right_and_dropping_tokens_at_random_costs_answers(name: str) -> None:
    """On digits never seen in training. With a ninth of the tokens, drawn by lot, the answers suffer."""
    miniature, asked = load_miniature(name), examples(name)
    generator = torch.Generator().manual_seed(0)

    full = accuracy(asked, answers(miniature, asked))
    with prune_visual_tokens(
        miniature.model,
        budget=0.111,
        layer=2,
        selector=lambda view: torch.randperm(len(view.visual), generator=generator)[: view.budget],
    ):
        lottery = accuracy(asked, answers(miniature, asked))

    assert full > LEAST[name]
    assert lottery < full - 0.15


@every_miniature
def test_without_the_picture_the_answers_are_guesses(name: str) -> None:
    """No kind of question can be answered from its words: a pruning rule is not rewarded for what it did not keep."""
    miniature, asked = load_miniature(name), examples(name)

    words = miniature.answer(miniature.encode_text([each.question.text for each in asked]))

    assert accuracy(asked, words) < 0.22


@every_miniature
def test_answers_are_not_read_before_layer_2(name: str) -> None:
    """With all visual tokens hidden from layer 2 on, the answers are guesses too: only so does pruning there matter."""
    miniature, asked = load_miniature(name), examples(name)
    asked, words = asked[::2], []
    for batch in in_batches(asked, 60):
        inputs = encoded(miniature, batch)
        visual = inputs["input_ids"] == miniature.model.config.image_token_id
        logits = oracle.true_logits(miniature.model, inputs, 2, visual)
        words += miniature.tokenizer.batch_decode(logits[:, -1].argmax(-1)[:, None])

    assert accuracy(asked, words) < 0.22


def test_pictures_of_different_sizes_give_qwen_different_numbers_of_tokens() -> None:
    """Native resolution: one token for 8 by 8 pixels, whatever the picture's shape."""
    miniature, counts = load_miniature("qwen2.5-vl"), {}
    for each in examples("qwen2.5-vl"):
        tokens = encoded(miniature, [each])["input_ids"] == miniature.model.config.image_token_id
        counts[each.scene.pixels.shape[:2]] = int(tokens.sum())

    assert counts == {(height, width): height * width // 64 for height, width in counts}
    assert len(set(counts.values())) >= 3


@needs_torchvision
@every_miniature
def test_the_processor_of_transformers_gives_the_same_inputs(name: str) -> None:
    """`AutoProcessor` reads the folder, and its chat template writes the prompt."""
    miniature, asked = load_miniature(name), examples(name)[:2]
    processor = AutoProcessor.from_pretrained(folder_of(name))
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": each.question.text}]}],
            add_generation_prompt=True,
        )
        for each in asked
    ]

    theirs = processor(text=prompts, images=[each.scene.image for each in asked], padding=True, return_tensors="pt")

    ours = encoded(miniature, asked)
    assert set(theirs) == set(ours)
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, rtol=0, atol=1e-6, check_dtype=False)


@every_miniature
def test_what_is_saved_is_what_is_loaded(name: str, tmp_path: Path) -> None:
    """Weights go through bfloat16, in which the shipped ones are; the folder stays under 6 MB."""
    miniature, asked = load_miniature(name), examples(name)[:10]

    save_miniature(miniature.architecture, miniature.model, tmp_path)

    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 6e6
    again = load(name, tmp_path)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(miniature.model.parameters(), again.model.parameters(), strict=True)
    )
    assert answers(again, asked) == answers(miniature, asked)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    """What is missing, and what writes it."""
    with pytest.raises(
        MiniatureError, match=r"lacks config\.json, model\.safetensors, tokenizer\.json; expected what iwp-"
    ):
        load("llava-onevision", tmp_path)
    with pytest.raises(ValueError, match="`name` is 'llava', expected one of 'llava-onevision'"):
        load("llava")


def folder_of(name: str) -> Path:
    """Return where the shipped files of a miniature are."""
    return Path(str(importlib.resources.files("iwp_miniature"))) / "weights" / name
