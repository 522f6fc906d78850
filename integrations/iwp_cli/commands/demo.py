"""`iwp demo`: a trained miniature answers with few tokens, and a model of real size shows what that saves."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from transformers import logging as transformers_logging

from iwp_cli.digits import CELL_SIZE, DigitsDemo, answers_table, asked_miniature, draw_answers
from iwp_cli.outputs import check_apart, check_writable, drawing, write_figure
from iwp_cli.photograph import photograph_demo
from iwp_cli.refusal import Refusal
from iwp_cli.saving import Saving, draw_saving, measured_saving, saving_table
from iwp_miniature import MiniatureError, VocabularyError
from iwp_transformers.media.errors import quoted
from iwp_transformers.media.images import read_image

__all__ = ["demo"]

OUTPUT = Path("iwp-demo.png")
SAVING_WIDTH, TITLE_HEIGHT = 4.0, 0.6  # inches


def demo(
    *,
    output: Annotated[
        Path | None,
        typer.Option(help="Where to write the picture (.png, .jpg, .pdf, .svg ...).", show_default=str(OUTPUT)),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture of your own.")] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="A question of your own; can be repeated. Needs --image.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the picture: the same seed draws the same one. Default: a new one."),
    ] = None,
    photo: Annotated[
        bool, typer.Option("--photo", help="Prune a photograph in a model of real size, with random weights.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser", help="Serve a page for your browser, on this machine alone; needs Gradio.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the page.", show_default="the first free one from 7860 on"),
    ] = None,
) -> None:
    """Show which 11.1 % of the visual tokens three methods keep, what the model then answers, and what that saves.

    The answers are those of a miniature LLaVA-OneVision with trained weights, which is shipped with the package and
    knows coloured handwritten digits. The saving is measured on a photograph of 2,709 visual tokens, in a model with
    random weights. Nothing is downloaded.

    With --browser, you choose picture, question, method, budget and layer on a page in your browser.
    """
    if browser:
        _check_alone({"--output": output, "--question": question, "--photo": photo})
        _serve(image, seed, port)
        return
    _check_port(port)
    console = Console()
    output = OUTPUT if output is None else output
    check_writable(output)
    if image is not None:
        check_apart({"--output": output}, [image])
    _check_seed(seed, drawn=image is None and not photo)
    picture = None if image is None else (image, read_image(image))
    _check_question(question, askable=picture is not None and not photo)
    if photo:
        photograph_demo(console, picture, output)
        return
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # the library's
    answered = _answered(picture, question, seed)
    console.print(answers_table(answered))
    # Somebody with a picture of their own has come for answers.
    saving = None if picture else measured_saving()
    if saving is not None:
        console.print(saving_table(saving))
    with drawing(*(picture or ())[:1]):
        figure = _figure(answered, saving)
    write_figure(figure, output, dpi=110)
    typer.echo(f"picture: {quoted(output)}")


def _check_alone(others: Mapping[str, object]) -> None:
    given = [name for name, value in others.items() if value]
    if given:
        msg = f"--browser has all of it on its page: leave {', '.join(given)} away"
        raise Refusal(msg)


def _check_port(port: int | None) -> None:
    if port is not None:
        msg = "--port is of the page: it needs --browser"
        raise Refusal(msg)


def _serve(image: Path | None, seed: int | None, port: int | None) -> None:
    """Serve the page until somebody interrupts.

    Raises
    ------
    Refusal
        If Gradio is not installed, or there is no such picture or no such port.
    """
    if find_spec("gradio") is None:
        msg = "--browser needs Gradio: install iwp with its extra, '.[demo]' in a clone"
        raise Refusal(msg, code=1)
    if image is not None:
        read_image(image)  # says now what is wrong with it
    # Read when Gradio is imported: nothing is reported, and no newer version is looked for.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from iwp_cli.page import make_page, serve  # noqa: PLC0415 - Gradio is an extra of its own
    from iwp_cli.trial import Trials  # noqa: PLC0415

    page = make_page(Trials(), picture=image, seed=seed)
    typer.echo(f"page: {serve(page, port)} (Ctrl+C ends it)")
    page.block_thread()


def _check_question(question: list[str] | None, *, askable: bool) -> None:
    if question and not askable:
        msg = "--question: a question of your own needs --image, and no --photo"
        raise Refusal(msg)


def _check_seed(seed: int | None, *, drawn: bool) -> None:
    if seed is not None and not drawn:
        msg = "--seed is of the picture that is drawn: leave it away with --image and --photo"
        raise Refusal(msg)


def _answered(picture: tuple[Path, Image.Image] | None, question: list[str] | None, seed: int | None) -> DigitsDemo:
    try:
        return asked_miniature(None if picture is None else picture[1], question, seed)
    except VocabularyError as error:
        msg = f"--question: {error}"
        raise Refusal(msg) from error
    except MiniatureError as error:
        raise Refusal(str(error), code=1) from error


def _figure(answered: DigitsDemo, saving: Saving | None) -> Figure:
    """Draw the answers, and beside them the saving if it was measured."""
    columns, lines = 1 + len(answered.asked[0].pruned), len(answered.asked)
    width, height = CELL_SIZE * columns, (CELL_SIZE + 0.2) * lines + TITLE_HEIGHT
    beside = 0.0 if saving is None else SAVING_WIDTH
    figure = Figure(figsize=(width + beside, height), layout="constrained")
    if saving is None:
        draw_answers(figure, answered)
        return figure
    parts: Any = figure.subfigures(1, 2, width_ratios=(width, beside))
    left, right = parts
    draw_answers(left, answered)
    draw_saving(right, saving)
    return figure
