"""The columns of answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["ANSWER_FIELDS", "answer_table", "failed"]

ANSWER_FIELDS: Mapping[str, pa.DataType] = {
    "answer": pa.string(),
    "error": pa.string(),
    "visual_tokens": pa.int32(),
    "kept_indices": pa.list_(pa.int32()),
    "tokens_by_layer": pa.list_(pa.int32()),
    "batch_rows": pa.int32(),
    "read_seconds": pa.float64(),
    "encode_seconds": pa.float64(),
    "first_token_seconds": pa.float64(),
    "decode_seconds": pa.float64(),
    "selection_seconds": pa.float64(),
}
"""Columns beside `id`. `error` is null where there is an answer, and everything else is null where there is none. Of
the times, `read_seconds` is the row's own, the others are of the batch of `batch_rows` rows answered together."""


def failed(error: str) -> dict[str, Any]:
    """Return the answer of a row that could not be answered."""
    return {"error": error}


def answer_table(ids: pa.ChunkedArray, answers: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return answers as rows with their ids, in the type of the ids.

    Parameters
    ----------
    ids : pyarrow.ChunkedArray
        Ids of the rows.
    answers : sequence of mapping
        One for each row, by the names of `ANSWER_FIELDS`; what is missing is null.

    Returns
    -------
    pyarrow.Table
        The ids and all columns of `ANSWER_FIELDS`.

    Examples
    --------
    >>> answer_table(pa.chunked_array([[7]]), [failed("no image")]).select(["id", "error"]).to_pylist()
    [{'id': 7, 'error': 'no image'}]
    """
    columns = {
        name: pa.array([answer.get(name) for answer in answers], type=kind) for name, kind in ANSWER_FIELDS.items()
    }
    return pa.table({"id": ids, **columns})
