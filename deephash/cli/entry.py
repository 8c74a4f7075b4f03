"""The program `deephash`: its commands parse, call and print."""

import signal
import sys
from typing import Annotated, Any

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the imports on Ctrl-C

import typer

from deephash.cli import data
from deephash.core.output import tolerate_lost_output


class App(typer.Typer):
    """The commands, which do not mind where their output goes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with tolerate_lost_output():
            return super().__call__(*args, **kwargs)


app = App(
    help="Deep hashing for image search.",
    epilog="`deephash train --help` lists all choices and settings of a run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")


def print_version(is_asked: bool) -> None:
    """Print the version and exit, where `--version` asks for it."""
    if is_asked:
        from importlib.metadata import version

        print(f"deephash {version('deephash')}")
        raise typer.Exit


@app.callback()
def print_any_file_name(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Deep hashing for image search."""
    stdout: Any = sys.stdout
    if hasattr(stdout, "reconfigure"):  # names of files need not be in its encoding
        stdout.reconfigure(errors="backslashreplace")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def train() -> None:
    """Train, evaluate and report a hashing run."""
    from deephash.cli.train import main

    main()


if __name__ == "__main__":
    app()
