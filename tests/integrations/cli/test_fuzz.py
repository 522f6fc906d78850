"""Odd pictures and videos, drawn at random: the command ends in an answer, or in one line that names the file."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaOnevisionForConditionalGeneration, Qwen2_5_VLForConditionalGeneration
from typer.testing import CliRunner, Result

from iwp_cli import loading
from iwp_cli.app import app
from iwp_transformers.media.errors import MediaError
from iwp_transformers.media.videos import read_video
from tests.integrations.processors import (
    PillowOnevisionProcessor,
    PillowQwenProcessor,
    llava_processor,
    onevision_config,
    qwen2_5_vl_config,
)
from tests.models.factory import tiny_model

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I;16B", "I", "F")
FORMATS = ("PNG", "TIFF", "JPEG", "GIF", "WEBP", "BMP", "PPM", "TGA", "PCX", "ICO", "JPEG2000", "SGI", "IM")
THREADS = [(1, 1), (1000, 1), (1, 1000), (400, 2), (2, 199), (201, 1), (1, 7), (5000, 3)]
NAMES = ("picture", "two\nlines", "[red]markup", "-dash", "ünïcödé", "spa ce", "quote'", "%s{0}", "picture.tar")


@dataclass(frozen=True)
class File:
    """A file to make: its name, and its bytes or what a folder of that name holds."""

    name: str
    content: bytes | tuple[File, ...]

    def write(self, folder: Path) -> Path:
        """Make it, and return where it is."""
        path = folder / self.name
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
            return path
        path.mkdir()
        for file in self.content:
            file.write(path)
        return path


def pixels(draw: Callable[..., Any], mode: str, size: tuple[int, int]) -> Image.Image:
    """Image of noise, or of one value, in any mode; numbers of any size where the mode allows them."""
    seed = draw(st.integers(0, 2**16))
    width, height = size
    if mode in {"I;16", "I;16B", "I", "F"}:
        scale = draw(st.sampled_from([0.0, 1.0, 255.0, 65535.0, 2.0**31 - 1, 1e38, float("inf"), float("nan")]))
        with np.errstate(invalid="ignore"):
            noise = np.random.default_rng(seed).uniform(0 if mode != "F" else -1, 1, (height, width)) * scale
            kind = {"I": np.int32, "F": np.float32}.get(mode, np.uint16)
            return Image.fromarray(noise.astype(kind))
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    return image.convert("RGB").convert(mode) if mode in {"CMYK", "YCbCr", "LAB", "HSV"} else image.convert(mode)


@st.composite
def images(draw: Callable[..., Any]) -> bytes:
    """Bytes of an image file: whole, cut, or with some bytes changed."""
    size = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)) | st.sampled_from(THREADS))
    image = pixels(draw, draw(st.sampled_from(MODES)), size)
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 9))
    moving = draw(st.booleans())
    buffer = io.BytesIO()
    try:
        more: dict[str, Any] = {"save_all": True, "append_images": [image.copy()] * 2} if moving else {}
        if image.mode == "P" and draw(st.booleans()):
            more["transparency"] = draw(st.sampled_from([0, 255, bytes(range(256))]))
        image.save(buffer, draw(st.sampled_from(FORMATS)), exif=exif, **more)
    except (OSError, ValueError, KeyError, TypeError, SystemError, AttributeError):
        image.save(buffer, "TIFF") if image.mode != "HSV" else image.convert("RGB").save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    damage = draw(st.sampled_from(["none", "none", "cut", "changed"]))
    if damage == "cut":
        return bytes(data[: draw(st.integers(0, len(data)))])
    if damage == "changed":
        for _ in range(draw(st.integers(1, 8))):
            data[draw(st.integers(0, min(len(data) - 1, 600)))] = draw(st.integers(0, 255))
    return bytes(data)


def arrays() -> st.SearchStrategy[bytes]:
    """Bytes of a `.npy` file: of a video, or of anything else."""

    def encode(array: Any, cut: int) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()[: None if cut == 0 else -cut]

    shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple) | st.tuples(
        st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.just(3)
    )
    kinds = st.sampled_from([np.uint8, np.uint8, np.uint8, np.float32, np.int64, np.bool_, "U3", "datetime64[s]"])
    made = st.builds(np.zeros, shapes, kinds)
    return st.builds(encode, made, st.sampled_from([0, 0, 0, 1, 50, 10_000]))


CONTENTS = images() | st.binary(max_size=64) | arrays()
FILES = st.builds(
    lambda name, ending, content: File(name + ending, content),
    st.sampled_from(NAMES), st.sampled_from([".png", ".TIF", ".gif", ".npy", ".mp4", ".jpeg", ".mpg", ""]), CONTENTS,
)  # fmt: skip
FOLDERS = st.builds(
    lambda name, files: File(name, tuple({file.name: file for file in files}.values())),
    st.sampled_from(NAMES), st.lists(FILES, max_size=3),
)  # fmt: skip
PROMPTS = st.sampled_from([
    "what is this ?",
    "",
    "<|image_pad|>",
    "<|video_pad|> <|image_pad|>",
    "a\n[b]\\ {c}",
    "\udcff",
])


def qwen() -> tuple[Any, Any]:
    """Qwen2.5-VL, with a processor that needs no torchvision."""
    model = Qwen2_5_VLForConditionalGeneration(qwen2_5_vl_config())
    return model, PillowQwenProcessor(model.config)


def onevision() -> tuple[Any, Any]:
    """LLaVA-OneVision, whose even grid may lose all its rows or columns; its processor likewise."""
    model = LlavaOnevisionForConditionalGeneration(onevision_config(32))
    return model, PillowOnevisionProcessor(model.config)


def llava() -> tuple[Any, Any]:
    """LLaVA-1.5, which has no file of its own."""
    model: Any = tiny_model("llava")
    return model, llava_processor(model.config)


@pytest.fixture(scope="module", params=[qwen, onevision, llava], ids=lambda build: build.__name__)
def asked_in_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the command ask one tiny model, made once."""
    model, processor = request.param()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "check_model", lambda *_, **__: None)
        patch.setattr(loading, "load_model", lambda *_, **__: model.eval())
        patch.setattr(loading, "load_processor", lambda *_, **__: processor)
        yield


