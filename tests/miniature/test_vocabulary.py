"""Words and their tokens: everything that can be asked is known, everything else is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_miniature.questions import ANSWERS, KINDS, questions_about
from iwp_miniature.scenes import Layout
from iwp_miniature.vocabulary import WORDS, VocabularyError, check_words, make_tokenizer
from tests.miniature.answerer import layouts, texts

TOKENIZER = make_tokenizer()
LARGEST_GRID = Layout(5, 5, "sparse", ())


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_known_words_of_one_token_each(kind: str) -> None:
    """Every question that can be asked is as many tokens as words, each the word's own."""
    for text in texts(kind, LARGEST_GRID):
        check_words(text)
        assert TOKENIZER(text)["input_ids"] == [WORDS.index(word) for word in text.split()]
        assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


@given(layouts())
def test_questions_and_answers_of_layouts_are_known_words(layout: Layout) -> None:
    """Also those that are really asked."""
    for question in (question for kind in KINDS for question in questions_about(layout, kind)):
        check_words(question.text)
        assert TOKENIZER(question.answer)["input_ids"] == [WORDS.index(question.answer)]


def test_every_answer_is_one_token() -> None:
    """So that one step of `generate` gives it."""
    for answer in {answer for answers in ANSWERS.values() for answer in answers}:
        assert TOKENIZER(answer)["input_ids"] == [WORDS.index(answer)]


@pytest.mark.parametrize("text", ["Which digit is RED?", " which  digit is red ? ", "which\ndigit is red?"])
def test_case_space_and_a_touching_question_mark_do_not_matter(text: str) -> None:
    """People write questions in more ways than one."""
    check_words(text)

    assert TOKENIZER(text)["input_ids"] == TOKENIZER("which digit is red ?")["input_ids"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("which digit is pink ?", "has the unknown word 'pink'"),
        ("digit at row9 column1 ?", "has the unknown word 'row9'"),
        ("how many 12?", "has the unknown word '12'"),
        ("what's the largest digit ?", "has the unknown word 'what"),
        ("<image> largest digit ?", "has the unknown word '<"),
        ("", "is empty"),
        ("  ", "is empty"),
    ],
)
def test_an_unknown_word_is_named_with_the_known(text: str, named: str) -> None:
    """What was asked, which word is not known, and which are."""
    with pytest.raises(VocabularyError) as caught:
        check_words(text)

    assert f"the question {text!r} {named}" in str(caught.value)
    for word in ("purple", "row5", "largest", "?"):
        assert word in str(caught.value).partition("known are: ")[2].split()
    assert "<pad>" not in str(caught.value).partition("known are: ")[2]


any_spaces = st.sampled_from([" ", "  ", "\t", "\n", "\x1c", "\u00a0", "\u2028", "?", ""])
any_words = st.sampled_from([*WORDS, "Red", "ROW", "٣", "²", "x", "12"]) | st.text(max_size=3)


@given(st.lists(st.tuples(any_words, any_spaces), max_size=5))
def test_what_is_let_through_the_tokenizer_knows(pieces: list[tuple[str, str]]) -> None:
    """No text that passes has an unknown or a special token, whatever its characters."""
    text = "".join(word + space for word, space in pieces)
    try:
        check_words(text)
    except VocabularyError:
        return

    assert not set(TOKENIZER(text).tokens()) & {word for word in WORDS if word.startswith("<")}
