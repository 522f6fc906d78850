"""Which arrays are served: every layout and float of a library; the rest is refused with what to pass instead."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from iwp_core import select_tokens
from tests.strategies import sample


def arrays(dtype: Any = np.float32) -> list[Any]:
    """Return keys, values and queries of a sample."""
    tokens = sample(0, tokens=30, heads=2, group=2, width=8, value_width=8)
    return [x.astype(dtype) for x in (tokens.keys, tokens.values, tokens.queries)]


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_of_numpy_is_served(name: str) -> None:
    """Also bfloat16, which ml_dtypes adds: the answer is that for the same numbers in float32."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16 of its own")
    halves = arrays(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16)

    kept = select_tokens(*halves, 9)

    np.testing.assert_array_equal(kept, select_tokens(*(x.astype(np.float32) for x in halves), 9))


LAYOUTS = {
    "read-only": lambda x: np.frombuffer(x.tobytes(), dtype=x.dtype).reshape(x.shape),
    "every other entry of a larger array": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "column by column": np.asfortranarray,
    "swapped bytes": lambda x: x.astype(x.dtype.newbyteorder()),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout_in_memory_is_served(layout: Any) -> None:
    """Nothing is written to the inputs, and nothing depends on how they lie in memory."""
    plain = arrays()

    kept = select_tokens(*(layout(x) for x in plain), 9)

    np.testing.assert_array_equal(kept, select_tokens(*plain, 9))


def test_broadcast_arrays_are_served() -> None:
    """One head's keys for all heads, without a copy of them."""
    keys, values, queries = arrays()
    shared = np.broadcast_to(keys[:1], keys.shape)

    np.testing.assert_array_equal(
        select_tokens(shared, values, queries, 9), select_tokens(shared.copy(), values, queries, 9)
    )


def test_a_masked_array_is_refused_with_what_to_pass() -> None:
    """Its mask says the opposite of ours, and operations would drop it on the way."""
    keys, values, queries = arrays()

    with pytest.raises(TypeError, match="`keys` is a masked array: pass its `data`, and say by `mask=`"):
        select_tokens(np.ma.masked_array(keys), values, queries, 3)


def test_a_tensor_without_data_is_refused() -> None:
    """Which tokens stay depends on numbers, those of a mask always."""
    torch = pytest.importorskip("torch", reason="the meta device is torch's")
    held = [torch.from_numpy(x) for x in arrays()]
    mask = torch.ones(30, dtype=torch.bool, device="meta")

    with pytest.raises(TypeError, match="`keys` is on the device meta and has no data"):
        select_tokens(*(x.to("meta") for x in held), 3)
    with pytest.raises(TypeError, match="`mask` is on the device meta and has no data"):
        select_tokens(*held, 3, mask=mask, validate=False)


@pytest.mark.filterwarnings("ignore:.*(beta|prototype) st")
@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("to_sparse", r"layout torch.sparse_coo: pass its `to_dense\(\)`"),
        ("to_sparse_csr", r"layout torch.sparse_csr: pass its `to_dense\(\)`"),
        ("nested", "a nested tensor: pass a padded one, and say by `mask=`"),
    ],
)
def test_a_tensor_that_is_not_dense_is_refused_with_what_to_pass(form: str, reason: str) -> None:
    """Torch would end in an error of its own, far from the argument."""
    torch = pytest.importorskip("torch", reason="these tensors are torch's")
    keys, values, queries = (torch.from_numpy(x[0]) for x in arrays())
    odd = torch.nested.nested_tensor([keys, keys[:9]]) if form == "nested" else getattr(keys, form)()

    with pytest.raises(TypeError, match=f"`keys` is (of )?{reason}"):
        select_tokens(odd, values, queries[0], 3)


def test_a_dtype_that_no_arithmetic_knows_is_refused() -> None:
    """Eight bits of another package's making: one message of ours, not one of NumPy's."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy has no float8 of its own")

    with pytest.raises(TypeError, match="`keys` has dtype float8_e4m3fn, expected a real floating dtype"):
        select_tokens(*arrays(ml_dtypes.float8_e4m3fn), 3)


def test_numbers_of_more_or_fewer_bits_than_arithmetic_has_are_refused() -> None:
    """They would be rounded on the way, or stop in the middle of it."""
    torch = pytest.importorskip("torch", reason="NumPy has no float8 of its own")

    with pytest.raises(TypeError, match=r"`keys` has dtype torch.float8_e5m2 of 8 bits, expected .* of 16, 32 or 64"):
        select_tokens(*(torch.from_numpy(x).to(torch.float8_e5m2) for x in arrays()), 3)
    if np.finfo(np.longdouble).bits > 64:
        with pytest.raises(TypeError, match=r"`keys` has dtype float\d+ of \d+ bits, expected .* of 16, 32 or 64"):
            select_tokens(*arrays(np.longdouble), 3)


def test_a_lazy_array_of_dask_is_refused_with_what_to_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice of a token depends on the one before, so there is nothing to put off; dask need not be installed."""
    keys, values, queries = arrays()
    lazy = type("Array", (), {"__module__": "dask.array.core", "dtype": keys.dtype})
    for name, contents in {"dask": {}, "dask.array": {"Array": lazy}}.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["dask"].array = sys.modules["dask.array"]  # type: ignore[attr-defined]

    with pytest.raises(TypeError, match=r"`keys` is a lazy array of dask: pass its `compute\(\)`"):
        select_tokens(lazy(), values, queries, 3)


@pytest.mark.parametrize("module", ["xarray", "mlx"])
def test_something_without_the_array_api_is_refused_with_what_to_do(module: str) -> None:
    """The message names the type and a way out."""
    keys, _, queries = arrays()
    foreign = type("DataArray", (), {"__module__": f"{module}.core"})

    with pytest.raises(TypeError, match=f"`values` is of type {module}.DataArray.* convert it first"):
        select_tokens(keys, foreign(), queries, 3)
