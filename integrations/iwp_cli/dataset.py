"""A user's samples, from a JSON Lines file or a folder: checked before a model is loaded, encoded one by one."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwp_cli.media import read_media
from iwp_cli.refusal import Refusal
from iwp_transformers.media.encoding import encode
from iwp_transformers.media.errors import quoted
from iwp_transformers.media.kinds import IMAGE_NAMES, VIDEO_NAMES, kind_of_file, list_in

__all__ = ["Asked", "EncodedSamples", "read_samples"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question of a user about pictures on disk.

    Attributes
    ----------
    name : str
        By which a person finds it.
    prompt : str
        The question.
    images, videos : tuple of pathlib.Path
        What it is about, one or more in all.
    """

    name: str
    prompt: str
    images: tuple[Path, ...]
    videos: tuple[Path, ...]


class EncodedSamples(Sequence[Mapping[str, Any]]):
    """The model's inputs of each sample, made when they are asked for.

    Parameters
    ----------
    samples : sequence of Asked
        What is asked.
    processor : transformers.ProcessorMixin
        Of the model.
    config : transformers.PreTrainedConfig
        Of the whole model.
    frames : int
        Frames taken from each video.
    """

    def __init__(self, samples: Sequence[Asked], processor: Any, config: Any, frames: int) -> None:
        self._samples, self._processor, self._config, self._frames = samples, processor, config, frames

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        """Read the pictures of a sample and return the inputs; raises what is wrong with them."""
        sample = self._samples[index]
        media = read_media(sample.images, sample.videos, self._frames)
        return encode(self._processor, self._config, sample.prompt, media)


def read_samples(path: Path, prompt: str | None) -> list[Asked]:
    """Return the samples of a file or a folder; no picture is opened.

    Parameters
    ----------
    path : pathlib.Path
        A file of JSON lines, each an object with ``prompt`` and ``image`` or ``video`` (a path or a list of paths, from
        the file's folder), or a folder. A folder with one such file is read by it; in any other, each image and video
        is a sample whose question stands in a text file of the same name (``cat.jpg`` and ``cat.txt``).
    prompt : str or None
        The question where a sample has none of its own.

    Raises
    ------
    Refusal
        If there are no samples, one has no question or no picture, or a picture does not exist; the message names it.
    """
    # `os.path` has a plain answer for names that are too long, too.
    if not os.path.exists(path):
        msg = f"--data {quoted(path)} does not exist, expected a file of JSON lines or a folder"
        raise Refusal(msg)
    if path.is_dir():
        try:
            listed = list_in(path, of="samples")
        except ValueError as error:
            msg = f"--data {error}"
            raise Refusal(msg) from error
        samples = list(_of_lines(listed, prompt) if listed else _of_folder(path, prompt))
    else:
        samples = list(_of_lines(path, prompt))
    if not samples:
        msg = f"--data {quoted(path)} holds no samples"
        raise Refusal(msg)
    return samples


def _of_lines(path: Path, prompt: str | None) -> Iterator[Asked]:
    try:
        # Not `splitlines`: JSON text may hold other breaks than these, and a mark of byte order is no part of it.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"--data {quoted(path)} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise Refusal(msg) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _of_line(path, f"{path.name}:{number}", line, prompt)


def _of_line(path: Path, name: str, line: str, prompt: str | None) -> Asked:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        msg = f"{quoted(name)} is no JSON: {error}"
        raise Refusal(msg) from error
    if not isinstance(content, dict):
        msg = f"{quoted(name)} is a {type(content).__name__}, expected an object with prompt and image or video"
        raise Refusal(msg)
    question = prompt if content.get("prompt") is None else content["prompt"]
    if not isinstance(question, str) or not question.strip():
        msg = f"{quoted(name)} has no prompt: expected a text, or --prompt for all"
        raise Refusal(msg)
    images, videos = (_paths(path, name, content, keys) for keys in (IMAGE_NAMES, VIDEO_NAMES))
    if not images and not videos:
        msg = f"{quoted(name)} has no picture: expected image or video, a path or a list of paths"
        raise Refusal(msg)
    return Asked(name=name, prompt=question, images=images, videos=videos)


def _paths(path: Path, name: str, content: Mapping[str, Any], keys: Sequence[str]) -> tuple[Path, ...]:
    found: list[Path] = []
    for key in keys:
        given = content.get(key)
        given = [] if given is None else given if isinstance(given, list) else [given]
        for each in given:
            if not isinstance(each, str):
                msg = f"{quoted(name)}: {key} is {each!r}, expected a path or a list of paths"
                raise Refusal(msg)
            found.append(path.parent / each)
    for each in found:
        if not os.path.exists(each):
            msg = f"{quoted(name)} names {quoted(each)}, which does not exist"
            raise Refusal(msg)
    return tuple(found)


def _of_folder(path: Path, prompt: str | None) -> Iterator[Asked]:
    for file in sorted(path.iterdir()):
        kind = kind_of_file(file)
        if kind is None or file.is_dir():
            continue
        words = file.with_suffix(".txt")
        question = words.read_text(encoding="utf-8", errors="replace").strip() if words.is_file() else prompt
        if not question:
            msg = f"{quoted(file)} has no question: expected one in {quoted(words)}, or --prompt for all"
            raise Refusal(msg)
        yield Asked(
            name=file.name,
            prompt=question,
            images=(file,) if kind == "image" else (),
            videos=(file,) if kind == "video" else (),
        )
