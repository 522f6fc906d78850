"""`prune_to_parquet`: from rows on disk to answers on disk, in one or several runs."""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from iwp_ray.dataset import prune_dataset
from iwp_ray.parts import AnswerFolder, not_in
from iwp_ray.sources import Source, opened_source
from iwp_transformers.media.errors import quoted

__all__ = ["MapReport", "prune_to_parquet"]

# A file is written when so many rows are there, or the last one is so many seconds ago: what a crash loses.
PART_ROWS = 4096
PART_SECONDS = 30.0
# Arguments that decide how fast the answers come, and not what they are.
NO_SETTINGS = {"actors", "cpus_per_actor", "gpus_per_actor", "batch_size", "local_files_only", "root"}


@dataclass(frozen=True, kw_only=True)
class MapReport:
    """Counts of a run, finished or not.

    Attributes
    ----------
    total : int or None
        Rows of the source; None if the number is not known.
    earlier : int
        Rows that earlier runs had answered.
    answered, failed : int
        Rows of this run with an answer, and with an error.
    repeated : int
        Rows that were left out because an earlier row of this run has the same id.
    seconds : float
        Duration of this run, with loading.
    """

    total: int | None
    earlier: int
    answered: int
    failed: int
    repeated: int
    seconds: float

    @property
    def done(self) -> int:
        """Rows in the folder."""
        return self.earlier + self.answered + self.failed

    def __str__(self) -> str:
        """Return the counts in one line."""
        parts = [f"{self.answered} answered in {self.seconds:.0f} s", f"{self.failed} with an error"]
        parts += [f"{self.earlier} were there"] if self.earlier else []
        parts += [f"{self.repeated} left out, since their id came twice"] if self.repeated else []
        return f"{self.done} rows: {', '.join(parts)}"


def prune_to_parquet(
    source: "str | Path | Dataset",  # quoted, since the reference is built where Ray is missing
    output: str | Path,
    *,
    progress: Callable[[MapReport], object] | None = None,
    **arguments: Any,
) -> MapReport:
    """Answer all rows of a source, and write the answers to a folder of parquet files.

    Rows whose id is already in the folder are left out. So the same call continues a run that was stopped. Only this
    process writes, and each file is either complete or absent. So each id is in the folder at most once, whatever dies.

    Parameters
    ----------
    source : str, pathlib.Path or ray.data.Dataset
        A parquet file or a folder of them, a JSONL file, a folder of images and videos, or rows of your own, as in
        `prune_dataset`.
    output : str or pathlib.Path
        Folder that is missing, empty, or holds answers of earlier runs with the same model, prompt and settings.
    progress : callable, optional
        Called with a `MapReport` each time answers were written.
    **arguments
        Arguments of `prune_dataset`: `model`, `budget` and so on.

    Returns
    -------
    MapReport
        Numbers of rows answered, of rows with an error, and of rows answered before.

    Raises
    ------
    TypeError, ValueError, NotImplementedError, OSError
        As `prune_dataset`. Also if the source has no rows or an id twice, or if the folder holds other files or answers
        with other settings.

    Examples
    --------
    >>> prune_to_parquet("photos", "answers", model="MODEL", budget=0.222, prompt="What is this?")  # doctest: +SKIP
    """
    began = perf_counter()
    opened = Source(rows=source, total=None, root=None) if isinstance(source, Dataset) else opened_source(source)
    arguments.setdefault("root", opened.root)
    folder = AnswerFolder(Path(output), _settings(arguments))
    rows, earlier = opened.rows, len(folder.ids)
    if earlier:
        rows = _others(rows, folder.ids, Path(output))
    answers = prune_dataset(rows, **arguments)
    answered = failed = repeated = 0

    def report() -> MapReport:
        return MapReport(
            total=opened.total,
            earlier=earlier,
            answered=answered,
            failed=failed,
            repeated=repeated,
            seconds=perf_counter() - began,
        )

    # Closed at once where `progress` raises, so that what was computed is written.
    with folder.opened(), closing(_written(answers, folder)) as blocks:
        for table, fresh in blocks:
            errors = len(fresh) - fresh["error"].null_count
            answered, failed = answered + len(fresh) - errors, failed + errors
            repeated += len(table) - len(fresh)
            if progress is not None:
                progress(report())
    return report()


def _written(answers: Dataset, folder: AnswerFolder) -> Generator[tuple[pa.Table, pa.Table]]:
    """Write answers as they come; yield each block, and what of it was not known."""
    waiting: list[pa.Table] = []
    since = perf_counter()
    try:
        for table in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            fresh = folder.without_known(table)
            waiting.append(fresh)
            if sum(map(len, waiting)) >= PART_ROWS or perf_counter() - since >= PART_SECONDS:
                folder.add(pa.concat_tables(waiting))
                waiting, since = [], perf_counter()
            yield table, fresh
    finally:
        # Also where the run fails or is interrupted: what was computed is kept.
        if sum(map(len, waiting)):
            folder.add(pa.concat_tables(waiting))


def _others(rows: Dataset, known: pa.ChunkedArray, output: Path) -> Dataset:
    """Leave out the rows that are known.

    Raises
    ------
    ValueError
        If ids are of another type than the known ones, with which they could not be compared.
    """
    kinds = dict(zip(rows.schema().names, rows.schema().types, strict=True))
    if kinds.get("id", known.type) != known.type:
        msg = f"{quoted(output)} holds ids of type {known.type}, the rows have {kinds['id']}: expected the same type"
        raise ValueError(msg)
    return rows.map_batches(partial(not_in, known=known.combine_chunks()), batch_size=None, batch_format="pyarrow")


def _settings(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return everything that the answers depend on, as text; functions and objects without their addresses."""
    bound = signature(prune_dataset).bind(None, **arguments)
    bound.apply_defaults()
    given = {**bound.arguments, **bound.arguments["settings"]}
    if isinstance(given["model"], str | Path) and Path(given["model"]).is_dir():
        given["model"] = Path(given["model"]).absolute()  # another model, where another folder is the current one
    names = sorted(given.keys() - {"dataset", "settings"} - NO_SETTINGS)
    return {
        name: re.sub(r" at 0x[0-9a-f]+", "", repr(str(given[name]) if isinstance(given[name], Path) else given[name]))
        for name in names
    }
