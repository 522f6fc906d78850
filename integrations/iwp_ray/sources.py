"""Sources of rows: parquet files, JSONL files, or a folder of pictures."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray.data import Dataset

from iwp_ray.ids import check_id_type
from iwp_ray.rows import BROKEN, COLUMNS
from iwp_transformers.media.errors import first_line, quoted
from iwp_transformers.media.kinds import IMAGE_NAMES, VIDEO_NAMES, kind_of_file, list_in

__all__ = ["Source", "opened_source"]

# Rows of a block: enough that blocks are few, few enough that every process gets some.
BLOCK_ROWS = 256
LARGEST_ID = 2**63


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows that are to be answered.

    Attributes
    ----------
    rows : ray.data.Dataset
    total : int or None
        How many there are, where it is known without reading them.
    root : pathlib.Path or None
        What their paths are relative to.
    """

    rows: Dataset
    total: int | None
    root: Path | None


def opened_source(path: str | Path) -> Source:
    """Open rows on disk.

    Parameters
    ----------
    path : str or pathlib.Path
        One of three kinds of source. Paths in it are relative to the folder of the file, or to the folder.

        - A parquet file, or a folder of them, with the columns of `iwp_ray.prune_dataset`.
        - A JSONL file, or a folder with one. Each line is an object with `image` or `video`, a path or a list of paths,
          and perhaps `id` and `prompt`. A line without `id` is called by the name of the file and its number. A line
          that is not valid becomes a row with an error.
        - Any other folder. Each image or video in it, or in folders below it, is a row, called by its path.

    Returns
    -------
    Source
        The rows, their number if it is known, and the folder that their paths are relative to.

    Raises
    ------
    FileNotFoundError
        If there is nothing of that name.
    ValueError
        If it is none of these, or is damaged; if it has no row; if ids are neither integers nor text, or an id is there
        twice.
    """
    path = Path(path)
    if not os.path.exists(path):  # answers for names that are too long, too
        msg = f"{quoted(path)} does not exist, expected a folder, a parquet file or a JSONL file"
        raise FileNotFoundError(msg)
    if path.suffix.lower() in {".jsonl", ".ndjson"} and path.is_file():
        return _listed(path, path.parent, _json_columns(path))
    if path.suffix.lower() == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return _parquet(path)
    if path.is_dir():
        listed = list_in(path, of="rows")
        return _listed(path, path, _json_columns(listed) if listed else _folder_columns(path))
    msg = f"{quoted(path)} is of no known kind, expected a folder, or a file that ends in .parquet or .jsonl"
    raise ValueError(msg)


def _listed(path: Path, root: Path, columns: Mapping[str, Sequence[Any]]) -> Source:
    types = {"image": pa.list_(pa.string()), "video": pa.list_(pa.string()), "prompt": pa.string(), BROKEN: pa.string()}
    table = pa.table({name: pa.array(values, type=types.get(name)) for name, values in columns.items()})
    if len(table) == 0:
        msg = f"{quoted(path)} holds no rows, expected images, videos, a parquet file or lines of JSON"
        raise ValueError(msg)
    _check_distinct(path, table["id"])
    blocks = [table.slice(start, BLOCK_ROWS) for start in range(0, len(table), BLOCK_ROWS)]
    return Source(rows=ray.data.from_arrow(blocks), total=len(table), root=root)


def _parquet(path: Path) -> Source:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    schemas = [_schema(file) for file in files]
    for file, schema in zip(files, schemas, strict=True):
        _check_columns(file, schema, schemas[0])
    chunks = [chunk for file in files for chunk in pq.read_table(file, columns=["id"])["id"].chunks]
    ids = pa.chunked_array(chunks, type=schemas[0].field("id").type)
    if not len(ids):
        msg = f"{quoted(path)} holds no rows"
        raise ValueError(msg)
    _check_distinct(path, ids)
    columns = [name for name in COLUMNS if name in schemas[0].names]
    # Not by Ray's own reader: where aiohttp is missing, its threads fail now and then as they import it at once.
    groups = [
        {"file": str(file.absolute()), "group": group}
        for file in files
        for group in range(pq.read_metadata(file).num_row_groups)
    ]
    rows = ray.data.from_items(groups).map_batches(
        partial(_rows_of_groups, columns=columns), batch_size=1, batch_format="pyarrow"
    )
    return Source(rows=rows, total=len(ids), root=path if path.is_dir() else path.parent)


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except pa.ArrowInvalid as error:
        msg = f"{quoted(file)} is damaged, or no parquet file: {first_line(error)}"
        raise ValueError(msg) from error


