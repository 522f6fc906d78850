"""Every class that Transformers can load is pruned exactly or refused, and what was exact stays so."""

import pytest
import transformers

from tests.models.factory import CLASSES
from tests.models.table import PAGE, exact_names, row
from tests.models.verdicts import EXACT, WRONG, verdict_on


def test_a_class_is_exact_or_refused(model_type: str) -> None:
    """No class gives a wrong number, and none that is in `exact.txt` is anything but exact."""
    verdict = verdict_on(model_type)

    assert verdict.outcome != WRONG, verdict.reason
    if model_type in exact_names():
        assert verdict.outcome == EXACT, verdict.reason


def test_the_page_of_models_says_so(model_type: str) -> None:
    """`docs/models.md` holds the class's verdict; `python -m tests.models.table` writes it anew."""
    page = PAGE.read_text()
    if f"Transformers {transformers.__version__} " not in page:
        pytest.skip("the page was written for another version of Transformers")

    assert row(model_type, verdict_on(model_type)) in page


def test_names_of_exact_classes_are_sorted_and_known() -> None:
    """Each name stands once, so that a diff of `exact.txt` shows who came and who would leave."""
    names = exact_names()

    assert names == sorted(set(names))
    if not set(names) <= set(CLASSES):
        pytest.skip(f"this version of Transformers does not know {sorted(set(names) - set(CLASSES))}")
