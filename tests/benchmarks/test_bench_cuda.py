"""The benchmark's command: a rehearsal on the CPU runs every part, and without a GPU it says that it needs one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

# What a CPU cannot do; every other line of the benchmark runs in a rehearsal.
NEEDS_A_GPU = {"CUDA graphs need a GPU", "CuPy needs a GPU"}
SELECTING = {"iwp", "iwp, checked", "iwp, captured", "iwp, reference code", "iwp, CuPy"}
RIVALS = {"plain dense PC-MMR", "greedy MMR", "DivPrune", "CDPruner", "SCOPE", "TrimTokenator"}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """Give the script that is run."""
    return import_module("bench_cuda")


@pytest.fixture(scope="module")
def folder(bench: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rehearse once, with time enough for any machine; the folder did not exist."""
    folder = tmp_path_factory.mktemp("results") / "new"
    bench.main(["--rehearse", "--output", str(folder), "--seed", "7", "--commit", "abc", "--minutes", "9999"])
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    """Read what the rehearsal wrote."""
    found: dict[str, Any] = json.loads((folder / "cuda.json").read_text())
    return found


def values_of(key: str, part: Any) -> Iterator[Any]:
    """Yield what stands under a key, however deep."""
    if isinstance(part, dict):
        if key in part:
            yield part[key]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from values_of(key, inner)


def test_a_rehearsal_writes_every_part_and_the_header(result: dict[str, Any]) -> None:
    """And says that it is one."""
    assert result["rehearsal"] is True
    assert {"correctness", "selection", "models", "bars"} <= result.keys()
    assert {"command", "device", "gpu", "versions", "date", "settings", "notes"} <= result.keys()
    assert (result["seed"], result["commit"]) == (7, "abc")
    assert "--rehearse" in result["command"]


def test_nothing_fails_in_a_rehearsal_and_only_a_gpu_is_missing(result: dict[str, Any]) -> None:
    """No case broke, none ran out of time or memory."""
    assert not list(values_of("failed", result))
    assert not any(values_of("failures", result))
    assert set(filter(None, map(str, values_of("not run", result["selection"])))) == NEEDS_A_GPU
    assert not list(values_of("not run", result["models"]))


def test_selection_times_all_rules_at_all_sizes(result: dict[str, Any]) -> None:
    """Each with quartiles in order, and the two limits beside them."""
    cases = result["selection"]

    keys = [(case["tokens"], case["share"], case["dtype"]) for case in cases]
    assert len(set(keys)) == len(keys) == 8
    for case in cases:
        assert case["rules"].keys() == SELECTING | RIVALS | {"DivPrune, captured", "CDPruner, captured"}
        assert {"bytes read", "seconds to read", "flops", "seconds to compute"} == case["limits"].keys()
        for rule in RIVALS | {"iwp"}:
            figures = case["rules"][rule]
            assert 0 < figures["first quartile"] <= figures["median"] <= figures["third quartile"]
            assert figures["repeats"] >= 1
            assert figures["extra bytes"] >= 0
        assert case["rules"]["plain dense PC-MMR"]["tokens in common with iwp"] == 1


def test_correctness_compares_every_kind_and_dtype(result: dict[str, Any]) -> None:
    """On the CPU, all tokens are the reference's, answers repeat, and errors are the same."""
    found = result["correctness"]

    assert set(found["shares"]["torch"]) == {"float64", "float32", "bfloat16", "float16"}
    assert set(found["shares"]["NumPy"]) == {"float64", "float32", "float16"}
    kinds = [kind for dtypes in found["shares"].values() for kinds in dtypes.values() for kind in kinds.values()]
    assert len(kinds) == 7 * 17
    assert all(kind["tokens"] and kind["met"] for kind in kinds)
    assert found["float64 reference against the plain algorithm"]["share"] == 1
    for library in ("torch", "NumPy"):
        assert found[library]["rows of a batch equal their own calls"]
        assert set(found[library]["errors against the CPU"].values()) == {"same"}


def test_models_are_measured_full_and_pruned(result: dict[str, Any]) -> None:
    """Both families, batches and sizes, with every budget against the full model."""
    entries = result["models"]

    assert len({(entry["model"], entry["tokens"], entry["batch"]) for entry in entries}) == len(entries) == 8
    for entry in entries:
        assert entry["tower seconds a picture"] > 0
        assert entry["full"]["decoded tokens a second"] > 0
        for budget, kept in (("11.1%", {48: 5, 24: 3}), ("35.3%", {48: 17, 24: 8})):
            setting = entry[budget]
            assert setting["kept tokens"] == kept[entry["tokens"]]
            assert setting["prefill seconds"]["median"] >= setting["decoder seconds"]["median"] > 0
            assert setting["decoder seconds"]["median"] >= setting["selection seconds"]["median"] > 0
            against = setting["against full"]
            assert against["speed-up that the operations allow"] > 1
            gained = entry["full"]["decoder seconds"]["median"] / setting["decoder seconds"]["median"]
            assert against["speed-up over what is allowed"] == pytest.approx(
                gained * setting["flops pruned"] / setting["flops full"]
            )


def test_a_rehearsal_judges_no_bar(result: dict[str, Any]) -> None:
    """Its numbers are those of a CPU in miniature; but every bar has found its number, unless it needs a GPU.

    So does memory: on a CPU a small model may take none that its process does not hold already.
    """
    assert {bar["met"] for bar in result["bars"]} == {None}
    missing = {bar["claim"] for bar in result["bars"] if bar["measured"] is None}
    unknown = ("captured", "synchronisations", "CuPy", "peak memory")
    assert all(any(word in claim for word in unknown) for claim in missing)
    assert len(missing) < len(result["bars"]) / 2


@pytest.mark.parametrize("name", ["cuda_selection", "cuda_prefill"])
def test_pictures_are_written(folder: Path, name: str) -> None:
    """As PNG files."""
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_rehearsal_without_time_stops_cleanly(bench: ModuleType, tmp_path: Path) -> None:
    """What did not fit is named as not run, and what was not run is not judged."""
    bench.main(["--rehearse", "--output", str(tmp_path), "--minutes", "0"])

    result = json.loads((tmp_path / "cuda.json").read_text())
    assert "failed" not in result
    assert {"time"} == {rule["not run"] for case in result["selection"] for rule in case["rules"].values()}
    assert {"time"} == {entry["not run"] for entry in result["models"]}
    shares = result["correctness"]["shares"]["torch"]["float32"]
    assert {"time"} == {kind["not run"] for kind in shares.values()}


def test_a_part_that_breaks_leaves_the_others(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and the command fails in the end."""

    def broken(*_arguments: Any) -> None:
        msg = "no such kernel"
        raise RuntimeError(msg)

    monkeypatch.setattr(import_module("cuda_correctness"), "run", broken)
    with pytest.raises(SystemExit, match="no such kernel"):
        bench.main(["--rehearse", "--output", str(tmp_path), "--minutes", "0"])

    result = json.loads((tmp_path / "cuda.json").read_text())
    assert result["failed"] == {"correctness": "RuntimeError: no such kernel"}
    assert {"selection", "models", "bars"} <= result.keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_without_a_gpu_it_says_that_it_needs_one(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """And how to do without."""
    with pytest.raises(SystemExit):
        bench.main([])

    assert "a CUDA GPU is needed" in (said := capsys.readouterr().err)
    assert "--rehearse" in said


def test_a_rehearsal_does_not_write_among_the_results(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs a folder."""
    with pytest.raises(SystemExit):
        bench.main(["--rehearse"])

    assert "--rehearse needs --output" in capsys.readouterr().err