def _rows_of_groups(groups: pa.Table, columns: Sequence[str]) -> Iterator[pa.Table]:
    for place in groups.to_pylist():
        with pq.ParquetFile(place["file"]) as file:
            for rows in file.iter_batches(batch_size=BLOCK_ROWS, row_groups=[place["group"]], columns=columns):
                yield pa.Table.from_batches([rows])


def _check_columns(file: Path, schema: pa.Schema, first: pa.Schema) -> None:
    there = set(schema.names) & set(COLUMNS)
    if "id" not in there or not {"image", "video"} & there:
        msg = f"{quoted(file)} has the columns {', '.join(sorted(schema.names))}, expected id, and image or video"
        raise ValueError(msg)
    if there != set(first.names) & set(COLUMNS):
        msg = f"{quoted(file)} has the columns {', '.join(sorted(there))}, expected those of the first file"
        raise ValueError(msg)
    kind = schema.field("id").type
    check_id_type(quoted(file), kind)
    if kind != first.field("id").type:
        msg = f"{quoted(file)} holds ids of type {kind}, expected {first.field('id').type}, as the first file has them"
        raise ValueError(msg)


def _check_distinct(path: Path, ids: pa.ChunkedArray) -> None:
    expected = "expected a different one in each row"
    if ids.null_count:
        msg = f"{quoted(path)} holds {ids.null_count} rows whose `id` is null, {expected}"
        raise ValueError(msg)
    counts = ids.value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0].as_py()
        msg = f"{quoted(path)} holds `id` {first['values']!r} {first['counts']} times, {expected}"
        raise ValueError(msg)


def _folder_columns(folder: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "image", "video", BROKEN)}
    for file in sorted(folder.rglob("*")):
        name, kind = file.relative_to(folder), kind_of_file(file)
        if kind is None or any(part.startswith(".") for part in name.parts) or not file.is_file():
            continue
        text = name.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")
        readable = text == name.as_posix()
        row = {
            "id": text,
            kind: [text] if readable else None,
            BROKEN: None if readable else "its name is no UTF-8 text",
        }
        for column, values in columns.items():
            values.append(row.get(column))
    return columns


def _json_columns(path: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, BROKEN)}
    for row in _json_rows(path):
        for name, values in columns.items():
            values.append(row.get(name))
    if not all(isinstance(identity, int) for identity in columns["id"]):
        columns["id"] = [str(identity) for identity in columns["id"]]
    if set(columns["prompt"]) == {None} and None in columns[BROKEN]:
        del columns["prompt"]  # so that whoever has none for all rows hears of it before a model is loaded
    return columns


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_row(line, f"{path.name}:{number}")


def _json_row(line: bytes, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name}
    try:
        content = _json_object(line)
        row["id"] = _identity(content, name)
        pictures = {"image": _paths(content, IMAGE_NAMES), "video": _paths(content, VIDEO_NAMES)}
        prompt = content.get("prompt")
        return {**row, **pictures, "prompt": None if prompt is None else _text(prompt, "prompt")}
    except ValueError as error:
        return {**row, BROKEN: f"{name}: {error}"}


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        msg = f"it is no JSON: {error}"
        raise ValueError(msg) from error
    if not isinstance(content, dict):
        msg = f"it holds a {type(content).__name__}, expected an object"
        raise ValueError(msg)
    return content


def _identity(content: Mapping[str, Any], name: str) -> int | str:
    identity = content.get("id")
    if identity is None:
        return name
    if isinstance(identity, int) and not isinstance(identity, bool) and abs(identity) < LARGEST_ID:
        return identity
    return _text(identity, "id")


def _paths(content: Mapping[str, Any], names: Sequence[str]) -> list[str] | None:
    found: list[str] = []
    for name in names:
        value = content.get(name)
        given = value if isinstance(value, list) else [] if value is None else [value]
        found += [_text(each, name) for each in given]
    return found or None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        msg = f"`{name}` is {value!r}, expected text"
        raise ValueError(msg)
    value.encode("utf-8")  # raises a ValueError where it holds half a character
    return value
