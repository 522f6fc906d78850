"""The words of the task, and a tokenizer of whole words."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Punctuation, Sequence, WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from iwp_miniature.scenes import COLORS

__all__ = ["BEGIN", "COLUMNS", "DIGITS", "END", "IMAGE", "PAD", "ROWS", "VIDEO", "VISION_END", "VISION_START", "WORDS"]
__all__ += ["VocabularyError"]
__all__ += ["check_words", "make_tokenizer"]

PAD, BEGIN, END, IMAGE, VIDEO = "<pad>", "<begin>", "<end>", "<image>", "<video>"
VISION_START, VISION_END, UNKNOWN = "<vision_start>", "<vision_end>", "<unknown>"
SPECIAL = (PAD, BEGIN, END, IMAGE, VIDEO, VISION_START, VISION_END, UNKNOWN)

ROWS = tuple(f"row{number}" for number in range(1, 6))
COLUMNS = tuple(f"column{number}" for number in range(1, 6))
DIGITS = tuple(map(str, range(10)))
_QUESTIONS: tuple[str, ...] = (
    "?",
    "digit",
    "at",
    "row",
    "column",
    "color",
    "of",
    "the",
    "which",
    "is",
    "how",
    "many",
    "largest",
)
_QUESTIONS += ("there", "a", "right", "below")
WORDS = (*SPECIAL, *DIGITS, *ROWS, *COLUMNS, *COLORS, *_QUESTIONS, "yes", "no", "none")
"""The vocabulary; a word's place is its id. Places have words of their own: a patch can be 3, in row 2, at once."""

# What a word is, for the tokenizer and for checks.
_LOWER, _SPLIT = Lowercase(), Sequence([WhitespaceSplit(), Punctuation("isolated")])


class VocabularyError(ValueError):
    """A question with words that the miniatures do not know; the message lists those that they do."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of both miniatures: one token a word, ``?`` apart."""
    model = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    model.normalizer, model.pre_tokenizer = _LOWER, _SPLIT
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=model,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        extra_special_tokens={
            "image_token": IMAGE,
            "video_token": VIDEO,
            "vision_bos_token": VISION_START,
            "vision_eos_token": VISION_END,
        },
    )


def check_words(text: str) -> None:
    """Check that every word of a question is known.

    Parameters
    ----------
    text : str

    Raises
    ------
    VocabularyError
        If one is not.

    Examples
    --------
    >>> check_words("Which digit is red?")
    """
    known = {word for word in WORDS if word not in SPECIAL}
    words = [word for word, _ in _SPLIT.pre_tokenize_str(_LOWER.normalize_str(text))]
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        named = f"has the unknown word {unknown[0]!r}" if unknown else "is empty"
        msg = f"the question {text!r} {named}; known are: {' '.join(sorted(known))}"
        raise VocabularyError(msg)
