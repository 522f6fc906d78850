"""Reading the videos that the command line names, in every form, and refusing what is none."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iwp_transformers.media.errors import MediaError
from iwp_transformers.media.videos import read_video
from tests.integrations.processors import coordinate_picture


def test_video_frames_are_spread_from_first_to_last(tmp_path: Path) -> None:
    """The frames taken begin with the first, end with the last and are evenly apart."""
    np.save(tmp_path / "video.npy", np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((9, 2, 2, 3), np.uint8))

    video = read_video(tmp_path / "video.npy", 3)

    assert video.indices == [0, 4, 8]
    np.testing.assert_array_equal(video.frames[:, 0, 0, 0], [0, 4, 8])


def test_short_video_gives_all_its_frames(tmp_path: Path) -> None:
    """Asking for more frames than there are is no error."""
    for number in range(3):
        coordinate_picture(8, 8, number / 3).save(tmp_path / f"{number}.png")

    assert read_video(tmp_path, 16).frames.shape == (3, 8, 8, 3)


def number_of(frame: NDArray[np.uint8]) -> int:
    """Which frame it is: its blue."""
    return int(frame[0, 0, 2])


def numbered(number: int) -> Image.Image:
    """Frame that bears its number in blue."""
    return Image.new("RGB", (8, 8), (255, 0, number))


@pytest.mark.parametrize(
    "names",
    [
        [f"frame_{number}.png" for number in range(1, 13)],
        [f"{number}.PNG" for number in (0, 9, 10, 99, 100, 101, 1000)],
        ["shot 1 frame 2.png", "Shot 1 frame 10.png", "shot 2 frame 1.png", "shot 10 frame 1.png"],
        ["1.png", "a.png", "a1.png", "b.png"],
        ["frame_1.png", "frame_01.tif", "frame_001.bmp", "frame_2.png"],
    ],
    ids=["without zeros", "upper case", "two numbers", "words and numbers", "zeros and endings"],
)
def test_frames_of_a_folder_come_in_natural_order(names: list[str], tmp_path: Path) -> None:
    """Numbers count by their value wherever they stand, words in any case."""
    for number, name in enumerate(names):
        numbered(number).save(tmp_path / name)

    video = read_video(tmp_path, 100)

    expected = list(range(len(names)))
    if "frame_01.tif" in names:  # three names of one number: any order will do, as long as it is always the same
        assert sorted(map(number_of, video.frames)) == expected
        assert number_of(video.frames[-1]) == 3
    else:
        assert [number_of(frame) for frame in video.frames] == expected


def test_what_a_folder_holds_beside_frames_is_passed_over(tmp_path: Path) -> None:
    """Hidden files, notes, documents and folders, even those that are named like images."""
    numbered(7).save(tmp_path / "frame.png")
    (tmp_path / "._frame.png").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "paper.pdf").write_bytes(b"%PDF")
    (tmp_path / "more.png").mkdir()

    assert [number_of(frame) for frame in read_video(tmp_path, 4).frames] == [7]


def test_frames_are_read_as_images_are(tmp_path: Path) -> None:
    """Wide grey levels and orientation count for frames too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.linspace(0, 65535, 12).reshape(3, 4).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "frame.png", exif=exif)

    frames = read_video(tmp_path, 4).frames

    np.testing.assert_allclose(frames[0, ..., 0], np.rot90(ramp, -1) / 257, atol=1)


def test_damaged_frame_is_named(tmp_path: Path) -> None:
    """The frame, not the folder."""
    numbered(0).save(tmp_path / "1.png")
    (tmp_path / "2.png").touch()

    with pytest.raises(MediaError, match=r"2\.png' is empty"):
        read_video(tmp_path, 4)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif", "GIF"])
