"""One session serves any number of threads, each with its own prompt."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers.presets import PER_QUERY
from tests.integrations.oracle import assert_close
from tests.integrations.prompts import BOTH, EIGHT, greedy, logits_of
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import CACHE, FACTORIES, Image, make_inputs

T = TypeVar("T")
ROUNDS = 3


@pytest.fixture(autouse=True)
def restless_interpreter() -> Iterator[None]:
    """Switch threads so often that whatever they share is mixed up at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run every task in a thread of its own, all beginning together."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def rounds(model: nn.Module, inputs: dict[str, Any], **options: Any) -> Callable[[], list[Tensor]]:
    """Return a task that generates several times."""
    return lambda: [greedy(model, inputs, **options) for _ in range(ROUNDS)]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", BOTH)
def test_eight_threads_get_the_ids_of_one_after_the_other(family: str, layer: int, cache: str) -> None:
    """Images and text alone, mixed: each answer is that of its own prompt, each pruned prefill leaves a record."""
    model = FACTORIES[family]()
    prompts = [make_inputs(model, [prompt]) for prompt in EIGHT]
    options = {"cache_implementation": cache}
    with prune_visual_tokens(model, budget=0.3, layer=layer):
        expected = [greedy(model, inputs, **options) for inputs in prompts]

    with prune_visual_tokens(model, budget=0.3, layer=layer, history=100) as session:
        answers = at_once([rounds(model, inputs, **options) for inputs in prompts])

    for mine, true in zip(answers, expected, strict=True):
        assert all(torch.equal(ids, true) for ids in mine)
    assert len(session.records) == ROUNDS * sum(any(isinstance(part, Image) for part in prompt) for prompt in EIGHT)


@pytest.mark.parametrize("family", BOTH)
def test_threads_keep_the_tokens_of_one_after_the_other(family: str) -> None:
    """The records of threads are those of the same prompts one by one, in another order."""
    model = FACTORIES[family]()
    prompts = [make_inputs(model, [prompt]) for prompt in EIGHT]

    def kept(session: Any) -> list[tuple[list[int], list[int]]]:
        return sorted((record.visual[0].tolist(), record.kept[0].tolist()) for record in session.records)

    with prune_visual_tokens(model, budget=0.3, layer=1, history=100, **PER_QUERY) as alone:
        for inputs in prompts:
            logits_of(model, inputs)
    with prune_visual_tokens(model, budget=0.3, layer=1, history=100, **PER_QUERY) as together:
        at_once([lambda inputs=inputs: logits_of(model, inputs) for inputs in prompts])

    assert kept(together) == kept(alone)


def test_threads_without_a_cache_do_not_inherit_each_others_choice() -> None:
    """Decoding that runs the prompt again for each token goes on with its own prompt."""
    model = FACTORIES["llava-onevision"]()
    prompts = [make_inputs(model, [prompt]) for prompt in EIGHT]
    with prune_visual_tokens(model, budget=0.3, layer=1):
        expected = [greedy(model, inputs) for inputs in prompts]

    with prune_visual_tokens(model, budget=0.3, layer=1):
        answers = at_once([rounds(model, inputs, use_cache=False) for inputs in prompts])

    for mine, true in zip(answers, expected, strict=True):
        assert all(torch.equal(ids, true) for ids in mine)


def test_a_thread_that_fails_does_not_disturb_the_others() -> None:
    """An exception in one thread's selector leaves the answers of the others right."""
    model = FACTORIES["llava-onevision"]()
    prompts = [make_inputs(model, [prompt]) for prompt in EIGHT]
    unlucky = make_inputs(model, [(2, Image(16, 16), 3)])
    count = int((unlucky["input_ids"] == model.config.image_token_id).sum())

    def sometimes(view: LayerView) -> Tensor:
        if len(view.visual) == count and len(view.text) == 5:
            msg = "stop here"
            raise RuntimeError(msg)
        return scattered(view)

    def fails() -> list[Tensor]:
        for _ in range(ROUNDS):
            with pytest.raises(RuntimeError, match="stop here"):
                greedy(model, unlucky)
        return []

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        expected = [greedy(model, inputs) for inputs in prompts]
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=sometimes):
        answers = at_once([*(rounds(model, inputs) for inputs in prompts), fails])

    for mine, true in zip(answers, expected, strict=False):
        assert all(torch.equal(ids, true) for ids in mine)


