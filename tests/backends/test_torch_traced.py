"""`select_tokens` within `torch.compile`, `torch.export` and `torch.vmap`: the eager answer, or a refusal."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from iwp_core import MMR, PCMMR, Strategy, Tolerance, TopK, information_magnitude, select_tokens
from iwp_core.above_chance import AboveChance
from iwp_core.presets import ABOVE_CHANCE, PER_QUERY

torch = pytest.importorskip("torch", reason="the backend serves torch tensors")
pytest.importorskip("iwp_torch.compiling", reason="the backend's package is not installed")


def tokens(seed: int = 0, *leading: int) -> dict[str, Any]:
    """Return keys, values and queries of 40 tokens."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"keys": (2, 40, 16), "values": (2, 40, 8), "queries": (4, 3, 16)}
    return {name: torch.randn(*leading, *shape, generator=generator) for name, shape in shapes.items()}


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "per query": dict(PER_QUERY),
    "above chance": dict(ABOVE_CHANCE),
    "MMR above chance": {"strategy": AboveChance(strategy=MMR())},
    "MMR": {"strategy": MMR(tradeoff=0.2), "similarity": "value", "budget": 0.3},
    "TopK": {"strategy": TopK(), "heads": 2.0, "kernel": "linear"},
    "all": {"budget": 99, "magnitude": "key_norm"},
}
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@options
def test_a_compiled_program_holds_one_graph_and_answers_as_eagerly(options: dict[str, Any]) -> None:
    """With ``fullgraph=True``, for a batch."""
    arrays, options = tokens(1, 2), {"budget": 9, **options}
    arrays["hidden"] = torch.randn(2, 40, 24, generator=torch.Generator().manual_seed(1))
    expected = select_tokens(**arrays, **options)
    program = torch.compile(
        lambda given: select_tokens(**given, validate=False, **options), fullgraph=True, backend="aot_eager"
    )

    assert torch.equal(program(arrays), expected)


class Module(torch.nn.Module):
    """Keeps nine tokens."""

    def forward(self, keys: Any, values: Any, queries: Any, mask: Any) -> Any:
        """Return their positions."""
        return select_tokens(keys, values, queries, 9, mask=mask, validate=False)


def test_an_exported_program_answers_as_eagerly() -> None:
    """On other numbers than those it was exported with; a row of fewer real tokens is filled with -1."""
    mask = torch.ones(2, 40, dtype=torch.bool)
    exported = torch.export.export(Module(), (*tokens(2, 2).values(), mask))
    arrays, mask = tokens(3, 2), torch.arange(40).expand(2, 40) < torch.tensor([[30], [5]])

    kept = exported.module()(*arrays.values(), mask)

    assert torch.equal(kept, select_tokens(**arrays, budget=9, mask=mask))
    assert kept[1].tolist() == [0, 1, 2, 3, 4, -1, -1, -1, -1]


def test_a_program_exported_for_any_length_answers_as_eagerly() -> None:
    """The number of tokens may be left open; a count says how many are kept."""
    length = torch.export.Dim("length", min=10, max=4000)
    example = (*tokens(2, 2).values(), torch.ones(2, 40, dtype=torch.bool))
    exported = torch.export.export(Module(), example, dynamic_shapes=({2: length}, {2: length}, None, {1: length}))
    arrays = tokens(3, 2)
    arrays = {name: x if name == "queries" else x[:, :, :27] for name, x in arrays.items()}

    kept = exported.module()(*arrays.values(), torch.ones(2, 27, dtype=torch.bool))

    assert torch.equal(kept, select_tokens(**arrays, budget=9))


def test_measures_are_refused_under_vmap() -> None:
    """Only `select_tokens` is part of a program."""
    with pytest.raises(NotImplementedError, match="`keys` is traced, expected an array with numbers"):
        torch.vmap(information_magnitude)(*tokens(4, 2).values())


@pytest.mark.parametrize("strategy", [PCMMR(), MMR(), TopK(), AboveChance()], ids=lambda s: type(s).__name__)
def test_vmap_answers_as_a_batch_does(strategy: Strategy) -> None:
    """Mapped over keys on their second axis and values on their first, with the same queries for all."""
    arrays = tokens(4, 3)
    queries = arrays["queries"][0]

    kept = torch.vmap(
        lambda keys, values: select_tokens(keys, values, queries, 9, strategy=strategy, validate=False),
        in_dims=(1, 0),
    )(arrays["keys"].movedim(0, 1), arrays["values"])

    alone = [
        select_tokens(k, v, queries, 9, strategy=strategy)
        for k, v in zip(arrays["keys"], arrays["values"], strict=True)
    ]
    assert torch.equal(kept, torch.stack(alone))


def test_vmap_within_vmap_is_served() -> None:
    """Two mapped axes are two leading ones."""
    arrays = tokens(5, 2, 2)

    kept = torch.vmap(torch.vmap(lambda k, v, q: select_tokens(k, v, q, 9, validate=False)))(*arrays.values())

    assert torch.equal(kept, select_tokens(**arrays, budget=9))


class Last:
    """A strategy of the user's own."""

    def select(self, log_magnitude: Any, _: Any, count: int) -> Any:
        """Keep the last tokens."""
        return torch.arange(log_magnitude.shape[0])[-count:]


REFUSED: dict[str, dict[str, Any]] = {
    "`budget` is": {"budget": Tolerance(0.1)},
    "with a `mask`": {"budget": 0.5, "mask": torch.ones(2, 40, dtype=torch.bool)},
    "`validate` is True": {"validate": True},
    "`strategy` is": {"strategy": Last()},
}


@pytest.mark.parametrize(("reason", "options"), REFUSED.items(), ids=REFUSED)
def test_what_depends_on_numbers_is_refused_under_vmap(reason: str, options: dict[str, Any]) -> None:
    """The message says what to pass."""
    arrays, options = tokens(6, 2), {"budget": 9, "validate": False, **options}
    mapped = {**arrays, **({"mask": options.pop("mask")} if "mask" in options else {})}

    with pytest.raises((NotImplementedError, ValueError), match=f"{reason}.*expected"):
        torch.vmap(lambda given: select_tokens(**given, **options))(mapped)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("reason", "options"), REFUSED.items(), ids=REFUSED)
def test_what_depends_on_numbers_is_refused_by_a_compiled_program(reason: str, options: dict[str, Any]) -> None:
    """Dynamo wraps the reason in its own error."""
    arrays, options = tokens(6, 2), {"budget": 9, "validate": False, **options}
    program = torch.compile(lambda given: select_tokens(**given, **options), fullgraph=True, backend="eager")

    with pytest.raises(Exception, match=reason):
        program(arrays)


def test_whoever_compiles_nothing_does_not_load_dynamo() -> None:
    """It takes seconds."""
    code = (
        "import sys, torch, iwp_core; x = torch.ones(2, 4, 3); iwp_core.select_tokens(x, x, x[:, 0], 2);"
        "assert 'iwp_torch' in sys.modules; assert 'torch._dynamo' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
