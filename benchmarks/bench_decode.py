"""Check that a decoded token costs no more with pruning than without: eager and compiled, over long prompts.

Times single steps of a random 28-layer Qwen2.5-VL on caches that hold a prompt of 1,600 and of 6,400 visual tokens.
All ways of decoding take turns within one run. Run: ``python benchmarks/bench_decode.py``.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from _harness import RESULTS, header, write
from bench_prefill import build_inputs, build_model, seconds_of
from matplotlib.figure import Figure
from transformers import DynamicCache, StaticCache

from iwp_transformers import prune_visual_tokens
from iwp_transformers.versions import CACHE_ARGUMENT

WAYS = ("eager", "compiled")
PROMPTS = ("full", "pruned")
HEADROOM = 64
"""Tokens that a static cache has room for behind the prompt and all steps."""


@dataclass
class Decoder:
    """One way of decoding behind one prompt: call it for the next token."""

    step: Callable[..., Any]
    cache: Any
    length: int
    offset: torch.Tensor

    def __call__(self) -> None:
        """Decode a token; which one does not matter to the clock."""
        token = torch.full((1, 1), 7, device=self.offset.device)
        position = (self.offset + self.length).expand(3, 1, 1)
        self.length += 1
        self.step(
            input_ids=token, position_ids=position, **{CACHE_ARGUMENT: self.cache}, use_cache=True, logits_to_keep=1
        )


def decoder(model: Any, inputs: dict[str, Any], way: str, options: argparse.Namespace) -> Decoder:
    """Return a decoder whose cache holds the prompt."""
    length = inputs["input_ids"].shape[1]
    text = model.config.get_text_config()
    room = length + options.repeats * options.tokens + HEADROOM
    cache = DynamicCache(config=text) if way == "eager" else StaticCache(config=text, max_cache_len=room)
    model(**inputs, **{CACHE_ARGUMENT: cache}, use_cache=True, logits_to_keep=1)
    step = model if way == "eager" else torch.compile(model, backend=options.backend, dynamic=False)
    return Decoder(step, cache, length, model.model.rope_deltas.clone())


@contextmanager
def decoders(options: argparse.Namespace, inputs: dict[str, Any]) -> Iterator[dict[tuple[str, str], Decoder]]:
    """Give all four decoders, each on a model of its own with the same weights, so that compiled code stays apart."""
    dtype = getattr(torch, options.dtype)
    found = {}
    with ExitStack() as sessions:
        for prompt in PROMPTS:
            for way in WAYS:
                model = build_model(options.layers, options.hidden, options.intermediate, options.device, dtype)
                if prompt == "pruned":
                    sessions.enter_context(prune_visual_tokens(model, budget=options.budget, layer=options.layer))
                found[way, prompt] = decoder(model, inputs, way, options)
        yield found


def measure(side: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds a token behind one prompt, all ways in turns so that they meet the same machine."""
    inputs = build_inputs(side, options.text, options.device, getattr(torch, options.dtype))
    times: dict[tuple[str, str], list[float]] = {(way, prompt): [] for way in WAYS for prompt in PROMPTS}
    with decoders(options, inputs) as running:
        for turn in range(options.repeats + 1):
            for key, decode in running.items():
                taken = seconds_of(lambda decode=decode: [decode() for _ in range(options.tokens)], options.device)
                # The first turn warms up, and compiles.
                if turn:
                    times[key].append(1000 * taken / options.tokens)
    return {
        "visual_tokens": side**2,
        "ways": {way: figures({prompt: times[way, prompt] for prompt in PROMPTS}) for way in WAYS},
    }


def figures(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return all times, their medians, and the ratio of the medians."""
    medians = {prompt: statistics.median(taken) for prompt, taken in times.items()}
    return {
        "milliseconds_a_token": times,
        "median_milliseconds": medians,
        "pruned_over_full": medians["pruned"] / medians["full"],
    }


def decode_figure(cases: list[dict[str, Any]]) -> Figure:
    """Draw milliseconds a token, a panel for each way, with the quartiles of all repeats."""
    figure = Figure(figsize=(5 * len(WAYS), 4), layout="constrained")
    for axes, way in zip(figure.subplots(1, len(WAYS), sharey=True), WAYS, strict=True):
        for place, prompt in enumerate(PROMPTS):
            taken = [case["ways"][way]["milliseconds_a_token"][prompt] for case in cases]
            medians = [statistics.median(part) for part in taken]
            quartiles = [statistics.quantiles(part, n=4) if len(part) > 1 else [part[0]] * 3 for part in taken]
            errors = [
                [median - low for median, (low, _, _) in zip(medians, quartiles, strict=True)],
                [high - median for median, (_, _, high) in zip(medians, quartiles, strict=True)],
            ]
            columns = [index + 0.4 * place for index in range(len(cases))]
            axes.bar(columns, medians, width=0.36, yerr=errors, capsize=3, label=prompt)
        axes.set_title(way)
        axes.set_xticks([index + 0.2 for index in range(len(cases))], [f"{case['visual_tokens']:,}" for case in cases])
        axes.set_xlabel("visual tokens of the prompt")
        axes.grid(visible=True, axis="y", alpha=0.2)
        axes.legend()
    figure.axes[0].set_ylabel("milliseconds a token")
    return figure


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--intermediate", type=int, default=4864)
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[40, 80], help="image tokens along a side, a prompt each"
    )
    parser.add_argument("--text", type=int, default=46)
    parser.add_argument("--budget", type=float, default=0.111)
    parser.add_argument("--layer", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4, help="tokens decoded in each repeat")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--name", help="of the result files, by default decode_DEVICE")
    return parser.parse_args()


def main() -> None:
    """Measure, write the result file and its picture, and say what came out."""
    options = arguments()
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        cases = [measure(side, options) for side in options.sides]
    conditions = {"settings": vars(options), "torch_threads": torch.get_num_threads()}
    if options.device == "cuda":
        conditions["gpu"] = torch.cuda.get_device_name()
    name = options.name or f"decode_{options.device}"
    write(name, {**header("python benchmarks/bench_decode.py", **conditions), "prompts": cases})
    decode_figure(cases).savefig(RESULTS / f"{name}.png", dpi=150)
    for case in cases:
        for way, found in case["ways"].items():
            medians = found["median_milliseconds"]
            print(
                f"{case['visual_tokens']:,} visual tokens, {way}: {medians['full']:.2f} ms a token full,"
                f" {medians['pruned']:.2f} pruned, ratio {found['pruned_over_full']:.3f}"
            )


if __name__ == "__main__":
    main()
