"""The JAX backend: NumPy's answers eagerly and under `jit` and `vmap`, and few programs for many lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from iwp_core import MMR, PCMMR, Strategy, Tolerance, TopK, select_tokens
from iwp_core.above_chance import AboveChance
from iwp_core.presets import ABOVE_CHANCE, PER_QUERY
from iwp_core.testing import Case, check_case, conformance_cases
from tests.strategies import sample

jax = pytest.importorskip("jax", reason="the backend serves JAX's arrays")
jnp = pytest.importorskip("jax.numpy", reason="the backend serves JAX's arrays")
iwp_jax = pytest.importorskip("iwp_jax", reason="the backend's package is not installed")
batch = pytest.importorskip("iwp_jax.batch", reason="the backend's package is not installed")
identical = pytest.importorskip("iwp_jax.identical", reason="the backend's package is not installed")

CASES = [case.name for case in conformance_cases(np.asarray, functions=iwp_jax.kernels)]


@pytest.fixture(autouse=True)
def _singles() -> Any:
    """Run without 64 bits, which is JAX's default, whatever other tests have switched on; compile in half the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(False):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def tokens(seed: int = 0, *, count: int = 40, batch_size: int | None = None, queries: int = 3) -> dict[str, Any]:
    """Return float32 arrays of a sample, or of a batch, in which some tokens repeat others and one is zero."""
    draws = [sample(seed + row, tokens=count, clusters=9, width=8, value_width=6) for row in range(batch_size or 1)]
    generator = np.random.default_rng(seed)
    arrays = {name: np.stack([getattr(one, name) for one in draws]) for name in ("keys", "values", "hidden")}
    twice = np.arange(count)
    twice[count // 2 : count // 2 + 5] = 3
    arrays = {name: x[..., twice, :] for name, x in arrays.items()}
    arrays["values"][:, :, 5] = 0.0
    arrays["queries"] = generator.standard_normal((len(draws), 4, queries, 8))
    arrays = {name: x.astype(np.float32) for name, x in arrays.items()}
    return arrays if batch_size else {name: x[0] for name, x in arrays.items()}


def traced(arrays: dict[str, Any], budget: float, **options: Any) -> Any:
    """Answer within `jax.jit`."""
    program = jax.jit(lambda given: select_tokens(**given, budget=budget, validate=False, **options))
    return np.asarray(program({name: jnp.asarray(array) for name, array in arrays.items()}))


def case_of(name: str, asarray: Callable[[Any], Any]) -> Case:
    """Return the case of a library's arrays that has a name."""
    return next(case for case in conformance_cases(asarray, functions=iwp_jax.kernels) if case.name == name)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("all_finite")])
def test_the_backend_conforms(name: str) -> None:
    """What it replaces answers as the reference does on JAX's arrays."""
    check_case(case_of(name, jnp.asarray))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("select_batch")])
def test_whole_selections_of_the_suite_are_those_of_numpy(name: str) -> None:
    """Not of the reference on JAX's arrays: to compile it operation by operation takes a minute a case."""
    case, other = case_of(name, jnp.asarray), case_of(name, np.float32)

    kept = case.function(*case.arguments, **case.options)

    assert np.asarray(kept).tolist() == other.function(*other.arguments, **other.options).tolist()


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "share": {"budget": 0.37},
    "all": {"budget": 40},
    "per query": dict(PER_QUERY),
    "above chance": dict(ABOVE_CHANCE),
    "MMR": {"strategy": MMR(tradeoff=0.3), "similarity": "value"},
    "TopK": {"strategy": TopK(), "magnitude": "gradient_norm"},
    "power mean": {"heads": 3.0, "similarity": "kernel_key"},
    "linear": {"kernel": "linear", "heads": "max", "strategy": PCMMR(penalty=1.0)},
    "hidden": {"similarity": "hidden", "magnitude": "key_norm", "strategy": PCMMR(temper=0.0, floor=0.0)},
    "value norm": {"magnitude": "value_norm", "similarity": "key", "heads": "softmax_mean"},
    "raw key norm": {"magnitude": "raw_key_norm", "strategy": MMR()},
}


