"""`prune_dataset`: a data set of questions about pictures becomes one of answers, by several processes at once."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, Dataset

from iwp_ray.actor import Loader, PruningActor, Task
from iwp_ray.attempts import Attempts
from iwp_ray.checkpoint import Checkpoint
from iwp_ray.cluster import placement
from iwp_ray.rows import BROKEN, COLUMNS
from iwp_transformers import prune_visual_tokens

__all__ = ["prune_dataset"]

# Batches in a block: what a process gets at a time, so that one that is done early finds others.
BLOCK_BATCHES = 4


def prune_dataset(
    dataset: Dataset,
    *,
    model: str | Path | Loader,
    budget: Any = None,
    prompt: str | None = None,
    actors: int | None = None,
    cpus_per_actor: float | None = None,
    gpus_per_actor: float | None = None,
    batch_size: int = 8,
    max_new_tokens: int = 64,
    frames: int = 16,
    root: str | Path | None = None,
    dtype: str = "auto",
    attention: str | None = None,
    local_files_only: bool = False,
    **settings: Any,
) -> Dataset:
    """Answer the question of every row about its image or video, with most visual tokens dropped.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Rows with `id`, an integer or text; `image` or `video`: a path, the bytes of a file, a mapping with ``bytes`` or
        ``path``, an array of bytes (height, width, 3), of a video (frames, height, width, 3), or a list of these; and
        `prompt`, a text. Other columns are left behind.
    model : str, pathlib.Path or callable
        Folder that every node can read, or name on the Hub. Or a function without arguments that returns a model, on
        its device, and its processor; it is called in each process.
    budget : int, float or other
        As of `iwp_transformers.prune_visual_tokens`; None for a method that has its own.
    prompt : str, optional
        What rows without a prompt ask.
    actors : int, optional
        Processes, each with a model of its own. Default: one for each GPU of the cluster, one if there is none.
    cpus_per_actor, gpus_per_actor : float, optional
        What each process holds, fractions too. Default: one GPU if there are any, and an even share of the processors,
        less the one that reading needs. PyTorch gets as many threads as whole processors.
    batch_size : int, default 8
        Rows answered together, >= 1. Those with images and those with videos are answered apart.
    max_new_tokens : int, default 64
        Longest answer, in tokens, >= 1.
    frames : int, default 16
        Frames taken evenly from each video, >= 1.
    root : str or pathlib.Path, optional
        What relative paths in `image` and `video` are relative to. Default: the current folder.
    dtype : str, default "auto"
        Number format of the weights, "auto" for the checkpoint's. With half precision an answer can depend on the
        batch, as it can without pruning; see `batch_size`.
    attention : str, optional
        "eager", "sdpa" or "flash_attention_2".
    local_files_only : bool
        Whether to keep off the network.
    **settings
        Further arguments of `prune_visual_tokens`, such as `layer` and `method`, but for `history`.

    Returns
    -------
    ray.data.Dataset
        Not computed yet, in no order: `id` as it came, and the columns of `iwp_ray.answers.ANSWER_FIELDS`. A row that
        cannot be answered, because its file is damaged or the model refuses it, has the reason in `error` and nulls
        elsewhere. `kept_indices` count among the row's own visual tokens, `tokens_by_layer` all its tokens that enter
        each decoder layer; both do not depend on the batch.

    Raises
    ------
    TypeError
        If `dataset` or `model` is something else, an argument is unknown, or as `prune_visual_tokens` raises.
    ValueError
        If a column is missing, a number is out of range, the cluster cannot hold so many processes beside a processor
        for reading, or as `prune_visual_tokens` raises.
    NotImplementedError, OSError
        As `prune_visual_tokens`, and as loading a model.

    Notes
    -----
    A process that dies is started again and given its rows again, so none is lost and none comes twice. A row over
    which two processes died when it was tried alone becomes an error.

    Examples
    --------
    >>> rows = ray.data.read_parquet("rows.parquet")  # doctest: +SKIP
    >>> answers = prune_dataset(rows, model="MODEL", budget=0.222, prompt="What is this?")  # doctest: +SKIP
    >>> answers.write_parquet("answers")  # doctest: +SKIP
    """
    _check_counts(batch_size=batch_size, max_new_tokens=max_new_tokens, frames=frames)
    columns = _checked_columns(dataset)
    settings = {"budget": budget, **settings}
    _check_names(settings)
    load = _checked_loader(model, settings, dtype=dtype, attention=attention, local_files_only=local_files_only)
    place = placement(actors=actors, cpus=cpus_per_actor, gpus=gpus_per_actor)
    task = Task(
        load=load,
        settings=settings,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        frames=frames,
        threads=max(1, int(place.cpus)),
        root=Path.cwd() if root is None else Path(root).absolute(),
    )
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    return (
        dataset
        .select_columns(columns)
        .repartition(target_num_rows_per_block=batch_size * BLOCK_BATCHES)
        .map_batches(
            PruningActor,
            fn_constructor_args=(task, attempts),
            batch_size=batch_size,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=place.actors),
            num_cpus=place.cpus,
            num_gpus=place.gpus,
        )
    )


def _checked_columns(dataset: Dataset) -> list[str]:
    if not isinstance(dataset, Dataset):
        msg = f"`dataset` is a {type(dataset).__name__}, expected a ray.data.Dataset"
        raise TypeError(msg)
    there = dataset.columns() or []
    if "id" not in there or not {"image", "video"} & set(there):
        msg = f"`dataset` has the columns {', '.join(there) or '(none)'}, expected id, and image or video"
        raise ValueError(msg)
    return [name for name in (*COLUMNS, BROKEN) if name in there]


def _check_names(settings: Mapping[str, Any]) -> None:
    known = signature(prune_visual_tokens).parameters.keys() - {"model", "history"}
    for name in settings:
        if name not in known:
            msg = f"`{name}` is no argument, expected one of `prune_dataset`, or {', '.join(sorted(known))}"
            raise TypeError(msg)


def _checked_loader(model: str | Path | Loader, settings: Mapping[str, Any], **options: Any) -> Loader:
    if isinstance(model, str | Path):
        # Processes may have another current folder.
        name = Path(model).absolute() if Path(model).is_dir() else model
        checkpoint = Checkpoint(name=str(name), **options)
        checkpoint.check(settings)
        return checkpoint
    if not callable(model):
        msg = f"`model` is a {type(model).__name__}, expected a folder, a name, or a function that loads one"
        raise TypeError(msg)
    return model


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            msg = f"`{name}` is {value!r}, expected an integer of at least 1"
            raise ValueError(msg)
