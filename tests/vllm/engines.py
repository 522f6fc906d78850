"""Engines of vLLM in this process, and what they kept."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from vllm import LLM, SamplingParams

from iwp_vllm.rules import RULES
from tests.vllm.miniatures import Trained


@dataclass
class Engine:
    """A running engine and the choices that its rule made."""

    llm: Any
    trained: Trained
    kept: list[torch.Tensor] = field(default_factory=list)

    def ask(self, requests: Sequence[Any] | Any, *, tokens: int = 2) -> list[list[int]]:
        """Return the token ids of each answer."""
        listed = requests if isinstance(requests, list) else [requests]
        sampling = SamplingParams(temperature=0.0, max_tokens=tokens)
        return [list(each.outputs[0].token_ids) for each in self.llm.generate(listed, sampling, use_tqdm=False)]

    @property
    def model(self) -> Any:
        """The model in the worker."""
        return self.llm.llm_engine.model_executor.driver_worker.worker.model_runner.model


def start(trained: Trained, iwp: dict[str, Any] | None = None, **options: Any) -> Engine:
    """Start an engine; `iwp` is what ``hf_overrides`` asks for."""
    settings = {
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "dtype": "float32",
        "enforce_eager": True,
        "limit_mm_per_prompt": {"image": 2, "video": 1},
        "seed": 0,
    } | options
    overrides = {} if iwp is None else {"hf_overrides": {"iwp": iwp}}
    engine = Engine(LLM(str(trained.folder), **overrides, **settings), trained)
    for rule in RULES.values():
        _record(rule, engine)
    return engine


def _record(rule: Any, engine: Engine) -> None:
    original = rule.__call__ if not hasattr(rule.__call__, "of") else rule.__call__.of

    def recording(self: Any, seen: Any, count: int) -> torch.Tensor:
        kept = original(self, seen, count)
        engine.kept.append(kept)
        return kept

    recording.of = original
    rule.__call__ = recording


def stop(engine: Engine) -> None:
    """End an engine, so that another one can start in this process."""
    engine.llm.llm_engine.engine_core.shutdown()
    del engine.llm
    gc.collect()
