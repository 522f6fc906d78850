"""The folder of answers: parquet files that are complete or absent, and the ids that are in it already."""

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from iwp_transformers.media.errors import first_line, quoted

__all__ = ["AnswerFolder", "not_in"]

UNFINISHED = ".unfinished"
# Readers of parquet folders pass over names that begin so.
SETTINGS, LOCK = "_settings.json", "_lock"


class AnswerFolder:
    """A folder of answers that one program at a time adds to.

    Parameters
    ----------
    path : pathlib.Path
    settings : mapping of str to str
        What decides the answers, in words.

    Attributes
    ----------
    ids : pyarrow.ChunkedArray
        Of all rows in the folder.

    Raises
    ------
    ValueError
        If the folder holds answers that were given with other settings, or files that are damaged or no answers.
    """

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        self._path, self._settings = path, settings
        if path.exists():
            self._check_settings()
        self._files = sorted(path.glob("*.parquet"))
        columns = [_ids_in(file) for file in self._files]
        kind = columns[0].type if columns else pa.string()
        self.ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], type=kind)
        self._seen = set(self.ids.to_pylist())

    def _check_settings(self) -> None:
        """Check that the folder is empty, or holds answers of the same settings.

        Raises
        ------
        ValueError
            If it is not.
        """
        if not self._path.is_dir():
            msg = f"{quoted(self._path)} is a file, expected a folder"
            raise ValueError(msg)
        file = self._path / SETTINGS
        if not file.exists():
            own = {LOCK, SETTINGS + UNFINISHED}
            others = sorted(each.name for each in self._path.iterdir() if each.name not in own)
            if others:
                msg = f"{quoted(self._path)} holds {others[0]!r}, expected an empty folder or one of earlier answers"
                raise ValueError(msg)
            return
        before = _settings_in(file)
        for name in {**before, **self._settings}:
            if before.get(name) != self._settings.get(name):
                msg = (
                    f"{quoted(self._path)} holds answers with {name} = {before.get(name)}, and not "
                    f"{self._settings.get(name)}: expected the same settings, or another folder"
                )
                raise ValueError(msg)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder, if it is missing, note the settings in it, and keep other programs from writing to it.

        Raises
        ------
        ValueError
            If another program writes to it, or has since its ids were read.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        # The system lets go of the lock with the program that holds it, however that ends.
        lock = FileLock(self._path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            msg = f"{quoted(self._path)} is being written to by another program: expected one at a time"
            raise ValueError(msg) from error
        try:
            if sorted(self._path.glob("*.parquet")) != self._files:
                msg = f"{quoted(self._path)} was written to by another program meanwhile: start again"
                raise ValueError(msg)
            for file in self._path.glob(f"*{UNFINISHED}"):
                file.unlink()
            with _whole(self._path / SETTINGS) as unfinished:
                unfinished.write_text(json.dumps(self._settings, indent=2) + "\n", encoding="utf-8")
            yield
        finally:
            lock.release()

    def without_known(self, table: pa.Table) -> pa.Table:
        """Return the rows whose ids are not in the folder, the first of each id; from then on they are known.

        Rows without an id are all returned: each of them has an error, and none is another's.
        """
        fresh = []
        for identity in table["id"].to_pylist():
            fresh.append(identity is None or identity not in self._seen)
            self._seen.add(identity)
        return table.filter(pa.array(fresh, type=pa.bool_()))

    def add(self, table: pa.Table) -> None:
        """Write rows as one more file, which is complete or absent whatever happens."""
        with _whole(self._path / f"part-{uuid.uuid4().hex}.parquet") as unfinished:
            pq.write_table(table, unfinished)


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """Give a place to write a file to, which gets its own name once it is complete."""
    unfinished = file.with_name(file.name + UNFINISHED)
    yield unfinished
    unfinished.replace(file)


def _settings_in(file: Path) -> Mapping[str, str]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{quoted(file)} is damaged ({error}), so how its answers were made is not known: choose another folder"
        raise ValueError(msg) from error
    if not isinstance(settings, dict):
        msg = f"{quoted(file)} holds a {type(settings).__name__}, and not how answers were made: choose another folder"
        raise ValueError(msg)
    return settings


def _ids_in(file: Path) -> pa.ChunkedArray:
    try:
        return pq.read_table(file, columns=["id"])["id"]
    except (pa.ArrowInvalid, KeyError) as error:
        msg = f"{quoted(file)} is damaged, or holds no answers ({first_line(error)}): remove it to have its rows anew"
        raise ValueError(msg) from error


def not_in(table: pa.Table, known: pa.Array) -> pa.Table:
    """Return the rows of a table whose id is not among the known ones."""
    return table.filter(pc.invert(pc.is_in(table["id"], value_set=known)))
