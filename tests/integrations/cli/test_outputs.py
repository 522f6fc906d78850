"""Where the commands write their pictures: checked before the work, and one line where it fails after all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from iwp_cli.outputs import check_writable, write_figure
from iwp_cli.refusal import Refusal


@pytest.mark.parametrize("name", ["out.PNG", "out.png", "out.jpeg", "out.JPG", "out.Webp", "out.tiff", "out.tif"])
def test_picture_is_written_whatever_the_case_of_its_ending(name: str, tmp_path: Path) -> None:
    """The ending says the format."""
    path = tmp_path / name
    check_writable(path)

    write_figure(Figure(figsize=(2, 1)), path, dpi=50)

    with Image.open(path) as image:
        assert image.size == (100, 50)
        assert image.format == {"p": "PNG", "j": "JPEG", "w": "WEBP", "t": "TIFF"}[path.suffix[1].lower()]


@pytest.mark.parametrize("name", ["out.SVG", "out.pdf"])
def test_drawing_is_written_whatever_the_case_of_its_ending(name: str, tmp_path: Path) -> None:
    """The two that are no pixels."""
    write_figure(Figure(figsize=(2, 1)), tmp_path / name, dpi=50)

    assert (tmp_path / name).read_bytes()[:5] in {b"<?xml", b"%PDF-"}


@pytest.mark.parametrize("name", ["out", "out.docx", "out.png.zip", ".png"])
def test_unknown_ending_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    """All are listed."""
    with pytest.raises(Refusal, match=r"has no known ending, expected \.png, \.jpg, \.jpeg"):
        check_writable(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/out.png", "there is no folder"),
        ("folder.png", "it is a folder"),
        ("file.txt/out.png", "there is no folder"),
        ("x" * 300 + ".png", "File name too long"),
    ],
)
def test_place_that_cannot_be_written_to_is_refused(name: str, message: str, tmp_path: Path) -> None:
    """The path is named, with the reason."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.txt").touch()

    with pytest.raises(Refusal, match=f"cannot be written: {message}"):
        check_writable(tmp_path / name)


@pytest.mark.parametrize(("exists", "what"), [(True, "it"), (False, "its folder")])
def test_write_protection_is_said_before_the_work(
    exists: bool, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the file or of its folder; made here by hand, since tests may run as one who may write all."""
    if exists:
        (tmp_path / "out.png").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(Refusal, match=f"cannot be written: {what} is write-protected"):
        check_writable(tmp_path / "out.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """What fails only when writing is told as well."""
    (tmp_path / "out.png").symlink_to("/dev/full")

    with pytest.raises(Refusal, match=r"out\.png' cannot be written: No space left"):
        write_figure(Figure(), tmp_path / "out.png", dpi=50)


def test_picture_too_long_for_its_resolution_gets_fewer_dots(tmp_path: Path) -> None:
    """Neither refused nor cut off."""
    write_figure(Figure(figsize=(1, 400)), tmp_path / "out.png", dpi=150)

    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (81, 2**15)
