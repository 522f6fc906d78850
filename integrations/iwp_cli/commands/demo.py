"""`iwp demo`: a trained miniature answers with all tokens and with a ninth of them."""

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console
from transformers import logging as transformers_logging

from iwp_cli.digits import digits_demo
from iwp_cli.outputs import check_writable
from iwp_cli.photograph import photograph_demo
from iwp_cli.refusal import Refusal
from iwp_miniature import MiniatureError, VocabularyError
from iwp_transformers.media.images import read_image

__all__ = ["demo"]


def demo(
    *,
    output: Annotated[Path, typer.Option(help="Where to write the picture (.png, .jpg, .pdf, .svg ...).")] = Path(
        "iwp-demo.png"
    ),
    image: Annotated[Path | None, typer.Option(help="A picture of your own.")] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="A question of your own; can be repeated. Needs --image.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draws the same picture again; without it, a new one.")
    ] = None,
    photo: Annotated[
        bool, typer.Option("--photo", help="Prune a photograph in a model of real size, with random weights.")
    ] = False,
) -> None:
    """Drop 88.9 % of the visual tokens at layer 4, and show what is kept and what is answered.

    The model is a miniature LLaVA-OneVision that is shipped with its trained weights, and knows coloured handwritten
    digits: nothing is downloaded.
    """
    console = Console()
    check_writable(output)
    picture = None if image is None else (image, read_image(image))
    _check_question(question, askable=picture is not None and not photo)
    if photo:
        photograph_demo(console, picture, output)
    else:
        _ask_miniature(console, picture, question, seed, output)


def _check_question(question: list[str] | None, *, askable: bool) -> None:
    if question and not askable:
        msg = "--question: a question of your own needs --image, and no --photo"
        raise Refusal(msg)


def _ask_miniature(
    console: Console,
    picture: tuple[Path, Image.Image] | None,
    question: list[str] | None,
    seed: int | None,
    output: Path,
) -> None:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # the library's
    try:
        digits_demo(console, picture, question, seed, output)
    except VocabularyError as error:
        msg = f"--question: {error}"
        raise Refusal(msg) from error
    except MiniatureError as error:
        raise Refusal(str(error), code=1) from error
