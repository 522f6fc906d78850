"""Models over two processes: every rank keeps the tokens, and gives the logits, of the model in one piece."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from iwp_core import MMR, PCMMR, TopK
from iwp_transformers.presets import PER_QUERY
from tests.integrations.oracle import assert_close
from tests.integrations.prompts import PAIR
from tests.integrations.sharded_rank import pruned
from tests.integrations.tiny_models import FACTORIES, make_inputs

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")

FEW = {"budget": 0.3, "layer": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "the paper's rule": FEW,
    "at layer 0": {**FEW, "layer": 0},
    "per query": {**FEW, **PER_QUERY},
    "top k": {**FEW, "strategy": TopK()},
    "greedy": {**FEW, "strategy": MMR(), "magnitude": "kernel"},
    "values": {**FEW, "strategy": PCMMR(exponent=1), "magnitude": "value_norm", "similarity": "value"},
    "hidden states": {**FEW, "magnitude": "raw_key_norm", "similarity": "hidden"},
    "softmax mean": {**FEW, "heads": "softmax_mean", "query": "last_text", "rope_in_duplication": False},
    "image queries": {**FEW, "query": "image", "magnitude": "gradient_norm", "similarity": "kernel_key"},
    "a selector": {**FEW, "selector": True},
}
HEADS = {"as many heads": 2, "more heads": 4}
FAMILIES = ["llava-onevision", "qwen2.5-vl"]
EVERYTHING = ("llava-onevision, as many heads", "qwen2.5-vl, more heads")
"""Cases that run under all settings; the others run under three."""


def settings_of(case: str) -> dict[str, Any]:
    """Return the settings that a case runs under."""
    return SETTINGS if case in EVERYTHING else {name: SETTINGS[name] for name in list(SETTINGS)[:3]}


SHARDED = [
    (case, setting) for case in (f"{family}, {heads}" for family in FAMILIES for heads in HEADS)
    for setting in settings_of(case)
]  # fmt: skip


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run all cases in two processes once, and return cases, models and what each rank found."""
    folder = tmp_path_factory.mktemp("sharded")
    cases, models = {}, {}
    for family in FAMILIES:
        for heads, count in {**HEADS, "fewer heads": 1}.items():
            name = f"{family}, {heads}"
            models[name] = FACTORIES[family](num_key_value_heads=count)
            models[name].save_pretrained(folder / name.replace(", ", "-").replace(" ", "_"))
            cases[name] = {
                "kind": "refused" if count == 1 else "sharded",
                "class": type(models[name]).__name__,
                "model": name.replace(", ", "-").replace(" ", "_"),
                "inputs": make_inputs(models[name], PAIR),
                "settings": settings_of(name),
            }
        cases[f"{family}, wrapped"] = {
            **cases[f"{family}, as many heads"],
            "kind": "wrapped",
            "settings": {"the paper's rule": FEW},
        }
    torch.save(cases, folder / "cases.pt")
    root = Path(__file__).parents[2]
    paths = [str(root), *(path for path in sys.path if path)]
    # As a module: a script's own folder comes first on the path, where `selectors` would hide Python's.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--module"]
    done = subprocess.run(
        [*launch, "tests.integrations.sharded_rank", str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    return {"cases": cases, "models": models, "ranks": ranks}


def assert_like_the_whole(found: dict[str, Any], cases: dict[str, Any], case: str, setting: str) -> None:
    """Fail unless a rank kept and answered what the unsharded model does."""
    assert "answer" in found, found
    model, inputs = cases["models"][case], cases["cases"][case]["inputs"]
    expected = pruned(model, model, inputs, SETTINGS[setting])
    answer = found["answer"]
    assert answer["kept"][0] == expected["kept"][0]
    assert_close(answer["logits"], expected["logits"], tolerance=1e-3)
    if answer["ids"] is not None:
        assert answer["kept"] == expected["kept"]
        assert torch.equal(answer["ids"], expected["ids"])


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("case", "setting"), SHARDED)
def test_every_rank_keeps_and_answers_what_the_unsharded_model_does(
    cases: dict[str, Any], case: str, setting: str, rank: int
) -> None:
    """Under `tp_plan="auto"`, for every strategy and preset, with as many and with more key/value heads than ranks."""
    assert_like_the_whole(cases["ranks"][rank][case][setting], cases, case, setting)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_key_value_heads_than_ranks_are_refused_at_the_call(
    cases: dict[str, Any], family: str, rank: int
) -> None:
    """Transformers does not run such a model unpruned either; the message speaks of heads and ranks."""
    found = cases["ranks"][rank][f"{family}, fewer heads"]["call"]

    assert found.get("error") in ("NotImplementedError", "ValueError"), found
    assert "head" in found["message"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("wrapper", ["DDP", "FSDP", "fully_shard"])
@pytest.mark.parametrize("family", FAMILIES)
def test_ddp_and_fsdp_are_exact_or_say_what_to_pass(
    cases: dict[str, Any], family: str, wrapper: str, rank: int
) -> None:
    """A session on the wrapper, and one on the model within it whose wrapper is called."""
    outcomes = cases["ranks"][rank][f"{family}, wrapped"]
    if f"{wrapper}, wrapping" in outcomes:
        pytest.skip(f"this torch cannot wrap on a CPU: {outcomes[f'{wrapper}, wrapping']['message'][:80]}")

    for found in (outcomes[wrapper], outcomes[f"{wrapper}, inside"]):
        if "answer" in found:
            assert_like_the_whole(found, cases, f"{family}, as many heads", "the paper's rule")
        else:
            if found["error"] == "StopIteration":
                pytest.skip("this Transformers asks its vision tower for a parameter, which FSDP has flattened away")
            assert found["error"] in ("TypeError", "NotImplementedError"), found
            assert "pass" in found["message"], found
