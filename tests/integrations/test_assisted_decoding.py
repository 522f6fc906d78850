"""Drafts change no answer: assisted and prompt-lookup decoding give what plain decoding gives, whatever was guessed."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import StaticLayer
from transformers.generation.candidate_generator import CandidateGenerator

from iwp_transformers import LayerView, prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, true_generation
from tests.integrations.prompts import BOTH, first_ones, greedy
from tests.integrations.test_caches import Conversation
from tests.integrations.test_exactness import scattered
from tests.integrations.test_windows import dropped, windowed
from tests.integrations.tiny_models import FACTORIES, IMAGE_ID, Image, make_inputs
from tests.models.oracle import steps, true_steps

NEW = 9
PROMPT = [(3, Image(), 12)]


@dataclass
class Drafts(CandidateGenerator):
    """Guesses the tokens of an answer that is known, but the last of each guess wrongly."""

    answer: Tensor
    rounds: int = field(default=0, init=False)
    requires_model_outputs = False

    def get_candidates(self, input_ids: Tensor, **_kwargs: Any) -> tuple[Tensor, None]:
        """Return the ids with one to three guesses, so that from none to two of them are right."""
        self.rounds += 1
        length = input_ids.shape[1]
        guess = self.answer[:, length : min(length + self.rounds % 3 + 1, self.answer.shape[1] - 1)].clone()
        guess[:, -1:] = 3 + (guess[:, -1:] + 1) % (IMAGE_ID - 3)
        return torch.cat((input_ids, guess), dim=1), None

    def update_candidate_strategy(self, *_args: Any, **_kwargs: Any) -> None:
        """Guess on as before."""


def test_drafts_are_told_from_the_question_if_the_session_has_no_head() -> None:
    """The decoder's model alone is pruned, and the model around it generates."""
    model: Any = FACTORIES["llava-onevision"]()
    inputs = lookup_prompt(model)

    with prune_visual_tokens(model.model, budget=0.3, layer=1) as session:
        plain = greedy(model, inputs, max_new_tokens=NEW)
        assisted = greedy(model, inputs, max_new_tokens=NEW, prompt_lookup_num_tokens=3)

    first, second = session.records
    assert first.lengths_full[0] < second.lengths_full[0], "no draft stood behind the prompt"
    assert torch.equal(first.kept[0], second.kept[0])
    assert torch.equal(assisted, plain)


def lookup_prompt(model: Any) -> dict[str, Any]:
    """Return a prompt whose end repeats its middle, so that what followed there is guessed to follow here."""
    inputs = make_inputs(model, [(3, Image(), 30)])
    inputs["input_ids"][:, -4:] = inputs["input_ids"][:, -14:-10]
    return inputs


@pytest.mark.parametrize("layer", [0, 2, (1, 3)])
@pytest.mark.parametrize("way", ["prompt lookup", "assistant", "half right"])
@pytest.mark.parametrize("family", BOTH)
def test_assisted_decoding_equals_plain_decoding(
    family: str, way: str, layer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tokens are kept; ids and logits are the masked full model's. Drafts begin in the prompt's forward."""
    model = FACTORIES[family]()
    inputs = lookup_prompt(model)
    budget = (0.3,) * len(layer) if isinstance(layer, tuple) else 0.3
    options = {"max_new_tokens": NEW, "return_dict_in_generate": True, "output_logits": True}

    with prune_visual_tokens(model, budget=budget, layer=layer) as session:
        plain = greedy(model, inputs, max_new_tokens=NEW)
        if way == "half right":
            drafts = Drafts(plain)
            monkeypatch.setattr(model, "_get_candidate_generator", lambda **_kwargs: drafts)
        use = {"assistant_model": FACTORIES[family]()} if way == "assistant" else {"prompt_lookup_num_tokens": 3}
        assisted = model.generate(**inputs, **use, do_sample=False, **options)

    first, second = session.records
    assert torch.equal(first.kept[0], second.kept[0])
    assert torch.equal(assisted.sequences, plain)
    gone = dropped_tokens(second, inputs["input_ids"].shape)
    expected = true_generation(model, inputs, layer[0] if isinstance(layer, tuple) else layer, gone, max_new_tokens=NEW)
    assert torch.equal(assisted.sequences, expected.sequences)
    assert_close(torch.stack(assisted.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("prompt", [PROMPT, [(5, Image())]], ids=["question", "image last"])
def test_a_rule_is_shown_no_draft(prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Question, text and attention row are those of the prompt; the visual token that ends it is kept as ever."""
    model = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, prompt)
    shown: list[tuple[Tensor, ...]] = []

    def looking(view: LayerView) -> Tensor:
        shown.append((view.text.positions, view.question.positions, view.question.hidden, view.last_attention()))
        return first_ones(view)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=looking) as session:
        plain = greedy(model, inputs)
        asked = len(shown)
        monkeypatch.setattr(model, "_get_candidate_generator", lambda **_kwargs: Drafts(plain))
        assisted = greedy(model, inputs, prompt_lookup_num_tokens=3)

    assert torch.equal(assisted, plain)
    assert torch.equal(session.records[0].kept[0], session.records[1].kept[0])
    assert len(shown) == 2 * asked
    for once, again in zip(shown[:asked], shown[asked:], strict=True):
        for part, other in zip(once, again, strict=True):
            torch.testing.assert_close(part, other)


@pytest.mark.parametrize("window", [5, 12])
@pytest.mark.parametrize("pattern", ["all", "full first", "sliding first"])
def test_windows_take_drafts_back(pattern: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that forget hold on to what a crop brings back, in original positions."""
    model = windowed(pattern, window)
    inputs = make_inputs(model, PROMPT)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session:
        plain = greedy(model, inputs, max_new_tokens=NEW)
        monkeypatch.setattr(model, "_get_candidate_generator", lambda **_kwargs: Drafts(plain))
        logits = steps(model, inputs, NEW, prompt_lookup_num_tokens=3)

    monkeypatch.undo()
    assert_close(logits, true_steps(model, inputs, 1, dropped(session, inputs), NEW))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_static_cache_that_was_cropped_takes_several_tokens(layer: int) -> None:
    """Decoded tokens are taken back and three others decoded in one forward, as with a dynamic cache."""
    if not hasattr(StaticLayer, "crop"):
        pytest.skip("static caches of this Transformers cannot be cropped")
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [*PROMPT, (2, Image(32, 16), 6)])
    tokens = torch.tensor([[33, 34, 35], [43, 44, 45]])

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered):
        answers = []
        for kind in ("dynamic", "static"):
            begun = Conversation.begun(model, inputs, kind)
            begun.step(tokens)
            begun.cache.crop(-2)
            answers.append(begun.step(tokens.flip(1)))

    assert_close(answers[1], answers[0])
