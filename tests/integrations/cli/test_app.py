"""The application around the commands: its version, its list of commands, and how each of them says no."""

from __future__ import annotations

import errno
import importlib
import inspect
import io
import logging
import pkgutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import iwp_core
from iwp_cli import app as module
from iwp_cli import commands, main
from iwp_cli.refusal import Refusal, refusing
from iwp_transformers.media.errors import MediaError, quoted, reading


def test_version_is_the_distributions() -> None:
    """One word and one number."""
    done = CliRunner().invoke(module.app, ["--version"])

    assert (done.exit_code, done.output) == (0, f"iwp {iwp_core.__version__}\n")


def test_help_lists_every_command_with_its_sentence() -> None:
    """What is in the list is on the screen."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(module.app, ["--help"])

    for command in module.COMMANDS:
        assert f" {command.__name__} " in done.output
        assert (command.__doc__ or "").splitlines()[0] in done.output


@pytest.mark.parametrize("command", module.COMMANDS, ids=lambda command: command.__name__)
def test_help_of_a_command_is_for_its_user(command: Callable[..., None]) -> None:
    """A section for readers of the code would be on the screen as it is."""
    done = CliRunner().invoke(module.app, [command.__name__, "--help"])

    assert done.exit_code == 0
    assert "Raises" not in done.output


def test_every_file_of_commands_is_listed() -> None:
    """A command has the name of its file, and cannot be forgotten."""
    names = [info.name for info in pkgutil.iter_modules(commands.__path__)]
    found = {getattr(importlib.import_module(f"iwp_cli.commands.{name}"), name) for name in names}

    assert found == set(module.COMMANDS)


def run(error: Exception) -> Result:
    """Run a command that raises."""

    def fail(number: int = 3) -> None:
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(refusing(fail))
    return CliRunner().invoke(app, [])


@pytest.mark.parametrize("code", [1, 2])
def test_refusal_is_one_line_with_its_status(code: int) -> None:
    """Line breaks of a message are folded."""
    done = run(Refusal("this is\n too much", code=code))

    assert (done.exit_code, done.output) == (code, "iwp fail: error: this is too much\n")


def test_fault_of_the_program_is_one_line_that_says_how_to_see_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the traceback is there for whoever asks for it."""
    monkeypatch.delenv("IWP_TRACEBACK", raising=False)
    done = run(KeyError("rope"))
    assert (done.exit_code, done.output) == (
        1,
        "iwp fail: error: KeyError: 'rope' (set IWP_TRACEBACK=1 to see where)\n",
    )

    monkeypatch.setenv("IWP_TRACEBACK", "1")
    assert isinstance(run(KeyError("rope")).exception, KeyError)


def test_closed_pipe_ends_a_command_in_silence() -> None:
    """As it does with other programs in front of `head`."""
    done = run(BrokenPipeError(errno.EPIPE, "Broken pipe"))

    assert (done.exit_code, done.output) == (1, "")


def test_usage_errors_stay_those_of_the_library() -> None:
    """With its status 2 and its hint to the help."""
    done = run(typer.BadParameter("unknown", param_hint="--colour"))

    assert done.exit_code == 2
    assert "Invalid value for --colour" in done.output


def test_refused_command_keeps_its_signature() -> None:
    """Options are read off it."""

    def command(*, width: int = 3) -> None:
        """Do it."""

    assert inspect.signature(refusing(command)) == inspect.signature(command)


def test_reading_is_silent_and_names_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings and logged errors of a decoder would be further lines; the levels are as before afterwards."""
    level = logging.getLogger("PIL").level

    def decode() -> None:
        warnings.warn("odd", stacklevel=1)
        logging.getLogger("PIL.TiffImagePlugin").error("odd")
        msg = "broken\nin two lines"
        raise SyntaxError(msg)

    with pytest.raises(MediaError, match=r"^'a\.png' cannot be read: broken$"), reading(Path("a.png")):
        decode()

    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("PIL").level == level


@pytest.mark.parametrize("name", ["two\nlines", "bytes\udcff", "tab\t", "plain"])
def test_quoted_path_is_one_printable_line(name: str) -> None:
    """Whatever a file is called."""
    assert quoted(name).isprintable()
    assert eval(quoted(name)) == name  # a literal of Python


def test_version_needs_nothing_but_the_core() -> None:
    """In a core-only installation the script still says it, and loads nothing for it."""
    code = "import sys; sys.argv = ['iwp', '--version']; from iwp_cli import main; main(); "
    code += "assert not {'torch', 'typer', 'PIL'} & set(sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, f"iwp {iwp_core.__version__}\n"), done.stderr


def test_characters_that_the_terminal_has_not_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of ending the command with an error once the model has answered."""
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    monkeypatch.setattr(sys, "argv", ["iwp", "methods"])
    monkeypatch.setattr("iwp_cli.app.app", lambda: sys.stdout.write("a caf\u00e9"))

    main()

    assert shown.getvalue() == rb"a caf\xe9"
