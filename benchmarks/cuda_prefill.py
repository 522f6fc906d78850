"""Prefill and decoding of whole models, full and pruned, against what the operations allow."""

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from cuda_clock import Allowance, Clock, reason, spread
from cuda_models import PUBLISHED, Shape, build, encode, feed, inputs

from iwp_transformers import prune_visual_tokens
from iwp_transformers.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Models, visual tokens (N), batches, budgets; what is decoded; how long a fast setting is timed."""

    shapes: tuple[Shape, ...] = PUBLISHED
    tokens: tuple[int, ...] = (7290, 2880, 1024)
    batches: tuple[int, ...] = (1, 8)
    budgets: tuple[float, ...] = (0.111, 0.222, 0.353)
    text: int = 64
    layer: int = 4
    decoded: int = 32
    dtype: str = "bfloat16"
    enough: float = 0.5


@contextmanager
def decoder_watches(model: Any, device: torch.device) -> Iterator[list[Stopwatch]]:
    """Time every forward of the language model, what pruning adds around it included."""
    watches: list[Stopwatch] = []

    def begin(*_arguments: object) -> None:
        watches.append(Stopwatch(device))
        watches[-1].__enter__()  # the block to time ends in another hook

    def end(*_arguments: object) -> None:
        watches[-1].__exit__(None, None, None)

    # First of all hooks before the forward, last after it: those of the pruning session count too.
    text = model.model.language_model
    handles = (text.register_forward_pre_hook(begin, prepend=True), text.register_forward_hook(end))
    try:
        yield watches
    finally:
        for handle in handles:
            handle.remove()


class Setting:
    """One model, batch and picture: measures prefill and decoding with one budget or with all tokens."""

    def __init__(self, model: Any, prompt: dict[str, Any], plan: Plan, clock: Clock) -> None:
        self._model, self._prompt, self._plan, self._clock = model, prompt, plan, clock

    def measure(self, budget: float | None) -> dict[str, Any]:
        """Return seconds of whole forwards, of the decoder alone and of selecting, tokens a second, and peak bytes."""
        model, plan, clock = self._model, self._plan, self._clock
        pruning = nullcontext() if budget is None else prune_visual_tokens(model, budget=budget, layer=plan.layer)
        summaries: list[Any] = []
        with pruning as session, decoder_watches(model, clock.device) as watches, torch.no_grad():

            def prefill() -> None:
                model(**self._prompt, logits_to_keep=1, use_cache=True)

            prefill()
            held = clock.allocated_bytes()
            extra = clock.extra_bytes(prefill)

            def recorded() -> None:
                prefill()
                if session is not None:
                    summaries.append(session.records[-1])

            watches.clear()
            whole = clock.repeated(recorded, plan.enough)
            decoder = spread([watch.seconds for watch in watches])
            tokens_a_second = self._decoded_a_second()
        found = {
            "prefill seconds": whole,
            "decoder seconds": decoder,
            "decoded tokens a second": tokens_a_second,
            "peak bytes": held + extra,
            "peak bytes beyond weights": extra,
        }
        if summaries:
            summary = summaries[-1].summary()
            found |= {
                "selection seconds": spread([sum(watch.seconds for watch in record.watches) for record in summaries]),
                "kept tokens": summary.kept_tokens // len(self._prompt["input_ids"]),
                "flops full": summary.flops_full,
                "flops pruned": summary.flops_pruned,
                "cache bytes full": summary.kv_bytes_full,
                "cache bytes pruned": summary.kv_bytes_pruned,
            }
        return found

    def _decoded_a_second(self) -> float:
        """Return the tokens that a whole batch decodes in a second after its prefill."""

        def generate(count: int) -> Callable[[], object]:
            return lambda: self._model.generate(**self._prompt, max_new_tokens=count, do_sample=False)

        batch, steps = len(self._prompt["input_ids"]), self._plan.decoded
        generate(2)()
        long, short = (
            statistics.median(self._clock.seconds(generate(1 + count)) for _ in range(2)) for count in (steps, 0)
        )
        return batch * steps / max(long - short, 1e-9)


def compare(full: dict[str, Any], pruned: dict[str, Any]) -> dict[str, float | None]:
    """Return what a pruned setting gains on the full one, and how that stands to the operations saved.

    None where a number is not known: operations that cannot be counted, and memory if the full setting took no more
    than its process held, as may be on a CPU.
    """

    def median(found: dict[str, Any], name: str) -> float:
        seconds: float = found[f"{name} seconds"]["median"]
        return seconds

    allowed = _ratio(pruned["flops full"], pruned["flops pruned"])
    gained = _ratio(median(full, "decoder"), median(pruned, "decoder"))
    return {
        "speed-up that the operations allow": allowed,
        "speed-up of the decoder": gained,
        "speed-up over what is allowed": _ratio(gained, allowed),
        "speed-up of the forward without tower": _ratio(median(full, "prefill"), median(pruned, "prefill")),
        "selection over full prefill": _ratio(median(pruned, "selection"), median(full, "prefill")),
        "decoding speed-up": _ratio(pruned["decoded tokens a second"], full["decoded tokens a second"]),
        "peak bytes of full": _ratio(pruned["peak bytes"], full["peak bytes"]),
    }


def _ratio(number: float | None, other: float | None) -> float | None:
    """Return how often a number holds another; None where one is not known, or the other is nothing."""
    return None if number is None or not other else number / other


def _measure_setting(setting: Setting, plan: Plan, allowance: Allowance) -> dict[str, Any]:
    """Measure one picture and batch with all budgets; each says for itself what went wrong or what time forbade."""
    found: dict[str, Any] = {}
    for budget in (None, *plan.budgets):
        name = "full" if budget is None else f"{budget:.1%}"
        if allowance.left < 0:
            found[name] = {"not run": "time"}
            continue
        try:
            found[name] = setting.measure(budget)
            if budget is not None and "peak bytes" in found["full"]:
                found[name]["against full"] = compare(found["full"], found[name])
        except Exception as error:  # one broken case is a result
            found[name] = {**found.get(name, {}), "failed": reason(error)}
    return found


def _measure_model(shape: Shape, plan: Plan, clock: Clock, allowance: Allowance) -> Iterator[dict[str, Any]]:
    model = build(shape, clock.device, getattr(torch, plan.dtype))
    clock.settle()
    about = {"model": shape.family, "parameters": sum(part.numel() for part in model.parameters())}
    for batch in plan.batches:
        for tokens in plan.tokens:
            entry = {**about, "tokens": tokens, "text": plan.text, "batch": batch}
            if allowance.left < 0:
                yield {**entry, "not run": "time"}
                continue
            model.model.__dict__.pop("get_image_features", None)
            encode(model, shape, tokens)  # warms up
            with Stopwatch(clock.device) as tower:
                features = encode(model, shape, tokens)
            feed(model, features, batch)
            setting = Setting(model, inputs(model, shape, tokens, plan.text, batch), plan, clock)
            entry["tower seconds a picture"] = tower.seconds
            entry |= _measure_setting(setting, plan, allowance)
            yield entry


def run(
    plan: Plan, clock: Clock, seed: int, allowance: Allowance, show: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """Measure every model at every batch and size that time allows; `show` sees the list after each."""
    torch.manual_seed(seed)
    entries: list[dict[str, Any]] = []
    for index, shape in enumerate(plan.shapes):
        mine = allowance.part(1 / (len(plan.shapes) - index))
        try:
            for entry in _measure_model(shape, plan, clock, mine):
                entries.append(entry)
                show(entries)
        except Exception as error:  # the other model may still run
            entries.append({"model": shape.family, "failed": reason(error)})
        gc.collect()  # a model that is fed refers to itself
        clock.settle(release=True)
    return entries