def ask(option: str, file: File, prompt: str, ending: str) -> tuple[Result, Path]:
    """Ask about a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = file.write(Path(folder))
        arguments = ["generate", "--model", "tiny", option, str(path), "--prompt", prompt, "--layer", "1"]
        arguments += ["--max-new-tokens", "1", "--picture", f"{folder}/kept{ending}"]
        return CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments), path


def check(result: Result, path: Path) -> None:
    """Fail unless the command answered, or refused in one line that names the file."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    lines = [line for line in result.output.strip().splitlines() if "generate: warning: LlavaFor" not in line]
    if result.exit_code == 0:
        assert any(line.startswith("│ answer ") for line in lines)
        return
    assert result.exit_code == 2, result.output
    (line,) = lines
    assert line.startswith("iwp generate: error: ")
    assert repr(str(path))[1:-1] in line or "the prompt" in line


FUZZ = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("asked_in_memory")
@FUZZ
@given(file=FILES | FOLDERS, prompt=PROMPTS, ending=st.sampled_from([".png", ".JPG", ".Svg"]))
def test_any_file_as_an_image_is_answered_or_refused_in_one_line(file: File, prompt: str, ending: str) -> None:
    """Whole, damaged or no image at all."""
    check(*ask("--image", file, prompt, ending))


@pytest.mark.filterwarnings("ignore")
@FUZZ
@given(file=FILES | FOLDERS)
def test_any_file_as_a_video_is_read_or_refused_with_its_name(file: File) -> None:
    """Frames of one size and three colours, or a refusal that names the file or one of its frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = file.write(Path(folder))
        video = None
        with contextlib.suppress(MediaError):
            video = read_video(path, 4)
        if video is None:
            with pytest.raises(MediaError, match=re.escape(repr(str(path))[1:-1])):
                read_video(path, 4)
            return

    assert video.frames.dtype == np.uint8
    assert video.frames.shape[0] == len(video.indices) == min(4, video.total)
    assert video.frames.shape[-1] == 3
