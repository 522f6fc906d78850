"""Check that pruning saves the prefill time that the operations promise.

Times the prefill of a random 28-layer Qwen2.5-VL, with and without pruning in turns, and compares the ratio of the
medians with the share of operations that the record predicts. Run: ``python benchmarks/bench_prefill.py``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from _harness import header, write

from iwp_transformers import prune_visual_tokens

IMAGE_ID = 500
MERGED = 2


def build_model(layers: int, hidden: int, intermediate: int, device: str, dtype: torch.dtype) -> Any:
    """Return a random model with the text shape of the 0.5B member of its line, and next to no vision tower."""
    heads = hidden // 64
    text = {
        "vocab_size": 512,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 1, "out_hidden_size": hidden}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**vision, "patch_size": 4, "fullatt_block_indexes": []},
        image_token_id=IMAGE_ID,
        video_token_id=501,
    )
    torch.manual_seed(0)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    return model.train(False).to(device, dtype)


def build_inputs(side: int, text: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return one prompt: some words, an image of side x side tokens, a question."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, IMAGE_ID, (1, text + side**2), generator=generator)
    ids[0, 14 : 14 + side**2] = IMAGE_ID
    patches = (side * MERGED) ** 2
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE_ID).int(),
        "image_grid_thw": torch.tensor([[1, side * MERGED, side * MERGED]]),
        "pixel_values": torch.randn(patches, 3 * 2 * 4**2, generator=generator).to(dtype),
    }
    return {name: part.to(device) for name, part in inputs.items()}


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Return the wall-clock seconds of one run, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(model: Any, inputs: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return times of full and pruned prefills, taken in turns so that both meet the same machine."""
    times: dict[str, list[float]] = {"full": [], "pruned": []}
    selecting: list[float] = []
    for turn in range(options.repeats + 1):
        for name, seconds in times.items():
            pruning = (
                prune_visual_tokens(model, budget=options.budget, layer=options.layer)
                if name == "pruned"
                else nullcontext()
            )
            with pruning as session, torch.no_grad():
                taken = seconds_of(lambda: model(**inputs, logits_to_keep=1, use_cache=True), options.device)
            # The first turn warms up.
            if turn:
                seconds.append(taken)
                if session is not None:
                    summary = session.records[-1].summary()
                    selecting.append(summary.selection_seconds)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    ratio = medians["pruned"] / medians["full"]
    return {
        "seconds": times,
        "median_seconds": medians,
        "median_selection_seconds": statistics.median(selecting),
        "visual_tokens": summary.visual_tokens,
        "kept_tokens": summary.kept_tokens,
        "flops_full": summary.flops_full,
        "flops_pruned": summary.flops_pruned,
        "kv_bytes_full": summary.kv_bytes_full,
        "kv_bytes_pruned": summary.kv_bytes_pruned,
        "time_share": ratio,
        "flops_share": summary.flops_share,
        "time_share_over_flops_share": ratio / summary.flops_share,
    }


def main() -> None:
    """Measure, write the result file, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--intermediate", type=int, default=4864)
    parser.add_argument("--side", type=int, default=40, help="image tokens along a side")
    parser.add_argument("--text", type=int, default=46)
    parser.add_argument("--budget", type=float, default=0.111)
    parser.add_argument("--layer", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    model = build_model(options.layers, options.hidden, options.intermediate, options.device, dtype)
    result = measure(model, build_inputs(options.side, options.text, options.device, dtype), options)
    conditions = {"settings": vars(options), "torch_threads": torch.get_num_threads()}
    if options.device == "cuda":
        conditions["gpu"] = torch.cuda.get_device_name()
    write(f"prefill_{options.device}", {**header("python benchmarks/bench_prefill.py", **conditions), **result})
    print(
        f"time {result['time_share']:.1%} of full, operations {result['flops_share']:.1%}:"
        f" ratio {result['time_share_over_flops_share']:.3f}"
    )


if __name__ == "__main__":
    main()
