"""The plugin registry, end to end: distributions with entry points are written to disk and found there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import iwp_core
from iwp_core import _plugins
from iwp_core._plugins import overridable_functions
from iwp_core.kernels import FUNCTIONS
from tests.strategies import sample

# Runs the core's own functions, and notes that it did: dispatch without any hardware.
LOOPBACK = """
from contextlib import contextmanager
from iwp_core import Kernel
from iwp_core.kernels import FUNCTIONS

calls, asked, entered, left = [], [], [], []
supported = True


def loop(reference):
    def run(*args, **kwargs):
        calls.append(reference.__name__)
        return reference.__wrapped__(*args, **kwargs)

    def supports(*args, **kwargs):
        asked.append((reference.__name__, args, kwargs))
        return supported

    return Kernel(run=run, supports=supports)


@contextmanager
def context():
    entered.append(1)
    try:
        yield
    finally:
        left.append(1)


name = "loopback"
kernels = {name: loop(function) for name, function in FUNCTIONS.items()}
"""
# Keeps the last tokens, as no reference would, so that its answer is told apart.
CONTRARY = """
import numpy as np
from iwp_core import Kernel

name = "contrary"


def last(log_magnitude, *args, **kwargs):
    return np.arange(log_magnitude.shape[0])[-5:]


