"""How ten million images would run on GPUs within a day, by what was measured: figures and tables of `docs/scale.md`.

`--measure` times on this machine what the CPU does for an image, and writes `results/scale_cpu.json`. Without it, the
tables are computed from that file and from `results/cuda.json`, and printed.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from _harness import RESULTS, header
from PIL import Image
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from iwp_transformers.media.images import read_image_bytes

IMAGES = 10_000_000
DAY = 86_400
# What the page assumes, and measures nothing of: the network of a node, 25 Gbit/s.
NETWORK = 25e9 / 8
BUDGETS = ("full", "22.2%", "11.1%")
LAYERS = 28
SIDE = 1024


def main() -> None:
    """Measure, or print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="time this machine's CPU first (needs Ray's pyarrow)")
    if parser.parse_args().measure:
        (RESULTS / "scale_cpu.json").write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
    for line in (*tables(), "", *said()):
        print(line)


def measured() -> dict[str, Any]:
    """Time reading a photograph-like JPEG, and writing answers; seconds of one CPU thread, medians."""
    content = jpeg()
    image, processor = read_image_bytes(content, Path("a.jpg")), LlavaOnevisionImageProcessorPil()
    reading = seconds(lambda: read_image_bytes(content, Path("a.jpg")))
    encoding = seconds(lambda: processor(image, return_tensors="pt"))
    return {
        **header("python benchmarks/scale.py --measure"),
        "jpeg": {"side": SIDE, "bytes": len(content), "seconds": reading, "encoding seconds": encoding},
        "answer": written_answers(rows=2000),
    }


def jpeg() -> bytes:
    """Return an image that is smooth, with a little noise, and so compresses about as a photograph does."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(smooth + rng.integers(-6, 7, smooth.shape, dtype=np.int16), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def written_answers(rows: int) -> dict[str, float]:
    """Write answers with 1,618 of 7,290 visual tokens kept; for each, its bytes and the seconds of the process."""
    import pyarrow as pa  # noqa: PLC0415 - of the extra `ray`, which the tables do not need

    from iwp_ray.answers import answer_table  # noqa: PLC0415 - imports pyarrow
    from iwp_ray.parts import AnswerFolder  # noqa: PLC0415 - imports pyarrow

    answer = {
        "answer": "word " * 32,
        "visual_tokens": 7290,
        "tokens_by_layer": [7354] * 4 + [1682] * (LAYERS - 4),
        "batch_rows": 8,
        **{f"{stage}_seconds": 0.1 for stage in ("read", "encode", "first_token", "decode", "selection")},
    }
    everything = np.tile(np.arange(7290), (rows, 1))
    kept = np.sort(np.random.default_rng(0).permuted(everything, axis=1)[:, :1618], axis=1)
    answers = [{**answer, "kept_indices": row.tolist()} for row in kept]
    table = answer_table(pa.chunked_array([list(range(rows))]), answers)
    with tempfile.TemporaryDirectory() as place:
        folder = AnswerFolder(Path(place) / "answers", {})
        with folder.opened():
            began = process_time()
            folder.add(folder.without_known(table))
            writing = process_time() - began
        size = sum(file.stat().st_size for file in Path(place).rglob("*.parquet"))
    return {"kept": 1618, "bytes": size / rows, "bytes in memory": table.nbytes / rows, "seconds": writing / rows}


def seconds(work: Callable[[], object], repeats: int = 15) -> float:
    """Return the median time of some work on one thread, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = process_time()
        work()
        times.append(process_time() - began)
    return median(times[1:])


def tables() -> Iterator[str]:
    """Return the page's tables, line by line."""
    rows = _rows()
    yield "| model | visual tokens | rows | kept | tower | prompt | choosing | a later token | GPUs, 1 | GPUs, 32 |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for model, budget in rows:
        times = of_image(model, budget)
        stages = (f"{1000 * times[stage]:.1f} ms" for stage in ("tower", "prompt", "choosing", "token"))
        gpus = (f"{IMAGES * answered(times, tokens) / DAY:.1f}" for tokens in (1, 32))
        kept = "all" if budget == "full" else budget
        cells = (model["model"], f"{model['tokens']:,}", str(model["batch"]), kept, *stages, *gpus)
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from _flows(*_fastest(rows), _result("scale_cpu"))