def test_animation_and_pages_are_a_video(ending: str, tmp_path: Path) -> None:
    """Every frame by its number; an animation says how fast they follow."""
    first, *rest = map(numbered, range(0, 200, 20))
    first.save(
        tmp_path / f"moving.{ending}", ending.upper().replace("TIF", "TIFF"),
        save_all=True, append_images=rest, duration=250, lossless=True,
    )  # fmt: skip

    video = read_video(tmp_path / f"moving.{ending}", 4)

    assert (video.total, video.indices) == (10, [0, 3, 6, 9])
    assert [number_of(frame) for frame in video.frames] == [0, 60, 120, 180]
    assert video.rate == (None if ending == "tif" else 4.0)


def test_still_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    """Whoever asks for it gets it."""
    numbered(5).save(tmp_path / "still.png")

    video = read_video(tmp_path / "still.png", 4)

    assert (video.total, number_of(video.frames[0])) == (1, 5)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animation_of_one_frame_is_a_video_of_one_frame(ending: str, tmp_path: Path) -> None:
    """Saved as an animation, with nothing to follow."""
    numbered(60).save(tmp_path / f"still.{ending}", save_all=True, lossless=True)

    video = read_video(tmp_path / f"still.{ending}", 4)

    assert (video.total, video.indices, video.frames.shape) == (1, [0], (1, 8, 8, 3))
    assert number_of(video.frames[0]) == 60


def test_animation_with_transparency_lies_on_white(tmp_path: Path) -> None:
    """In every frame, not the first alone."""
    clear = [Image.new("RGBA", (8, 8), (0, 0, number, 0)) for number in (0, 1, 2)]
    clear[0].save(tmp_path / "clear.webp", save_all=True, append_images=clear[1:], lossless=True, exact=True)

    assert (read_video(tmp_path / "clear.webp", 3).frames == 255).all()


def test_a_thread_of_pixels_is_read_as_it_is(tmp_path: Path) -> None:
    """No frame is too long or too small to be read; what a model makes of it is its processor's word."""
    for size in ((1, 1), (1000, 1), (1, 1000)):
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "thread.png")

        assert read_video(tmp_path / "thread.png", 4).frames.shape == (1, size[1], size[0], 3)


def test_pages_of_different_sizes_are_refused(tmp_path: Path) -> None:
    """Both sizes are told."""
    numbered(0).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.new("RGB", (9, 5))])

    with pytest.raises(MediaError, match=r"different sizes, such as 8 x 8 and 9 x 5 pixels"):
        read_video(tmp_path / "pages.tif", 4)


@pytest.mark.parametrize("name", ["clip.npy", "clip.NPY", "clip.gif", "clip.mp4"])
def test_empty_video_file_is_refused(name: str, tmp_path: Path) -> None:
    """Whatever it is called."""
    (tmp_path / name).touch()

    with pytest.raises(MediaError, match=r"is empty \(0 bytes\)"):
        read_video(tmp_path / name, 4)


def test_cut_array_is_refused(tmp_path: Path) -> None:
    """The header announces more than there is."""
    np.save(tmp_path / "clip.npy", np.zeros((4, 8, 8, 3), np.uint8))
    (tmp_path / "clip.npy").write_bytes((tmp_path / "clip.npy").read_bytes()[:-100])

    with pytest.raises(MediaError, match=r"clip\.npy' cannot be read"):
        read_video(tmp_path / "clip.npy", 4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4, 3)), r"holds float64 \(2, 4, 4, 3\), expected uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"expected uint8 of shape \(frames, height, width, 3\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"holds uint8 \(0, 4, 4, 3\)"),
        (np.array([{}]), r"cannot be read: .*Python objects"),
    ],
    ids=["fractions", "one frame", "no frame", "objects"],
)
def test_array_that_is_no_video_is_refused(array: NDArray[Any], message: str, tmp_path: Path) -> None:
    """What the array is and what it should be are both told."""
    np.save(tmp_path / "video.npy", array)

    with pytest.raises(MediaError, match=message):
        read_video(tmp_path / "video.npy", 4)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    """An empty folder is no video."""
    with pytest.raises(MediaError, match="holds no image files"):
        read_video(tmp_path, 4)


