"""`iwp demo`: a trained miniature answers with all tokens and with a ninth of them."""

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console
from transformers import logging as transformers_logging

from iwp_miniature import MiniatureError, VocabularyError
from iwp_transformers.cli.digits import digits_demo
from iwp_transformers.cli.media import MediaError, check_writable, read_image
from iwp_transformers.cli.photograph import photograph_demo

__all__ = ["demo"]


def demo(
    *,
    output: Annotated[Path, typer.Option(help="Where to write the picture (.png, .jpg, .pdf or .svg).")] = Path(
        "iwp-demo.png"
    ),
    image: Annotated[Path | None, typer.Option(help="A picture of your own.")] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="A question of your own; can be repeated. Needs --image.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the same picture again; without it, a new one.")] = None,
    photo: Annotated[
        bool, typer.Option("--photo", help="Prune a photograph in a model of real size, with random weights.")
    ] = False,
) -> None:
    """Drop 88.9 % of the visual tokens at layer 4, and show what is kept and what is answered.

    The model is a miniature LLaVA-OneVision that is shipped with its trained weights, and knows coloured handwritten
    digits: nothing is downloaded.
    """
    console = Console()
    picture = _open(image)
    _check_output(output)
    _check_question(question, askable=picture is not None and not photo)
    if photo:
        photograph_demo(console, picture, output)
    else:
        _ask_miniature(console, picture, question, seed, output)


def _ask_miniature(
    console: Console, picture: Image.Image | None, question: list[str] | None, seed: int | None, output: Path
) -> None:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        digits_demo(console, picture, question, seed, output)
    except VocabularyError as error:
        raise typer.BadParameter(str(error), param_hint="--question") from error
    except MiniatureError as error:
        console.print(str(error), style="red")
        raise typer.Exit(1) from error


def _check_question(question: list[str] | None, *, askable: bool) -> None:
    if question and not askable:
        msg = "a question of your own needs --image, and no --photo"
        raise typer.BadParameter(msg, param_hint="--question")


def _open(path: Path | None) -> Image.Image | None:
    try:
        return None if path is None else read_image(path)
    except MediaError as error:
        raise typer.BadParameter(str(error), param_hint="--image") from error


def _check_output(path: Path) -> None:
    try:
        check_writable(path)
    except MediaError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error
