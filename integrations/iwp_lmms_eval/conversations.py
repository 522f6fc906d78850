"""What a task of lmms-eval asks, as a processor of Transformers takes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

__all__ = ["Conversation", "conversation_of"]

PICTURES = ("image", "video")


@dataclass(frozen=True)
class Conversation:
    """One sample: its turns, and the pictures that they show, in their order.

    Attributes
    ----------
    turns : list of dict
        As a chat template takes them; pictures stand in them as ``{"type": "image"}`` and ``{"type": "video"}``.
    images : list of PIL.Image.Image
    videos : list
        Each as the task gives it: a path, or frames.
    """

    turns: list[dict[str, Any]]
    images: list[Image.Image]
    videos: list[Any]


def conversation_of(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Return the conversation that the messages of a task describe.

    Parameters
    ----------
    messages : sequence of mapping
        Each with a `role` and a `content`: a text, or a sequence of parts of a `type` with their `text` or `url`.

    Raises
    ------
    NotImplementedError
        If a part is neither text, image nor video.

    Examples
    --------
    >>> conversation_of([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]).turns
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'Hello'}]}]
    """
    turns: list[dict[str, Any]] = []
    images: list[Image.Image] = []
    videos: list[Any] = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns.append({"role": message["role"], "content": [_placed(part) for part in parts]})
        images += [_image(part["url"]) for part in parts if part["type"] == "image"]
        videos += [part["url"] for part in parts if part["type"] == "video"]
    return Conversation(turns, images, videos)


def _placed(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind not in PICTURES:
        msg = f"a message holds {kind!r}, expected text, image or video: nothing else can be asked about"
        raise NotImplementedError(msg)
    return {"type": kind}


def _image(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    with Image.open(source) as image:
        return image.convert("RGB")
