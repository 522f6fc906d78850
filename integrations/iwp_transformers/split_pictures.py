"""Where the tokens of models look whose processor stretches a picture to whole tiles, and cuts it into them.

How many rows and columns there are stands in no output of the processor but the text that it writes: a token opens
each tile, a line break ends each row, the whole picture follows as one tile, and the token that opens tiles ends it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedConfig

from iwp_transformers.regions import Box, Edges, Item, Level, Region, cells, in_sequence, placeholder
from iwp_transformers.tiles import real_tiles, tile_edges, tile_regions

__all__ = ["split_regions"]


def split_regions(config: PreTrainedConfig, inputs: Mapping[str, Any], sample: int) -> tuple[Region, ...]:
    """Regions of Idefics3 and models like it: crops of the picture, row by row, and the whole of it in one tile.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the whole model.
    inputs : mapping
        The processor's output: `input_ids`, and `pixel_values` if it made them.
    sample : int
        Row of `input_ids`.

    Returns
    -------
    tuple of Region
        One for each visual token of the sample, in sequence order: on the picture where the text tells rows and columns
        of all tiles, otherwise in the tiles, as of `tile_regions`.

    Raises
    ------
    ValueError
        If `sample` is not in the batch, or if the tokens are no grid of whole patches in each tile.
    """
    ids, token = torch.as_tensor(inputs["input_ids"]), placeholder(config, "image")
    layouts = [_layouts(row, token) for row in ids.tolist()]
    known = [layout for row in layouts if row is not None for layout in row]
    tiles = sum(rows * columns + 1 for rows, columns in known)
    if None in layouts or not tiles or len(real_tiles(inputs)) != tiles:
        return tile_regions(config, inputs, sample)
    edges, classes = tile_edges(config, inputs, tiles)
    if classes:
        return tile_regions(config, inputs, sample)
    return in_sequence(config, inputs, sample, [_picture(layout, edges) for layout in known], [])


def _layouts(ids: Sequence[int], token: int) -> list[tuple[int, int]] | None:
    """Return rows and columns of tiles of each picture, both 0 where it is not cut; None if the text does not tell."""
    bounds = [
        place for place, pair in enumerate(pairwise([None, *ids, None])) if (pair[0] == token) != (pair[1] == token)
    ]
    runs = list(zip(bounds[::2], bounds[1::2], strict=True))
    if not runs:
        return []
    opening = ids[runs[-1][1]] if runs[-1][1] < len(ids) else None
    between = [ids[stop:start] for (_, stop), (start, _) in pairwise(runs)]
    alike = len({stop - start for start, stop in runs}) == 1
    if not alike or opening is None or any(opening not in text for text in (ids[: runs[0][0]], *between)):
        return None
    pictures = [[1]]
    for text in between:
        if text[0] == opening and text.count(opening) > 1:
            pictures.append([1])
        elif text[0] == opening:
            pictures[-1][-1] += 1
        else:
            pictures[-1].append(1)
    if any(whole != 1 or len(set(rows)) > 1 for *rows, whole in pictures):
        return None
    return [(len(rows), rows[0] if rows else 0) for *rows, _ in pictures]


def _picture(layout: tuple[int, int], edges: Edges) -> Item:
    rows, columns = layout
    crops = [
        box
        for row in range(rows)
        for column in range(columns)
        for box in cells((row + edges) / rows, (column + edges) / columns)
    ]
    views: tuple[tuple[Level, list[Box | None]], ...] = (("crop", crops), ("base", list(cells(edges, edges))))
    return lambda index: [
        Region(medium="image", index=index, frame=0, box=box, level=level) for level, boxes in views for box in boxes
    ]