kernels = {"progressive_chunked_mmr": Kernel(run=last)}
"""

Install = Callable[..., Callable[[], ModuleType]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a plugin: a module, and a distribution whose entry point names it."""
    written: list[str] = []
    monkeypatch.delenv("IWP_NO_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def write(module: str, source: str, *, name: str = "numpy") -> Callable[[], ModuleType]:
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[iwp.backends]\n{name} = {module}\n")
        written.append(module)
        _plugins.forget()
        return lambda: sys.modules[module]

    yield write
    for module in written:
        sys.modules.pop(module, None)
    _plugins.forget()


def select(**options: Any) -> list[int]:
    """Select from NumPy arrays, the library that the plugins here are for."""
    tokens = sample(0)
    return list(iwp_core.select_tokens(tokens.keys, tokens.values, tokens.queries, 5, **options))


def test_a_plugin_runs_every_overridable_function_of_a_selection(install: Install) -> None:
    """What is listed is all that a backend can replace, and all of it is dispatched."""
    plugin = install("iwp_loopback_all", LOOPBACK)
    tokens = sample(0)
    twice = np.arange(tokens.keys.shape[1]) // 2  # so that identical tokens are sought

    iwp_core.select_tokens(tokens.keys[:, twice], tokens.values[:, twice], tokens.queries, 5)

    assert set(plugin().calls) == set(FUNCTIONS)
    assert set(overridable_functions()) >= set(FUNCTIONS)


def test_a_kernel_under_an_unknown_name_is_an_error(install: Install) -> None:
    """A misspelt name would never run, and nobody would know; the message lists the names there are."""
    install("iwp_misspelt", LOOPBACK + "\nkernels['log_magnitud'] = kernels.pop('log_magnitude')\n")

    with pytest.raises(RuntimeError, match=r"'log_magnitud', expected names .*'log_magnitude'"):
        select()


def test_a_plugin_that_runs_the_reference_changes_no_answer(install: Install) -> None:
    """Dispatch itself neither reorders nor converts."""
    expected = select()

    plugin = install("iwp_loopback_same", LOOPBACK)

    assert select() == expected
    assert plugin().calls


def test_a_plugins_answer_is_the_one_that_is_used(install: Install) -> None:
    """A kernel that supports the call decides it."""
    assert select() != [7, 8, 9, 10, 11]

    install("iwp_contrary", CONTRARY)

    assert select() == [7, 8, 9, 10, 11]


def test_a_kernel_that_does_not_support_the_call_leaves_it_to_the_reference(install: Install) -> None:
    """`supports` is asked with the reference's arguments, and its False is enough."""
    expected = select()
    plugin = install("iwp_unsupporting", LOOPBACK.replace("supported = True", "supported = False"))

    assert select() == expected

    assert not plugin().calls
    assert {name for name, _, _ in plugin().asked} >= {"log_magnitude", "duplication_block", "progressive_chunked_mmr"}
    assert all(isinstance(args[0], np.ndarray) for _, args, _ in plugin().asked)


def test_a_function_that_the_plugin_does_not_list_stays_the_references(install: Install) -> None:
    """A backend may bring one kernel only."""
    expected = select(strategy=iwp_core.TopK())

    install("iwp_one_kernel", CONTRARY)

    assert select(strategy=iwp_core.TopK()) == expected


@pytest.mark.parametrize("value", ["1", "true"])
def test_the_environment_switches_plugins_off(install: Install, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """IWP_NO_PLUGINS=1 makes the whole process run the reference, without loading the plugin."""
    install("iwp_env_off", CONTRARY)

    monkeypatch.setenv("IWP_NO_PLUGINS", value)

    assert select() != [7, 8, 9, 10, 11]
    assert "iwp_env_off" not in sys.modules


def test_use_backend_switches_plugins_off_within_its_block(install: Install) -> None:
    """Before and after the block, also after an exception, the plugin runs."""
    install("iwp_block_off", CONTRARY)
    expected = [7, 8, 9, 10, 11]

    with iwp_core.use_backend("reference"):
        inside = select()
        with iwp_core.use_backend("auto"):
            nested = select()
    with pytest.raises(KeyError), iwp_core.use_backend("reference"):
        raise KeyError

    assert inside != expected
    assert nested == expected
    assert select() == expected


def test_use_backend_refuses_an_unknown_choice() -> None:
    """The message lists the choices."""
    with pytest.raises(ValueError, match=r"'fastest'.*'auto'.*'reference'"), iwp_core.use_backend("fastest"):
        pass


def test_a_plugin_is_loaded_once_an_array_of_its_library_comes(install: Install) -> None:
    """Importing the core, and arrays of other libraries, load nothing."""
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    install("iwp_lazy", LOOPBACK)
    tokens = sample(0)

    iwp_core.select_tokens(*(strict.asarray(x) for x in (tokens.keys, tokens.values, tokens.queries)), 5)
    before = "iwp_lazy" in sys.modules
    select()

    assert not before
    assert "iwp_lazy" in sys.modules


def test_a_plugin_that_fails_to_load_is_one_clear_error(install: Install) -> None:
    """The message names the plugin, its entry point and the cause, and the way to go on without it."""
    install("iwp_broken", "raise OSError('libfast.so is missing')")

    with pytest.raises(RuntimeError) as caught:
        select()

    message = str(caught.value)
    assert [x for x in ("numpy", "iwp_broken", "libfast.so is missing", "IWP_NO_PLUGINS") if x not in message] == []
    assert isinstance(caught.value.__cause__, OSError)


def test_a_broken_plugin_harms_no_other_library(install: Install) -> None:
    """Whoever has no array of that library never hears of it, nor does whoever switched plugins off."""
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    install("iwp_broken_numpy", "raise OSError")
    tokens = sample(0)

    kept = iwp_core.select_tokens(*(strict.asarray(x) for x in (tokens.keys, tokens.values, tokens.queries)), 5)
    with iwp_core.use_backend("reference"):
        expected = select()

    assert np.asarray(kept).tolist() == expected


@pytest.mark.parametrize("source", ["", "name = 'nameless'", "kernels = {}", "name, kernels = 'listed', []"], ids=repr)
def test_a_plugin_without_name_or_kernels_is_refused(install: Install, source: str) -> None:
    """What an entry point loads must be a backend."""
    install("iwp_shapeless", source)

    with pytest.raises(RuntimeError, match="iwp_shapeless"):
        select()


def test_two_plugins_of_one_name_are_an_error_naming_both(install: Install) -> None:
    """Which one ran would depend on the order of directories."""
    install("iwp_first", LOOPBACK)
    install("iwp_second", LOOPBACK)

    with pytest.raises(RuntimeError, match=r"iwp_first.*iwp_second"):
        select()


def test_an_array_type_of_another_library_finds_its_base_s_plugin(install: Install) -> None:
    """The method resolution order is walked: a subclass defined elsewhere is still an array of its library."""
    plugin = install("iwp_for_subclass", LOOPBACK)
    kind = type("Tagged", (np.ndarray,), {"__module__": "somebodys.arrays"})
    tokens = sample(0)

    iwp_core.select_tokens(*(x.view(kind) for x in (tokens.keys, tokens.values, tokens.queries)), 5)

    assert plugin().calls


def test_the_nearest_library_in_the_resolution_order_wins(install: Install) -> None:
    """A library built on NumPy that has a plugin of its own is served by that."""
    general = install("iwp_for_numpy", LOOPBACK)
    special = install("iwp_for_fake", LOOPBACK, name="fakelib")
    kind = type("FakeArray", (np.ndarray,), {"__module__": "fakelib.core"})
    tokens = sample(0)

    iwp_core.select_tokens(*(x.view(kind) for x in (tokens.keys, tokens.values, tokens.queries)), 5)
    calls = list(special().calls)
    select()

    assert "log_magnitude" in calls
    assert general().calls


PUBLIC_CALLS: dict[str, Callable[..., Any]] = {
    "select_tokens": lambda keys, values, queries: iwp_core.select_tokens(keys, values, queries, 5),
    "information_magnitude": iwp_core.information_magnitude,
    "information_duplication": lambda keys, values, _: iwp_core.information_duplication(keys, values),
    "log_update_norm": lambda keys, values, _: iwp_core.log_update_norm(keys, values),
    "update_cosine": lambda keys, values, _: iwp_core.update_cosine(keys, values),
    "deletion_error": lambda keys, values, _: iwp_core.deletion_error(keys, values, np.arange(3)),
    "dual_spectrum": lambda keys, values, _: iwp_core.dual_spectrum(keys, values),
}


@pytest.mark.parametrize("call", PUBLIC_CALLS.values(), ids=PUBLIC_CALLS)
def test_a_plugins_context_surrounds_each_public_call(install: Install, call: Any) -> None:
    """The context is entered around the work and left again."""
    plugin = install("iwp_context", LOOPBACK)
    tokens = sample(0)

    call(tokens.keys, tokens.values, tokens.queries)

    assert len(plugin().entered) == len(plugin().left) >= 1


def test_a_plugins_context_is_left_after_an_exception(install: Install) -> None:
    """A strategy of the user's that fails does not leave the library switched over."""
    plugin = install("iwp_context_error", LOOPBACK)

    class Failing:
        """A strategy that cannot choose."""

        def select(self, *_: object) -> object:
            """Give up."""
            raise LookupError

    with pytest.raises(LookupError):
        select(strategy=Failing())

    assert len(plugin().entered) == len(plugin().left) >= 1


def test_overridable_keeps_the_functions_name_and_documentation() -> None:
    """The decorated function is read and inspected like the one that was written."""

    @iwp_core.overridable
    def doubled(x: list[int]) -> list[int]:
        """Repeat."""
        return x + x

    assert doubled([1]) == [1, 1]
    assert doubled.__name__ == "doubled"
    assert doubled.__doc__ == "Repeat."
