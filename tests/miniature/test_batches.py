"""Batches: questions, answers and what visual tokens look at, against the scenes that they were drawn from."""

import numpy as np
import pytest
import torch

from iwp_miniature.architectures import Architecture
from iwp_miniature.batches import IGNORED, Batch
from iwp_miniature.questions import KINDS
from iwp_miniature.scenes import Scene
from iwp_miniature.vocabulary import WORDS
from tests.miniature.answerer import cell, first_look, read, texts
from tests.miniature.conftest import DrawBatch

GRIDS = {"llava-onevision": (4, 4), "qwen2.5-vl": (3, 5)}
TOKEN = 8


def words_of(ids: torch.Tensor) -> list[str]:
    """Words of ids, without padding."""
    return [WORDS[index] for index in ids.tolist() if WORDS[index] != "<pad>"]


def labelled(labels: torch.Tensor) -> dict[int, str]:
    """Word to be said at each trained place of a slot."""
    return {place: WORDS[label] for place, label in enumerate(labels.tolist()) if label != IGNORED}


def word_or_none(label: int) -> str | None:
    """Word of a label, None where nothing is trained."""
    return None if label == IGNORED else WORDS[label]


def looks_at(kind: Architecture, scene: Scene) -> list[tuple[int, int] | None]:
    """Row and column of the pixel in the middle of each visual token's area; None for newlines.

    Nothing is resized: Qwen's tokens are squares of eight pixels, row by row. The four crops of LLaVA-OneVision are cut
    into such squares too, and read line by line across crops, each line ending in a newline; before them comes a view
    of half the size.
    """
    height, width, _ = scene.pixels.shape
    lines = [
        [(top + TOKEN // 2, left + TOKEN // 2) for left in range(0, width, TOKEN)] for top in range(0, height, TOKEN)
    ]
    if kind.name == "qwen2.5-vl":
        return [place for line in lines for place in line]
    view = [(top + TOKEN, left + TOKEN) for top in range(0, height, 2 * TOKEN) for left in range(0, width, 2 * TOKEN)]
    return [*view, *(place for line in lines for place in [*line, None])]


def test_questions_are_answered_rightly(kind: Architecture, draw_batch: DrawBatch) -> None:
    """After the question mark its answer, then the end, and nothing else, is to be said; a second reading agrees."""
    batch, scenes = draw_batch(GRIDS[kind.name], pictures=4, questions=30)

    assert batch.slots.shape == batch.labels.shape == (4, 30, batch.packing.length)
    for picture, scene in enumerate(scenes):
        for slot, labels in zip(batch.slots[picture], batch.labels[picture], strict=True):
            *question, answer = words_of(slot)
            reading = read(" ".join(question), scene.layout)
            assert reading is not None
            assert answer == reading.answer
            assert labelled(labels) == {question.index("?"): answer, len(question): "<end>"}


def test_questions_say_where_they_end_and_where_to_look_first(kind: Architecture, draw_batch: DrawBatch) -> None:
    """At the question mark; in the cell of the digit that their words name, if they name one."""
    batch, scenes = draw_batch(GRIDS[kind.name], pictures=4, questions=30)

    for place in np.ndindex(*batch.kinds.shape):
        *question, _ = words_of(batch.slots[place])
        thing = first_look(" ".join(question), scenes[place[0]].layout)
        row, column = (None, None) if thing is None else cell(thing)
        assert batch.asked[place] == question.index("?")
        assert tuple(map(word_or_none, batch.looks[place].tolist())) == (
            (None, None) if thing is None else (f"row{row}", f"column{column}")
        )


def test_kinds_are_those_of_the_questions(kind: Architecture, draw_batch: DrawBatch) -> None:
    """Every kind is asked, and each question is one of the kind that it is counted as."""
    batch, scenes = draw_batch(GRIDS[kind.name], pictures=10, questions=30)

    assert set(batch.kinds.ravel().tolist()) == set(range(len(KINDS)))
    for picture, index in np.ndindex(*batch.kinds.shape):
        *question, _ = words_of(batch.slots[picture, index])
        assert " ".join(question) in texts(KINDS[batch.kinds[picture, index]], scenes[picture].layout)


@pytest.mark.parametrize("only", ["position", "count", "largest", "presence"])
def test_weights_say_which_kinds_are_asked(draw_batch: DrawBatch, only: str) -> None:
    """A kind of weight zero never comes; these four can be asked about any picture."""
    batch, _ = draw_batch(pictures=1, questions=5, only=only)

    assert set(batch.kinds.ravel().tolist()) == {KINDS.index(only)}


def test_both_styles_are_shown(draw_batch: DrawBatch) -> None:
    """Sparse and dense pictures take turns."""
    _, scenes = draw_batch(pictures=4)

    assert [scene.layout.style for scene in scenes] == ["sparse", "dense", "sparse", "dense"]


def test_the_prefix_holds_a_placeholder_for_each_visual_token(kind: Architecture, draw_batch: DrawBatch) -> None:
    """Begin, the picture between the marks of its family, and nothing of the question."""
    batch, scenes = draw_batch(GRIDS[kind.name])
    count = len(looks_at(kind, scenes[0]))
    marks = {"llava-onevision": ([], []), "qwen2.5-vl": (["<vision_start>"], ["<vision_end>"])}[kind.name]

    words = words_of(batch.prefix)

    assert words == ["<begin>", *marks[0], *["<image>"] * count, *marks[1]]
    assert words[batch.packing.visual] == ["<image>"] * count
    assert (batch.packing.prefix, batch.packing.slots) == (len(words), batch.slots.shape[1])


def test_pictures_reach_the_model_pixel_for_pixel(kind: Architecture, draw_batch: DrawBatch) -> None:
    """What the processor makes of a picture, put together by hand, is the picture, from -1 to 1."""
    batch, scenes = draw_batch(GRIDS[kind.name])
    pixels = batch.pixels["pixel_values"]
    for index, scene in enumerate(scenes):
        height, width, _ = scene.pixels.shape
        if kind.name == "llava-onevision":
            crops = pixels[index, 1:].unflatten(0, (2, 2))
            seen = crops.permute(2, 0, 3, 1, 4).reshape(3, height, width)
        else:
            # Patches of 4 x 4 pixels in squares of 2 x 2, the frame twice.
            squares = pixels.chunk(len(scenes))[index].view(height // 8, width // 8, 2, 2, 3, 2, 4, 4)
            assert torch.equal(squares[..., 0, :, :], squares[..., 1, :, :])
            seen = squares[..., 0, :, :].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, height, width)
        expected = torch.from_numpy(scene.pixels / 127.5 - 1).permute(2, 0, 1).float()
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


def test_inks_are_what_stands_where_a_token_looks(kind: Architecture, draw_batch: DrawBatch) -> None:
    """Digit and colour of the box around the token's middle, "none" on the ground, nothing for a newline."""
    batch, scenes = draw_batch(GRIDS[kind.name], pictures=4)

    for scene, inks in zip(scenes, batch.inks.tolist(), strict=True):
        expected: list[tuple[str | None, str | None]] = []
        for place in looks_at(kind, scene):
            expected.append((None, None) if place is None else ink_at(scene, *place))
        assert [(word_or_none(digit), word_or_none(color)) for digit, color in inks] == expected
        assert ("none", "none") in expected


def ink_at(scene: Scene, y: int, x: int) -> tuple[str, str]:
    """Digit and colour of the box that a pixel lies in."""
    for thing in scene.layout.objects:
        if 0 <= y - thing.top < 16 and 0 <= x - thing.left < 16:
            return str(thing.digit), thing.color
    return "none", "none"


def test_places_are_the_cells_that_tokens_look_at(kind: Architecture, draw_batch: DrawBatch) -> None:
    """Row and column of 24 pixels each, counted from 1; none for a newline."""
    batch, scenes = draw_batch(GRIDS[kind.name])

    found = [(word_or_none(row), word_or_none(column)) for row, column in batch.places.tolist()]

    assert found == [
        (None, None) if place is None else (f"row{place[0] // 24 + 1}", f"column{place[1] // 24 + 1}")
        for place in looks_at(kind, scenes[0])
    ]


def test_only_the_view_of_the_whole_picture_knows_places(kind: Architecture, draw_batch: DrawBatch) -> None:
    """Crops and windows look alike wherever they lie."""
    batch, _ = draw_batch(GRIDS[kind.name])

    known = torch.nonzero(batch.places_known).flatten().tolist()

    assert known == {"llava-onevision": list(range(36)), "qwen2.5-vl": []}[kind.name]


def test_grids_take_turns(kind: Architecture, model: object) -> None:
    """Over many batches each grid of the architecture is drawn."""
    shapes = {shape_of(batch) for batch in many_batches(kind, model)}

    assert len(shapes) == len({rows * columns for rows, columns in kind.grids})


def many_batches(kind: Architecture, model: object) -> list[Batch]:
    """Thirty batches of one picture and one question."""
    from iwp_miniature.batches import BatchSource, Drawing
    from iwp_miniature.digits import digit_bank

    drawing = Drawing(bank=digit_bank("validation"), questions=1, weights=dict.fromkeys(KINDS, 1.0))
    source = BatchSource(kind, model, drawing, np.random.default_rng(0))
    return [source.draw(1) for _ in range(30)]


def shape_of(batch: Batch) -> int:
    """Visual tokens of a picture."""
    return batch.packing.visual.stop - batch.packing.visual.start
