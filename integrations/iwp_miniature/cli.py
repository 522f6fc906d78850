"""`iwp-train-miniature`: train a miniature from scratch, and take a stopped run up again."""

import json
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from iwp_miniature.architectures import ARCHITECTURES, architecture
from iwp_miniature.saving import save_miniature
from iwp_miniature.training import Recipe, Trainer, answer_accuracy

__all__ = ["main"]

Name = Enum("Name", {name: name for name in ARCHITECTURES}, type=str)  # type: ignore[misc]
CHECKPOINT, LOG = "checkpoint.pt", "training.json"


def train(
    name: Annotated[Name, typer.Argument(help="Which miniature.")],
    output: Annotated[Path, typer.Argument(help="Folder for the model, the log and the state of an unfinished run.")],
    *,
    seed: Annotated[int, typer.Option(help="Seed of weights, pictures and questions.")] = 0,
    align_steps: Annotated[
        int, typer.Option(min=1, help="Training steps that align the tower's features with the words.")
    ] = Recipe.align_steps,
    answer_steps: Annotated[int, typer.Option(min=1, help="Training steps on questions.")] = Recipe.answer_steps,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Number of CPU threads.")] = 2,
    every: Annotated[int, typer.Option(min=1, help="Steps between validations; each also saves the state.")] = 200,
) -> None:
    """Train a miniature vision-language model to answer questions about handwritten digits.

    A run that was stopped goes on where it last saved, if it is given the same folder and options.
    """
    _check_device(device)
    _check_folder(output)
    torch.set_num_threads(threads)
    recipe = Recipe(seed=seed, align_steps=align_steps, answer_steps=answer_steps)
    trainer = Trainer(architecture(name.value), recipe, device=device)
    output.mkdir(parents=True, exist_ok=True)
    state = output / CHECKPOINT
    if state.exists():
        _resume(trainer, state)
    run_training(trainer, state, every=every)
    save_miniature(trainer.architecture, trainer.model, output)
    (output / LOG).write_text(json.dumps(_report(trainer, threads), indent=1) + "\n", encoding="utf-8")
    typer.echo(f"validation: {trainer.log[-1]['validation']['mean']:.1%} right; model and log: {output}")


def _check_device(device: str) -> None:
    usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if device not in usable:
        msg = f"'{device}' cannot be used here; expected {' or '.join(usable)}"
        raise typer.BadParameter(msg, param_hint="--device")


def _check_folder(output: Path) -> None:
    if output.exists() and not output.is_dir():
        msg = f"'{output}' is a file, expected a folder or nothing"
        raise typer.BadParameter(msg, param_hint="OUTPUT")


def _resume(trainer: Trainer, state: Path) -> None:
    try:
        trainer.resume(state)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="OUTPUT") from error


def run_training(trainer: Trainer, state: Path, *, every: int) -> None:
    """Train to the end with a progress bar, validating and saving the state every so many steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    smooth: dict[str, float] = {}
    with Progress(*columns) as progress:
        task = progress.add_task(trainer.stage, total=trainer.steps, completed=trainer.step)
        while trainer.step < trainer.steps:
            for loss, value in trainer.train_step().items():
                smooth[loss] = 0.95 * smooth.get(loss, value) + 0.05 * value
            shown = ", ".join(f"{loss} {value:.2f}" for loss, value in smooth.items())
            progress.update(task, completed=trainer.step, description=f"{trainer.stage} ({shown})")
            if trainer.step % every == 0 or trainer.step == trainer.steps:
                entry = {"step": trainer.step, "seconds": trainer.seconds, **smooth}
                trainer.log.append(entry | {"validation": answer_accuracy(trainer)})
                trainer.save(state)


def _report(trainer: Trainer, threads: int) -> dict[str, object]:
    return {
        "architecture": trainer.architecture.name,
        "recipe": trainer.state()["recipe"],
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "torch": torch.__version__,
        "device": trainer.device,
        "threads": threads,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": trainer.seconds,
        "log": trainer.log,
    }


def main() -> None:
    """Run the command."""
    typer.run(train)
