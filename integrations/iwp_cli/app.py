"""The commands of `iwp` in one application."""

import inspect
from typing import Annotated

import typer

from iwp_cli.commands.bench import bench
from iwp_cli.commands.demo import demo
from iwp_cli.commands.generate import generate
from iwp_cli.commands.map import map as map_rows
from iwp_cli.commands.methods import methods
from iwp_cli.commands.models import models
from iwp_cli.commands.reproduce import reproduce
from iwp_cli.commands.tune import tune
from iwp_cli.refusal import refusing
from iwp_core import __version__

__all__ = ["COMMANDS", "app"]

# A command is a function in a file of its own; listed here, it is there, under its name.
COMMANDS = (bench, demo, generate, map_rows, methods, models, reproduce, tune)

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
for command in COMMANDS:
    # What a command raises is for readers of the code.
    sentences, _, _ = inspect.cleandoc(command.__doc__ or "").partition("\nRaises\n")
    app.command(help=sentences)(refusing(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"iwp {__version__}")
        raise typer.Exit


@app.callback()
def iwp(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Prune visual tokens of vision-language models."""
