"""What every rank of the sharded tests runs: `torch.distributed.run --module tests.integrations.sharded_rank FOLDER`.

Reads the models, prompts and settings that the test wrote to the folder, and writes what each rank found to it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from iwp_transformers import prune_visual_tokens
from tests.integrations.test_exactness import scattered


def outcome(run: Callable[[], Any]) -> dict[str, Any]:
    """Return what a run gives, or which error it ended in."""
    try:
        return {"answer": run()}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


def pruned(called: Any, model: Any, inputs: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Return what a rank keeps and answers under one setting."""
    options = {**setting, "selector": scattered} if setting.get("selector") else setting
    with prune_visual_tokens(model, **options) as session, torch.no_grad():
        logits = called(**inputs).logits
        ids = None
        if hasattr(called, "generate"):
            ids = called.generate(**inputs, max_new_tokens=4, do_sample=False)
    records = [[kept.tolist() for kept in record.kept] for record in session.records]
    return {"kept": records, "logits": logits, "ids": ids}


def sharded(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Return the outcomes of all settings on a tensor-parallel model."""
    model = getattr(transformers, case["class"]).from_pretrained(folder / case["model"], tp_plan="auto").eval()
    inputs = case["inputs"]
    return {
        name: outcome(lambda s=setting: pruned(model, model, inputs, s)) for name, setting in case["settings"].items()
    }


def refused(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of the call alone."""
    model = getattr(transformers, case["class"]).from_pretrained(folder / case["model"], tp_plan="auto").eval()
    return {"call": outcome(lambda: prune_visual_tokens(model, budget=0.3, layer=1).close())}


def wrapped(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Return the outcomes of one setting on models in DDP and FSDP, and on what is inside of them."""
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.nn.parallel import DistributedDataParallel

    def load() -> Any:
        return getattr(transformers, case["class"]).from_pretrained(folder / case["model"]).eval()

    def by_layers(model: Any) -> Any:
        for layer in model.model.language_model.layers:
            fully_shard(layer)
        return fully_shard(model)

    wrappers: dict[str, Callable[[Any], Any]] = {
        "DDP": DistributedDataParallel,
        "FSDP": lambda model: FullyShardedDataParallel(model, device_id=torch.device("cpu")),
        "fully_shard": by_layers,
    }
    (setting,) = case["settings"].values()
    outcomes = {}
    for name, wrap in wrappers.items():
        model = load()
        outer = outcome(lambda model=model, wrap=wrap: wrap(model))
        if "error" in outer:
            outcomes[f"{name}, wrapping"] = outer
            continue
        whole = outer["answer"]
        outcomes[name] = outcome(lambda w=whole: pruned(w, w, case["inputs"], setting))
        outcomes[f"{name}, inside"] = outcome(lambda w=whole, m=model: pruned(w, m, case["inputs"], setting))
    return outcomes


KINDS = {"sharded": sharded, "refused": refused, "wrapped": wrapped}


def main(folder: Path) -> None:
    """Run every case, and write this rank's outcomes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    cases = torch.load(folder / "cases.pt", weights_only=False)
    outcomes = {name: KINDS[case["kind"]](folder, case) for name, case in cases.items()}
    torch.save(outcomes, folder / f"rank{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
