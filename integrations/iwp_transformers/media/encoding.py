"""From a question and pictures to the model's inputs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import BatchFeature

from iwp_transformers.media.errors import MediaError, first_line, quoted
from iwp_transformers.media.videos import Video

__all__ = ["Media", "encode", "encode_batch"]


@dataclass(frozen=True, kw_only=True)
class Media:
    """Images and videos of one sample by their paths, each kind in its order."""

    images: Sequence[tuple[Path, Image.Image]]
    videos: Sequence[tuple[Path, Video]]

    def count(self, kind: str) -> int:
        """Return how many there are of "image" or "video"."""
        return len(self.images if kind == "image" else self.videos)


def encode(processor: Any, config: Any, prompt: str, media: Media) -> BatchFeature:
    """Turn question and pictures into the model's inputs, through its chat template if it has one.

    Parameters
    ----------
    processor : transformers.ProcessorMixin
    config : transformers.PreTrainedConfig
        Of the whole model.
    prompt : str
        The question. Where it holds the model's own placeholders, such as ``<image>``, they say where the pictures
        stand; otherwise pictures come first.
    media : Media

    Returns
    -------
    transformers.BatchFeature

    Raises
    ------
    MediaError
        If the model takes no videos, if the prompt is no text or has other than one placeholder for each picture, or if
        the processor refuses a picture; the message names it.
    """
    return encode_batch(processor, config, [prompt], [media])


def encode_batch(processor: Any, config: Any, prompts: Sequence[str], media: Sequence[Media]) -> BatchFeature:
    """Turn B questions, each with pictures of its own, into the model's inputs; padded as the tokenizer is set.

    Parameters
    ----------
    processor : transformers.ProcessorMixin
    config : transformers.PreTrainedConfig
        Of the whole model.
    prompts : sequence of str, length B
        As of `encode`.
    media : sequence of Media, length B
        All of them with images, or none; all of them with videos, or none.

    Returns
    -------
    transformers.BatchFeature

    Raises
    ------
    MediaError
        As of `encode`.
    """
    texts = [_text(processor, config, prompt, each) for prompt, each in zip(prompts, media, strict=True)]
    arguments: dict[str, Any] = {"text": texts}
    if len(texts) > 1:
        arguments["padding"] = True
    if any(each.images for each in media):
        arguments["images"] = [[image for _, image in each.images] for each in media]
    if any(each.videos for each in media):
        clips = [clip for each in media for _, clip in each.videos]
        arguments["videos"] = [[clip.frames for _, clip in each.videos] for each in media]
        arguments["do_sample_frames"] = False
        arguments["video_metadata"] = [
            {"total_num_frames": clip.total, "fps": clip.rate, "frames_indices": clip.indices} for clip in clips
        ]
    try:
        inputs: BatchFeature = processor(**arguments, return_tensors="pt")
    except Exception as error:
        # A processor says in its own words, and with errors of any kind, which sizes it cannot take.
        raise MediaError(_refused(processor, media, error)) from error
    return inputs


def _refused(processor: Any, media: Sequence[Media], error: Exception) -> str:
    """Say which picture the processor refuses, by trying the images one by one."""
    name = type(processor).__name__
    for path, image in (pair for each in media for pair in each.images):
        try:
            processor.image_processor([image], return_tensors="pt")
        except Exception as reason:
            size = f"{image.width} x {image.height} pixels"
            return f"{quoted(path)} has {size}, which the model's {name} refuses: {first_line(reason)}"
    paths = ", ".join(quoted(path) for each in media for path, _ in [*each.images, *each.videos])
    return f"{paths}: the model's {name} refuses this: {first_line(error)}"


def _text(processor: Any, config: Any, prompt: str, media: Media) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):
        msg = "the prompt holds bytes that are no UTF-8 text"
        raise MediaError(msg)
    if media.videos and not hasattr(processor, "video_token"):
        msg = f"{quoted(media.videos[0][0])} is a video, and the model's {type(processor).__name__} takes images only"
        raise MediaError(msg)
    around = [getattr(config, f"vision_{end}_token_id", None) for end in ("start", "end")]
    before, after = ("" if end is None else processor.tokenizer.convert_ids_to_tokens(end) for end in around)
    tokens = {kind: getattr(processor, f"{kind}_token", None) for kind in ("image", "video")}
    marks = {kind: f"{before}{token}{after}" for kind, token in tokens.items() if token}
    first, parts = _parts(prompt, {kind: token for kind, token in tokens.items() if token}, (before, after), media)
    if getattr(processor, "chat_template", None):
        content = [{"type": kind} for kind in first]
        content += [{"type": kind, "text": text} if kind == "text" else {"type": kind} for kind, text in parts]
        turns = [{"role": "user", "content": content}]
        rendered: str = processor.apply_chat_template(turns, add_generation_prompt=True)
        return rendered
    return "".join(f"{marks[kind]}\n" for kind in first) + "".join(marks.get(kind, text) for kind, text in parts)


def _parts(
    prompt: str, tokens: Mapping[str, str], around: tuple[str, str], media: Media
) -> tuple[list[str], list[tuple[str, str]]]:
    # The kinds of pictures that come first, and the prompt as (kind, text), placeholders told from words.
    before, after = map(re.escape, around)
    # Each kind's placeholder is a named group; the marks around it go with it.
    pattern = "|".join(f"(?:{before})?(?P<{kind}>{re.escape(token)})(?:{after})?" for kind, token in tokens.items())
    parts, end = [], 0
    for found in re.finditer(pattern, prompt):
        parts += [("text", prompt[end : found.start()]), (str(found.lastgroup), found.group())]
        end = found.end()
    parts = [(kind, text) for kind, text in [*parts, ("text", prompt[end:])] if kind != "text" or text]
    first: list[str] = []
    for kind, token in tokens.items():
        placed, given = sum(part == kind for part, _ in parts), media.count(kind)
        if placed not in {0, given}:
            allowed = f"none, or {given}: one for each {kind}" if given else f"none: there is no {kind}"
            msg = f"the prompt holds {token} {placed} times, expected {allowed}"
            raise MediaError(msg)
        first += [] if placed else [kind] * given
    return first, parts