def test_folder_of_different_sizes_is_refused(tmp_path: Path) -> None:
    """Frames of one video have one size."""
    for size in (8, 9):
        coordinate_picture(size, 8).save(tmp_path / f"{size}.png")

    with pytest.raises(MediaError, match="frames of different sizes"):
        read_video(tmp_path, 4)


def test_video_file_without_pyav_says_what_else_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV is named, and the two forms that need nothing."""
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "video.mp4").write_bytes(bytes(64))

    with pytest.raises(MediaError, match=r"need PyAV .*a folder of frames or a \.npy array needs nothing"):
        read_video(tmp_path / "video.mp4", 4)


def write_video(av: Any, path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Write frames of 48 x 64 pixels into a video file, eight a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height = 64, 48
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_video_file_gives_its_frames_and_rate(tmp_path: Path) -> None:
    """A file written with PyAV is read back: which frames, how many there are, how fast they follow."""
    av = pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    write_video(av, tmp_path / "video.mp4", [np.full((48, 64, 3), 12 * number, np.uint8) for number in range(20)])

    video = read_video(tmp_path / "video.mp4", 4)

    assert (video.total, video.indices, video.rate) == (20, [0, 6, 13, 19], 8.0)
    np.testing.assert_allclose(video.frames.mean(axis=(1, 2, 3)), [0, 72, 156, 228], atol=6)


@pytest.mark.parametrize(
    ("turn", "matrix"),
    [(-1, (0, 1, -1, 0)), (1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1))],
    ids=["clockwise", "counter-clockwise", "upside down"],
)
def test_video_is_turned_as_the_phone_was_held(turn: int, matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    """The track's display matrix, written into the file by hand, is heeded."""
    av = pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    path = tmp_path / "video.mp4"
    stored = np.asarray(coordinate_picture(48, 64, 0.5))
    write_video(av, path, [stored] * 4)
    data = bytearray(path.read_bytes())
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(identity, data.index(b"tkhd"))
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)

    frames = read_video(path, 1).frames.astype(int)

    assert np.abs(frames[0] - np.rot90(stored, turn)).mean() < 6


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_short_video_file_of_any_container_gives_its_frames(count: int, ending: str, tmp_path: Path) -> None:
    """One frame is a video too, and Matroska does not say how many it holds."""
    av = pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    path = tmp_path / f"video.{ending}"
    write_video(av, path, [np.full((48, 64, 3), 25 * number, np.uint8) for number in range(count)])

    video = read_video(path, 3)

    assert video.total == count
    assert video.indices == {1: [0], 2: [0, 1], 9: [0, 4, 8]}[count]
    np.testing.assert_allclose(video.frames.mean(axis=(1, 2, 3)), [25 * index for index in video.indices], atol=6)


def test_file_with_sound_alone_is_refused(tmp_path: Path) -> None:
    """A video without pictures is none."""
    av = pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    with pytest.raises(MediaError, match=r"sound\.mp4' holds no video"):
        read_video(tmp_path / "sound.mp4", 4)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_cut_video_is_refused(share: float, tmp_path: Path) -> None:
    """Wherever it ends."""
    av = pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    path = tmp_path / "video.mp4"
    write_video(av, path, [np.full((48, 64, 3), 12 * number, np.uint8) for number in range(20)])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    with pytest.raises(MediaError, match=r"video\.mp4' "):
        read_video(path, 4)


def test_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    """PyAV's reason is passed on."""
    pytest.importorskip("av", reason="video files are read with PyAV, which is not installed")
    (tmp_path / "video.mp4").write_text("no video")

    with pytest.raises(MediaError, match="is not a video that PyAV can read"):
        read_video(tmp_path / "video.mp4", 4)
