"""Where the commands write their pictures: checked before the work, and one line where it fails after all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from iwp_cli.app import app
from iwp_cli.outputs import check_apart, check_writable, write_figure
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--model", "none", "--prompt", "?", "--image", "{cat}", "--picture", "{cat}"], "--picture"),
        (["bench", "none", "--image", "{cat}", "--output", "{link}"], "--output"),
        (["demo", "--image", "{cat}", "--output", "{cat}"], "--output"),
        (["tune", "none", "--data", "{list}", "--output", "{folder}/cat.json"], "--picture"),
        (["tune", "none", "--data", "{list}", "--output", "{list}"], "--output"),
    ],
    ids=lambda value: " ".join(value[::8]) if isinstance(value, list) else None,
)
def test_no_command_writes_over_what_it_reads(arguments: list[str], message: str, tmp_path: Path) -> None:
    """Not by another name, and not where a name is made of another's; what was read is as it was."""
    cat, link, samples = tmp_path / "cat.png", tmp_path / "link.png", tmp_path / "samples.jsonl"
    Image.new("RGB", (40, 30)).save(cat)
    link.symlink_to(cat)
    samples.write_text('{"image": "cat.png", "prompt": "?"}\n', encoding="utf-8")
    before = cat.read_bytes(), samples.read_bytes()
    places = {"cat": cat, "link": link, "list": samples, "folder": tmp_path}

    done = CliRunner().invoke(app, [each.format(**places) for each in arguments])

    assert done.exit_code == 2
    assert f"error: {message} " in done.output
    assert "would replace what is read: choose another place" in done.output
    assert (cat.read_bytes(), samples.read_bytes()) == before


def test_places_to_write_are_apart_from_folders_that_are_read_and_from_each_other(tmp_path: Path) -> None:
    """The next run would take a picture in a folder of pictures for one of them."""
    one, other = tmp_path / "one.json", tmp_path / "other.png"
    check_apart({"--output": one, "--picture": other}, [tmp_path / "samples.jsonl", tmp_path / "frames"])

    with pytest.raises(Refusal, match=r"--output '.*' lies in '.*', whose files are read"):
        check_apart({"--output": one}, [tmp_path])
    with pytest.raises(Refusal, match=r"--output and --journal are both '.*one\.json': choose a place for each"):
        check_apart({"--output": one, "--journal": one}, [])
