"""Answers do not depend on caches, on what shares the batch, on chunks, on preemption or on another process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

BUDGETS = (0.222, 1.0, 17, 0.5)
TOKENS = 20


@pytest.fixture
def mixed(trained: Any) -> list[dict[str, Any]]:
    """Return requests of different budgets."""
    return [
        trained.request(example, iwp_budget=BUDGETS[index % len(BUDGETS)])
        for index, example in enumerate(trained.examples)
    ]


@pytest.fixture(scope="module")
def alone(trained: Any, engine: Any) -> list[list[int]]:
    """Return the answers to these requests, asked one by one."""
    from tests.vllm.engines import QUESTION

    engine.use(QUESTION)
    requests = [
        trained.request(example, iwp_budget=BUDGETS[index % len(BUDGETS)])
        for index, example in enumerate(trained.examples)
    ]
    return [engine.ask(request, tokens=TOKENS, ignore_eos=True)[0] for request in requests]


def test_mixed_budgets_in_one_batch_are_answered_as_alone(
    engine: Any, mixed: list[dict[str, Any]], alone: list[list[int]]
) -> None:
    """Whole images beside pruned ones, several counts."""
    engine.llm.reset_prefix_cache()

    assert engine.ask(mixed, tokens=TOKENS, ignore_eos=True) == alone


def test_the_prefix_cache_gives_the_same_answers(
    engine: Any, mixed: list[dict[str, Any]], alone: list[list[int]]
) -> None:
    """Asked again, blocks of the prompt are found; nothing is chosen again."""
    engine.ask(mixed)
    engine.kept.clear()

    outputs = engine.outputs(mixed, tokens=TOKENS, ignore_eos=True)

    assert [list(each.outputs[0].token_ids) for each in outputs] == alone
    assert engine.kept == []


def test_a_prefix_is_not_shared_by_other_budgets_or_questions(trained: Any, engine: Any) -> None:
    """Of one image, each budget and each question has blocks of its own; the same request finds them."""
    image = trained.examples[0].scene.image
    cached = []
    for question in (trained.examples[0].question.text, trained.examples[1].question.text):
        for budget in (60, 61):
            request = {"prompt": trained.prompt(question), "multi_modal_data": {"image": image}}
            request["mm_processor_kwargs"] = {"iwp_budget": budget}
            first = engine.outputs(request)[0].num_cached_tokens
            cached.append((first, engine.outputs(request)[0].num_cached_tokens > 0))

    assert cached == [(0, True)] * 4


@pytest.fixture(scope="module")
def tight(trained: Any, alone: list[list[int]]) -> Iterator[Any]:
    """Start an engine whose prompts come in chunks of 24 tokens and whose cache holds few of them."""
    from tests.vllm.engines import QUESTION, start, stop

    del alone  # of the other engine, which answers first
    running = start(
        trained,
        QUESTION,
        max_num_batched_tokens=24,
        max_model_len=256,
        num_gpu_blocks_override=10,
        limit_mm_per_prompt={"image": 1, "video": 0},
    )
    yield running
    stop(running)


def test_chunks_and_preemption_give_the_same_answers(
    tight: Any, mixed: list[dict[str, Any]], alone: list[list[int]]
) -> None:
    """Images are cut by chunks, and requests are thrown out of the cache and computed anew."""
    scheduler = tight.llm.llm_engine.engine_core.engine_core.scheduler
    preempted = []
    original = scheduler._preempt_request

    def noting(request: Any, *rest: Any, **named: Any) -> Any:
        preempted.append(request.request_id)
        return original(request, *rest, **named)

    # vLLM holds back whole images of LLaVA-OneVision: its cache of so small chunks is smaller than they are.
    pruned = [index for index in range(len(mixed)) if BUDGETS[index % len(BUDGETS)] != 1.0]
    with patch.object(scheduler, "_preempt_request", noting):
        answers = tight.ask([mixed[index] for index in pruned], tokens=TOKENS, ignore_eos=True)

    assert scheduler.max_num_scheduled_tokens == 24
    assert preempted
    assert answers == [alone[index] for index in pruned]
