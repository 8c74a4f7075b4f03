"""The command line `deephash`: its commands parse, call and print."""

import io
import sys

import typer

from deephash.cli import data

app = typer.Typer(
    help="Deep hashing for image search. To train: python train.py --help",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")


@app.callback()
def _any_name_can_be_printed() -> None:
    """Names of files need not be in the terminal's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
