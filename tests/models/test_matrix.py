"""Every class that Transformers can load is pruned exactly or refused, and what was exact stays so."""

import pytest
import transformers

from tests.models.factory import CLASSES
from tests.models.table import PAGE, exact_names, row
from tests.models.verdicts import EXACT, WRONG, verdict_on


def test_a_class_is_exact_or_refused_as_the_page_says(model_type: str) -> None:
    """No class gives a wrong number, none in `exact.txt` is anything but exact, and `docs/models.md` holds the verdict.

    `python -m tests.models.table` writes the page and the names anew.
    """
    verdict = verdict_on(model_type)

    assert verdict.outcome != WRONG, verdict.reason
    if model_type in exact_names():
        assert verdict.outcome == EXACT, verdict.reason
    page = PAGE.read_text()
    if f"Transformers {transformers.__version__} " in page:
        assert row(model_type, verdict) in page


def test_names_of_exact_classes_are_sorted_and_known() -> None:
    """Each name stands once, so that a diff of `exact.txt` shows who came and who would leave."""
    names = exact_names()

    assert names == sorted(set(names))
    if not set(names) <= set(CLASSES):
        pytest.skip(f"this version of Transformers does not know {sorted(set(names) - set(CLASSES))}")
