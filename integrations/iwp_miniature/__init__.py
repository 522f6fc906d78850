"""Two trained miniature vision-language models: genuine Transformers classes that answer questions about digits.

Small enough to ship, good enough that dropping the wrong visual tokens costs answers. Loaded and asked with
`load_miniature`, trained from scratch with the command ``iwp-train-miniature``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iwp_miniature.architectures import ARCHITECTURES, Architecture, architecture
    from iwp_miniature.examples import Example, draw_examples, in_batches
    from iwp_miniature.miniature import Miniature, MiniatureError, load_miniature
    from iwp_miniature.questions import KINDS, Question, balanced_question, questions_about
    from iwp_miniature.scenes import DigitObject, Layout, Scene, draw_layout, render
    from iwp_miniature.vocabulary import VocabularyError

__all__ = [
    "ARCHITECTURES",
    "KINDS",
    "Architecture",
    "DigitObject",
    "Example",
    "Layout",
    "Miniature",
    "MiniatureError",
    "Question",
    "Scene",
    "VocabularyError",
    "architecture",
    "balanced_question",
    "draw_examples",
    "draw_layout",
    "in_batches",
    "load_miniature",
    "questions_about",
    "render",
]

# Imported when first asked for, so that the command line can say which package is missing instead of failing on it.
_HOMES = {
    "ARCHITECTURES": "architectures",
    "Architecture": "architectures",
    "DigitObject": "scenes",
    "Example": "examples",
    "KINDS": "questions",
    "Layout": "scenes",
    "Miniature": "miniature",
    "MiniatureError": "miniature",
    "Question": "questions",
    "Scene": "scenes",
    "VocabularyError": "vocabulary",
    "architecture": "architectures",
    "balanced_question": "questions",
    "draw_examples": "examples",
    "draw_layout": "scenes",
    "in_batches": "examples",
    "load_miniature": "miniature",
    "questions_about": "questions",
    "render": "scenes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
