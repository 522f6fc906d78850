"""A tokenizer whose words are letters, for models of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import BertTokenizerFast


def save_letters(folder: Path, **special: Any) -> int:
    """Write a tokenizer of single letters to a folder, with what else it is to know; return how many words it has."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), **special).save_pretrained(folder)
    return len(words)
