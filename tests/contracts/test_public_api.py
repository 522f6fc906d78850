"""The public surface of `iwp_core`: what is promised is there, documented, and nothing else is."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import iwp_core

PUBLIC = {
    "select_tokens", "PCMMR", "MMR", "TopK", "Strategy", "information_magnitude", "information_duplication",
    "log_update_norm", "update_cosine", "deletion_error", "dual_spectrum", "selection_overlap", "Backend", "Kernel",
    "overridable", "use_backend", "Tolerance",
}  # fmt: skip
FUNCTIONS = sorted(name for name in PUBLIC if inspect.isfunction(getattr(iwp_core, name)))
SIGNATURES = {
    "select_tokens": ["keys", "values", "queries", "budget"],
    "information_magnitude": ["keys", "values", "queries"],
    "information_duplication": ["keys", "values", "rows", "cols"],
    "log_update_norm": ["keys", "values"],
    "update_cosine": ["keys", "values", "rows", "cols"],
    "deletion_error": ["keys", "values", "kept"],
    "dual_spectrum": ["keys", "values", "kept"],
    "selection_overlap": ["a", "b"],
}


def modules() -> list[ModuleType]:
    """Import every module of the core."""
    names = [info.name for info in pkgutil.iter_modules(iwp_core.__path__, "iwp_core.")]
    return [iwp_core, *(importlib.import_module(name) for name in names)]


def test_all_is_the_contracts_list_in_order_without_repeats() -> None:
    """No name is missing and none slipped in."""
    assert set(iwp_core.__all__) == PUBLIC
    assert len(iwp_core.__all__) == len(PUBLIC)


def test_all_is_what_the_package_defines() -> None:
    """Every public attribute that is no module is in `__all__`, so nothing is public by accident."""
    defined = {
        name for name, value in vars(iwp_core).items() if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert defined == set(iwp_core.__all__)


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__)
def test_every_modules_all_names_what_exists(module: ModuleType) -> None:
    """Each module says what it offers, and offers it."""
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_documented_with_an_example(name: str) -> None:
    """One line and a doctest; functions also say what they take, return and raise."""
    documentation = inspect.getdoc(getattr(iwp_core, name)) or ""

    assert documentation.splitlines()[0].endswith(".")
    assert ">>>" in documentation


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_documents_each_parameter_the_result_and_the_errors(name: str) -> None:
    """The sections of numpydoc in their order, every parameter named."""
    function = getattr(iwp_core, name)
    documentation = inspect.getdoc(function) or ""
    result = "Yields" if inspect.isgeneratorfunction(inspect.unwrap(function)) else "Returns"
    # A context manager that yields nothing has no result to describe.
    sections = (
        ["Parameters", "Raises", "Examples"] if name == "use_backend" else ["Parameters", result, "Raises", "Examples"]
    )

    places = [documentation.find(f"{section}\n{'-' * len(section)}\n") for section in sections]
    parameters = documentation[places[0] : places[1]]

    assert -1 not in places
    assert places == sorted(places)
    assert [p for p in inspect.signature(function).parameters if p not in parameters] == []


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__)
def test_every_example_in_a_docstring_runs(module: ModuleType) -> None:
    """Doctests of all modules, private ones too."""
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_some_example_of_every_public_name_is_found_by_doctest(name: str) -> None:
    """An example in a docstring that doctest does not see would never run."""
    subject = getattr(iwp_core, name)
    finder = doctest.DocTestFinder(recurse=False)
    home = importlib.import_module(subject.__module__)

    assert any(test.examples for test in finder.find(inspect.unwrap(subject), name, module=home))


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_arrays_come_first_in_the_contracts_order_and_options_by_keyword(name: str) -> None:
    """Argument order is the same everywhere, and an option cannot be mistaken for an array."""
    parameters = inspect.signature(getattr(iwp_core, name)).parameters.values()
    arrays = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    options = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]

    assert arrays == SIGNATURES[name]
    assert all(p.default is not inspect.Parameter.empty for p in options)


def test_the_options_of_select_tokens_have_the_contracts_defaults() -> None:
    """The defaults are the paper's method."""
    parameters = inspect.signature(iwp_core.select_tokens).parameters.values()

    defaults = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    assert defaults == {
        "magnitude_keys": None,
        "strategy": iwp_core.PCMMR(),
        "magnitude": "dual",
        "similarity": "dual",
        "hidden": None,
        "kernel": "exponential",
        "heads": "mean",
        "mask": None,
        "context": None,
        "validate": True,
    }


def test_the_version_is_a_release_number() -> None:
    """`__version__` is what the distribution is built with."""
    assert all(part.isdigit() for part in iwp_core.__version__.split("."))
