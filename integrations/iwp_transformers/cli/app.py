"""The commands of `iwp` in one application."""

import typer

from iwp_transformers.cli.demo import demo
from iwp_transformers.cli.generate import generate

__all__ = ["app"]

app = typer.Typer(
    help="Prune visual tokens of vision-language models.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command()(demo)
app.command()(generate)
