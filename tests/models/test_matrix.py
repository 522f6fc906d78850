"""Every class that Transformers can load is pruned exactly or refused, and what was exact stays so."""

import pytest
import transformers

from iwp_transformers.model_list import listed_models, listed_version
from tests.models.factory import CLASSES
from tests.models.table import PAGE, exact_names, listed, page
from tests.models.verdicts import EXACT, WRONG, verdict_on


def test_a_class_is_exact_or_refused_as_the_page_says(model_type: str) -> None:
    """No class gives a wrong number, none in `exact.txt` is anything but exact, and the package lists the verdict.

    `python -m tests.models.table` writes the list, its page and the names anew.
    """
    verdict = verdict_on(model_type)

    assert verdict.outcome != WRONG, verdict.reason
    if model_type in exact_names():
        assert verdict.outcome == EXACT, verdict.reason
    if transformers.__version__ == listed_version():
        assert listed(model_type, verdict) in listed_models()


def test_the_page_says_what_the_package_lists() -> None:
    """`docs/models.md` and `iwp models` cannot differ."""
    assert PAGE.read_text() == page(listed_models(), listed_version())


def test_names_of_exact_classes_are_sorted_and_known() -> None:
    """Each name stands once, so that a diff of `exact.txt` shows who came and who would leave."""
    names = exact_names()

    assert names == sorted(set(names))
    if not set(names) <= set(CLASSES):
        pytest.skip(f"this version of Transformers does not know {sorted(set(names) - set(CLASSES))}")
