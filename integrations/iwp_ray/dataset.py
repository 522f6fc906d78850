"""`prune_dataset`: from a data set of questions about pictures to a data set of answers, with several processes."""

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
from iwp_ray.ids import check_id_type
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
        Rows with the columns `id`, an integer or text; `image` or `video`; and `prompt`, a text. A picture is a path,
        the bytes of a file, a mapping with ``bytes`` or ``path``, an array of bytes of shape (height, width),
        (height, width, 3) or, with transparency, (height, width, 4), or (frames, height, width, 3) for a video, or a
        list of these. Other columns are not in the result.
    model : str, pathlib.Path or callable
        Folder that every node can read, or name on the Hub. Or a function without arguments that returns a model, on
        its device, and its processor; it is called in each process.
    budget : int, float or other
        As in `iwp_transformers.prune_visual_tokens`; None for a method that has its own.
    prompt : str, optional
        Question of rows without a prompt.
    actors : int, optional
        Number of processes, each with a model of its own. Default: one for each GPU of the cluster, or one without
        GPUs.
    cpus_per_actor, gpus_per_actor : float, optional
        Processors and GPUs of each process; fractions are allowed. Default: one GPU if there are any, and an even share
        of the processors, one of which is left for reading. PyTorch gets as many threads as whole processors.
    batch_size : int, default 8
        Number of rows answered together, >= 1. Rows with images and rows with videos are answered separately.
    max_new_tokens : int, default 64
        Longest answer, in tokens, >= 1.
    frames : int, default 16
        Number of frames taken from each video, evenly spaced, >= 1.
    root : str or pathlib.Path, optional
        Folder that relative paths in `image` and `video` start from. Default: the current folder.
    dtype : str, default "auto"
        Number format of the weights; "auto" takes the checkpoint's. With half precision an answer may depend on the
        other rows of its batch, as it may without pruning.
    attention : str, optional
        Attention implementation: "eager", "sdpa" or "flash_attention_2".
    local_files_only : bool
        Whether to use only files on this machine.
    **settings
        Further arguments of `prune_visual_tokens` except `history`, such as `layer` and `method`.

    Returns
    -------
    ray.data.Dataset
        Lazy and in no particular order: the column `id`, and those of `iwp_ray.answers.ANSWER_FIELDS`. If a row cannot
        be answered, because its file is damaged or the model refuses it, the reason is in `error` and its other columns
        are null. `kept_indices` are indices among the row's own visual tokens. `tokens_by_layer` counts all its tokens
        that enter each decoder layer. Both do not depend on the batch.

    Raises
    ------
    TypeError
        If `dataset`, `model` or `prompt` has another type, an argument is unknown, or as `prune_visual_tokens` raises.
    ValueError
        If a column is missing, ids are neither integers nor text, there is no prompt for any row, a number is out of
        range, the cluster cannot hold so many processes and a processor for reading, or as `prune_visual_tokens`
        raises.
    NotImplementedError, OSError
        As `prune_visual_tokens`, and as loading a model.

    Notes
    -----
    If a process dies, it is started again and gets its rows again, so no row is lost and none is there twice. If a
    process dies twice while it answers a single row, that row gets an error.

    Examples
    --------
    >>> rows = ray.data.read_parquet("rows.parquet")  # doctest: +SKIP
    >>> answers = prune_dataset(rows, model="MODEL", budget=0.222, prompt="What is this?")  # doctest: +SKIP
    >>> answers.write_parquet("answers")  # doctest: +SKIP
    """
    _check_counts(batch_size=batch_size, max_new_tokens=max_new_tokens, frames=frames)
    columns = _checked_columns(dataset, prompt)
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


def _checked_columns(dataset: Dataset, prompt: str | None) -> list[str]:
    if not isinstance(dataset, Dataset):
        msg = f"`dataset` is a {type(dataset).__name__}, expected a ray.data.Dataset"
        raise TypeError(msg)
    schema = dataset.schema()
    there = [] if schema is None else list(schema.names)
    if "id" not in there or not {"image", "video"} & set(there):
        msg = f"`dataset` has the columns {', '.join(there) or '(none)'}, expected id, and image or video"
        raise ValueError(msg)
    check_id_type("`dataset`", schema.types[there.index("id")])
    if prompt is None and "prompt" not in there:
        msg = "`prompt` is missing: the rows have no column prompt, and none was given for all"
        raise ValueError(msg)
    if not isinstance(prompt, str | None):
        msg = f"`prompt` is a {type(prompt).__name__}, expected a text"
        raise TypeError(msg)
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