def said() -> Iterator[str]:
    """Return what the page's text says in numbers."""
    times = {(run["model"], run["tokens"], run["batch"], budget): of_image(run, budget) for run, budget in _rows()}
    gpus = {
        (*row, tokens): f"{IMAGES * answered(time, tokens) / DAY:.1f}"
        for row, time in times.items()
        for tokens in (1, 32)
    }
    one, other = (("LLaVA-OneVision-7B", 7290), ("Qwen2.5-VL-7B", 7290))
    yield (
        f"{gpus[*one, 1, 'full', 1]} GPUs become {gpus[*one, 1, '22.2%', 1]} with 22.2 % kept, "
        f"and {gpus[*one, 1, '11.1%', 1]} with 11.1 %"
    )
    whole = times[*other, 1, "full"]
    yield f"takes {1000 * whole['tower']:.0f} ms of {1000 * answered(whole, 1):.0f} ms at 7,290 tokens"
    yield f"makes {gpus[*other, 1, 'full', 1]} GPUs {gpus[*other, 1, '11.1%', 1]}"
    yield f"all tokens: {gpus[*one, 1, 'full', 32]} GPUs become {gpus[*one, 8, 'full', 32]}"
    ratios = sorted(each["ways"]["eager"]["pruned_over_full"] for each in _result("decode_cuda")["prompts"])
    yield f"at {ratios[0]:.2f} to {ratios[-1]:.2f} of the unpruned time a token, eager"
    hours = [IMAGES * answered(times[*one, 1, budget], 1) / 3600 for budget in BUDGETS]
    yield (
        f"takes {hours[0]:.0f} hours of a GPU with all tokens, {hours[1]:.0f} with 22.2 %, "
        f"and {hours[2]:.0f} with 11.1 %"
    )
    cpu, rate = _result("scale_cpu"), 1 / answered(of_image(*_fastest(_rows())), 1)
    slowest = max(answered(time, 1) for time in times.values())
    yield f"{rate:.1f} in the fastest row and {1 / slowest:.1f} in the slowest"
    encoding = cpu["jpeg"]["encoding seconds"]
    yield f"takes a thread {1000 * encoding:.0f} ms for a picture of one megapixel"
    yield f"wants {rate:.1f} pictures a second, which are {math.ceil(rate * encoding)} threads"
    yield f"enough for about {round(1 / (rate * cpu['answer']['seconds']), -2):.0f} such GPUs"
    flow = rate * cpu["jpeg"]["bytes"]
    yield f"a node is enough for {NETWORK / flow:,.0f} such GPUs"
    yield f"store of pictures is {flow / 1e6:.1f} MB a second for each GPU"


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _rows() -> list[tuple[Mapping[str, Any], str]]:
    """Return what was measured on a GPU: models, each with its budgets."""
    models = _result("cuda")["models"]
    return [(model, budget) for model in models for budget in BUDGETS if "prefill seconds" in model.get(budget, {})]


def _fastest(rows: Sequence[tuple[Mapping[str, Any], str]]) -> tuple[Mapping[str, Any], str]:
    """Return the row of most images a second, for answers of one token."""
    return min(rows, key=lambda row: answered(of_image(*row), 1))


def of_image(model: Mapping[str, Any], budget: str) -> dict[str, float]:
    """Return the seconds of a GPU that one image takes, by stage; "choosing" is part of "prompt"."""
    run, batch = model[budget], model["batch"]
    return {
        "tower": model["tower seconds a picture"],
        "prompt": run["prefill seconds"]["median"] / batch,
        "choosing": run.get("selection seconds", {}).get("median", 0.0) / batch,
        "token": 1 / run["decoded tokens a second"],
    }


def answered(times: Mapping[str, float], tokens: int) -> float:
    """Return the seconds of an image whose answer has so many tokens, the first of which comes with the prompt."""
    return times["tower"] + times["prompt"] + (tokens - 1) * times["token"]


def _flows(model: Mapping[str, Any], budget: str, cpu: Mapping[str, Any]) -> Iterator[str]:
    """Return what flows beside a GPU in the row of most images a second, and for how many GPUs one of it is enough."""
    rate = 1 / answered(of_image(model, budget), 1)
    jpeg, answer = cpu["jpeg"], cpu["answer"]
    yield f"{model['model']}, {model['tokens']:,} visual tokens, {budget} kept, answers of 1 token:"
    yield f"{rate:.1f} images a second and GPU."
    yield ""
    yield "| what | for an image | for a GPU and second | one is enough for |"
    yield "|---|---|---|---|"
    for name, size in (
        ("JPEG over the network", jpeg["bytes"]),
        ("answer over the network", answer["bytes in memory"]),
    ):
        flow = size * rate
        yield f"| {name} | {size / 1e3:.1f} kB | {flow / 1e6:.3f} MB | {NETWORK / flow:,.0f} GPUs |"
    threads = {
        "decoding the JPEG, a thread": jpeg["seconds"],
        "resizing and cutting it, a thread": jpeg["encoding seconds"],
        "writing the answer, the one process": answer["seconds"],
    }
    for name, time in threads.items():
        flow = time * rate
        yield f"| {name} | {1000 * time:.2f} ms | {1000 * flow:.2f} ms | {1 / flow:,.1f} GPUs |"
    weights = 2 * model["parameters"]
    yield ""
    yield (
        f"All answers on disk: {IMAGES * answer['bytes'] / 1e9:.0f} GB. Weights, once for each process: "
        f"{weights / 1e9:.1f} GB, {weights / NETWORK:.0f} s over the network."
    )


if __name__ == "__main__":
    main()