COMPILED = ["default", "per query", "above chance", "MMR", "TopK", "power mean", "linear", "hidden"]
"""Those that differ for a program; each takes seconds to compile."""


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("length", [1, 7, 40])
def test_eager_answers_are_numpys(length: int, options: dict[str, Any]) -> None:
    """Every option and length, in 32 bits as JAX has them by default."""
    arrays, options = tokens(count=40), {"budget": 9, **options}
    arrays = {name: x if name == "queries" else x[..., :length, :] for name, x in arrays.items()}

    kept = select_tokens(**{name: jnp.asarray(x) for name, x in arrays.items()}, **options)

    assert isinstance(kept, jax.Array)
    assert kept.dtype == jnp.int32
    assert np.asarray(kept).tolist() == select_tokens(**arrays, **options).tolist()


@pytest.mark.parametrize("options", [OPTIONS[name] for name in COMPILED], ids=COMPILED)
def test_answers_under_jit_are_numpys(options: dict[str, Any]) -> None:
    """A batch of two, ties included: identical tokens at the lowest places first."""
    arrays, options = tokens(1, batch_size=2), {"budget": 9, **options}

    kept = traced(arrays, **options)

    assert kept.tolist() == select_tokens(**arrays, **options).tolist()
    assert kept.dtype == np.int32


def test_answers_under_vmap_are_those_of_a_batch() -> None:
    """Mapped over keys and values, with the same queries for all."""
    arrays = tokens(2, batch_size=2)
    queries = arrays["queries"][0]

    def select(keys: Any, values: Any) -> Any:
        return select_tokens(keys, values, jnp.asarray(queries), 9, validate=False)

    kept = jax.vmap(select)(jnp.asarray(arrays["keys"]), jnp.asarray(arrays["values"]))

    alone = [select_tokens(arrays["keys"][row], arrays["values"][row], queries, 9).tolist() for row in range(2)]
    assert np.asarray(kept).tolist() == alone


def test_a_context_counts_under_jit() -> None:
    """Every query's share is of all that it sees."""
    arrays = tokens(3)
    arrays["context"] = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)

    assert traced(arrays, 9, heads="max").tolist() == select_tokens(**arrays, budget=9, heads="max").tolist()


