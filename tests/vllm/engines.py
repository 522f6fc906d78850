"""Engines of vLLM in this process, and what they kept."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm import LLM, SamplingParams

from iwp_vllm.options import Options
from iwp_vllm.rules import RULES, Rule
from iwp_vllm.seen import Seen
from tests.vllm.miniatures import Trained

QUESTION = {"budget": 0.222, "layer": 2}
"""Chosen by the question at layer 2."""


@dataclass
class Engine:
    """A running engine and the choices that its rule made since they were cleared."""

    llm: Any
    trained: Trained
    kept: list[torch.Tensor] = field(default_factory=list)

    def outputs(self, requests: Any, *, tokens: int = 2, **sampling: Any) -> list[Any]:
        """Return vLLM's outputs for one request or several at once."""
        listed = requests if isinstance(requests, list) else [requests]
        greedy = SamplingParams(temperature=0.0, max_tokens=tokens, **sampling)
        return list(self.llm.generate(listed, greedy, use_tqdm=False))

    def ask(self, requests: Any, **sampling: Any) -> list[list[int]]:
        """Return the token ids of each answer."""
        return [list(each.outputs[0].token_ids) for each in self.outputs(requests, **sampling)]

    def use(self, iwp: dict[str, Any]) -> None:
        """Choose by another rule, as if the engine had been started with it."""
        for config in (self.llm.model_config.hf_config, self.model.config):
            config.iwp = iwp
        self.model.iwp_rule = Options.of_engine(iwp).rule
        self.record(type(self.model.iwp_rule))

    def record(self, rule: type[Rule]) -> None:
        """Note what a rule keeps from now on."""
        original = getattr(rule.__call__, "original", rule.__call__)

        def recording(self_: Rule, seen: Seen, count: int) -> torch.Tensor:
            kept = original(self_, seen, count)
            self.kept.append(kept)
            return kept

        recording.original = original  # type: ignore[attr-defined]
        rule.__call__ = recording  # type: ignore[method-assign]

    def forget(self) -> None:
        """Empty all caches, so that everything is chosen anew, and what is recorded."""
        self.llm.reset_prefix_cache()
        self.llm.llm_engine.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()
        self.kept.clear()

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
        "block_size": 32,  # of the KV cache: shorter than the prompts, so that the prefix cache has something to find
        "limit_mm_per_prompt": {"image": 2, "video": 1},
        "seed": 0,
    } | options
    overrides = {} if iwp is None else {"hf_overrides": {"iwp": iwp}}
    return Engine(LLM(str(trained.folder), **overrides, **settings), trained)


def stop(engine: Engine) -> None:
    """End an engine, so that another one can start in this process."""
    for rule in RULES.values():
        rule.__call__ = getattr(rule.__call__, "original", rule.__call__)  # type: ignore[method-assign]
    engine.llm.llm_engine.engine_core.shutdown()
    del engine.llm
    gc.collect()
