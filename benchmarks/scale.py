"""How ten million images would run on GPUs within a day, by what was measured: the tables of `docs/scale.md`.

`--measure` times on this machine what the CPU does for an image, and writes `results/scale_cpu.json`. Without it, the
tables are computed from that file and from `results/cuda.json`, and printed.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
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
    for line in tables():
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
    cuda, cpu = (json.loads((RESULTS / name).read_text(encoding="utf-8")) for name in ("cuda.json", "scale_cpu.json"))
    rows = [
        (model, budget) for model in cuda["models"] for budget in BUDGETS if "prefill seconds" in model.get(budget, {})
    ]
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
    yield from _flows(*min(rows, key=lambda row: answered(of_image(*row), 1)), cpu)


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