@pytest.mark.parametrize("strategy", [PCMMR(), MMR(), AboveChance()], ids=lambda s: type(s).__name__)
def test_a_mask_under_jit_fills_rows_to_the_count(strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands at padding is not read; a row of fewer real tokens keeps all of them."""
    for module in ("iwp_core.above_chance", "iwp_jax.chance"):
        monkeypatch.setattr(f"{module}.PROBES", 7)  # so that what any two tokens share is learnt from some of them
    arrays = tokens(4, batch_size=2)
    arrays["mask"] = np.random.default_rng(4).random((2, 40)) < 0.7
    arrays["mask"][1, 5:] = False
    eager = select_tokens(**arrays, budget=9, strategy=strategy)
    for name in ("keys", "values", "hidden"):
        where = arrays["mask"] if name == "hidden" else arrays["mask"][:, None, :]
        arrays[name] = np.where(where[..., None], arrays[name], np.nan)

    assert traced(arrays, 9, strategy=strategy).tolist() == eager.tolist()


def test_64_bits_are_used_where_they_are_switched_on() -> None:
    """Numbers of float64 and indices of int64, eagerly and under `jit`."""
    doubles = {name: x.astype(np.float64) for name, x in tokens(5).items()}

    with jax.enable_x64(True):
        eager = select_tokens(**{name: jnp.asarray(x) for name, x in doubles.items()}, budget=9)
        kept = traced(doubles, 9)

    assert eager.dtype == kept.dtype == np.int64
    assert np.asarray(eager).tolist() == kept.tolist() == select_tokens(**doubles, budget=9).tolist()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(dtype: str) -> None:
    """Eagerly, the answer is that for the same numbers in float32."""
    halves = {name: jnp.asarray(x).astype(dtype) for name, x in tokens(6).items()}

    kept = select_tokens(**halves, budget=9)

    singles = {name: np.asarray(x.astype("float32")) for name, x in halves.items()}
    assert np.asarray(kept).tolist() == select_tokens(**singles, budget=9).tolist()


def test_key_biases_in_the_hundreds_survive_under_jit() -> None:
    """Products with queries reach the hundreds, and nothing overflows."""
    arrays = tokens(7)
    arrays["keys"] = arrays["keys"] + np.float32(200.0)

    assert traced(arrays, 9).tolist() == select_tokens(**arrays, budget=9).tolist()


def test_many_lengths_share_few_programs_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where arrays do not lie on the host: five lengths, a share of each, and one program."""
    monkeypatch.setattr(batch, "lies_on_host", lambda *_: False)
    monkeypatch.setattr(batch, "on_host", None)
    before = batch._select._cache_size()

    for count in range(40, 49, 2):
        arrays = tokens(8, count=count, queries=1)
        kept = select_tokens(**{name: jnp.asarray(x) for name, x in arrays.items()}, budget=0.222)
        assert np.asarray(kept).tolist() == select_tokens(**arrays, budget=0.222).tolist()

    assert batch._select._cache_size() - before == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_identical_tokens_are_found_within_a_program(dtype: str) -> None:
    """The first of each set of equal tokens stands for them, zeros of either sign included."""
    keys = jnp.asarray(np.random.default_rng(12).integers(-1, 2, (2, 40, 2)).astype(np.float32)).astype(dtype)
    values = (-keys * 0).at[0, 7, 0].set(1.0)

    found = np.asarray(identical.first_identical(keys, values))

    rows = [
        (np.asarray(keys.astype("float32"))[:, i].tolist(), np.asarray(values.astype("float32"))[:, i].tolist())
        for i in range(40)
    ]
    assert found.tolist() == [rows.index(row) for row in rows]
    assert len(set(found.tolist())) < 40


class Last:
    """A strategy of the user's own."""

    def select(self, log_magnitude: Any, _: Any, count: int) -> Any:
        """Keep the last tokens."""
        return jnp.arange(log_magnitude.shape[0])[-count:]


def test_what_cannot_be_traced_is_refused_with_the_reason() -> None:
    """Numbers that are not known yet can neither be counted nor looked at."""
    arrays = tokens(9)
    masked = arrays | {"mask": np.ones(40, dtype=bool)}

    with pytest.raises(NotImplementedError, match=r"`budget` is Tolerance.* while a program is traced"):
        traced(arrays, Tolerance(0.1))  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match=r"`budget` is 0.5 with a `mask`, expected a count"):
        traced(masked, 0.5)
    with pytest.raises(NotImplementedError, match=r"`strategy` is .*Last.* within `jax.jit`"):
        traced(arrays, 9, strategy=Last())
    with pytest.raises(ValueError, match=r"`validate` is True, expected False"):
        jax.jit(lambda given: select_tokens(**given, budget=9))({k: jnp.asarray(x) for k, x in arrays.items()})


def test_a_strategy_of_ones_own_sees_jax_arrays() -> None:
    """Eagerly, where the reference runs on the caller's own library."""
    arrays = {name: jnp.asarray(x) for name, x in tokens(10).items()}

    assert np.asarray(select_tokens(**arrays, budget=3, strategy=Last(), magnitude="value_norm")).tolist() == [
        37,
        38,
        39,
    ]


def test_bad_numbers_are_refused() -> None:
    """NaN is found by NumPy, without compiling."""
    arrays = {name: jnp.asarray(x) for name, x in tokens(11).items()}
    arrays["values"] = arrays["values"].at[0, 3, 1].set(jnp.nan)

    with pytest.raises(ValueError, match="`values` has NaN"):
        select_tokens(**arrays, budget=3)