@pytest.mark.parametrize("shares", ["nothing", "the configuration", "the weights"])
@pytest.mark.parametrize("family", BOTH)
def test_one_thread_captures_while_others_decode_unpruned(family: str, shares: str) -> None:
    """Reading queries, keys and values changes nothing for models without a session, whatever they share."""
    model = FACTORIES[family]()
    other = FACTORIES[family]()
    if shares != "nothing":
        other = type(model)(model.config)
        other.load_state_dict(model.state_dict())
        other.generation_config = model.generation_config
    if shares == "the weights":
        other.lm_head = model.lm_head
        for mine, theirs in zip(model.model.language_model.layers, other.model.language_model.layers, strict=True):
            theirs.mlp = mine.mlp
    other = other.train(False)
    prompts = [make_inputs(model, [prompt]) for prompt in EIGHT[:4]]
    unpruned = [greedy(other, inputs) for inputs in prompts]

    def looks(view: LayerView) -> Tensor:
        for rows in (view.visual, view.text):
            for name in ("queries", "keys", "rotated_queries", "rotated_keys", "values"):
                assert torch.isfinite(getattr(rows, name)).all()
        return scattered(view)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        pruned = greedy(model, prompts[0])
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=looks):
        captured, *answers = at_once([
            rounds(model, prompts[0]),
            *(rounds(other, inputs) for inputs in prompts),
        ])

    assert all(torch.equal(ids, pruned) for ids in captured)
    for mine, true in zip(answers, unpruned, strict=True):
        assert all(torch.equal(ids, true) for ids in mine)


@pytest.mark.parametrize("family", BOTH)
def test_capturing_writes_nothing_that_another_thread_could_see(family: str) -> None:
    """While keys are projected for a selector, configurations, functions and modules are those of before."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [EIGHT[0]])
    text = model.model.language_model
    attention: Any = text.layers[1].self_attn
    home = sys.modules[type(attention).__module__]
    registered = dict(ALL_ATTENTION_FUNCTIONS.items())

    def visible() -> dict[str, Any]:
        modules = {
            name: (id(part), type(part), part.training, sorted(vars(part))) for name, part in text.named_modules()
        }
        return {
            "configurations": [part.to_dict() for part in (model.config, text.config, attention.config)],
            "implementations": [part._attn_implementation for part in (model.config, text.config, attention.config)],
            "functions": {name: ALL_ATTENTION_FUNCTIONS.get(name) for name in registered},
            "module": {name: part for name, part in vars(home).items() if callable(part)},
            "forwards": (attention.forward.__func__, type(attention).forward),
            "parts": modules,
        }

    seen = []
    handle = attention.k_proj.register_forward_hook(lambda *_: seen.append(visible()))
    before = visible()

    def look(view: LayerView) -> Tensor:
        seen.clear()
        assert view.visual.rotated_keys.shape == view.visual.keys.shape
        assert view.visual.rotated_queries.shape == view.visual.queries.shape
        assert seen, "keys are read without running the layer's own projection: this test sees nothing"
        during.extend(seen)
        return scattered(view)

    during: list[dict[str, Any]] = []
    try:
        with prune_visual_tokens(model, budget=0.3, layer=1, selector=look):
            logits_of(model, inputs)
    finally:
        handle.remove()

    for state in during:
        for part, value in before.items():
            assert state[part] == value, part


def test_decoding_and_prefilling_threads_share_a_session() -> None:
    """Steps on one cache between the prefills of others are as exact as alone."""
    model = FACTORIES["llava-onevision"]()
    mine, others = make_inputs(model, [EIGHT[0]]), make_inputs(model, [EIGHT[3]])
    tokens = torch.tensor([[21, 22, 23, 24, 25, 26]])

    def steps() -> Tensor:
        with torch.no_grad():
            cache = model(**mine, use_cache=True).past_key_values
            return torch.cat([
                model(input_ids=tokens[:, step : step + 1], **{CACHE: cache}).logits for step in range(6)
            ])

    def prefills() -> Tensor:
        return torch.cat([logits_of(model, others) for _ in range(6)])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        expected = [steps(), prefills()]
        answers = at_once([steps, prefills, steps, prefills])

    for answer, true in zip(answers, expected * 2, strict=True):
        assert_close(answer, true, tolerance=1e-5)
