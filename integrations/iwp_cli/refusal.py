"""How the command line says no: one line that names what was given and what is allowed."""

import functools
import os
from collections.abc import Callable
from typing import ParamSpec

import typer

from iwp_transformers.media.errors import MediaError

__all__ = ["Refusal", "refusing", "warn"]

P = ParamSpec("P")
TRACEBACK = "IWP_TRACEBACK"


class Refusal(Exception):
    """Something that was asked for and cannot be served; the message says what, why, and what can be.

    Parameters
    ----------
    message : str
    code : int
        Exit status: 2 for what the user gave, 1 for what failed on the way.
    """

    def __init__(self, message: str, *, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def refusing(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command end in one line on the standard error, never in a traceback.

    A `Refusal` ends it with its own exit status, a `MediaError` with 2. Anything else is a fault of this program or a
    library below it; it ends the command with status 1, with its traceback where the environment variable
    IWP_TRACEBACK is set. Whoever closed the pipe that it writes to, such as `head`, has read enough: Typer ends it
    with status 1, in silence.

    Parameters
    ----------
    command : callable
        Function of a command.

    Returns
    -------
    callable
        With the same signature.

    Raises
    ------
    typer.Exit
        If the command was refused or failed.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Refusal as error:
            _say(command.__name__, str(error))
            raise typer.Exit(error.code) from error
        except MediaError as error:
            _say(command.__name__, str(error))
            raise typer.Exit(2) from error
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            _say(command.__name__, f"{type(error).__name__}: {error} (set {TRACEBACK}=1 to see where)")
            raise typer.Exit(1) from error

    return run


def warn(name: str, message: str) -> None:
    """Print a warning in one line on the standard error.

    Parameters
    ----------
    name : str
        Of the command.
    message : str
    """
    _say(name, message, kind="warning")


def _say(name: str, message: str, kind: str = "error") -> None:
    typer.echo(f"iwp {name}: {kind}: {' '.join(message.split())}", err=True)
