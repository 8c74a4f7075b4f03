"""`deephash data`: what is wrong with a data set and its split, and splits as lists."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deephash.cli.errors import command_line, composed
from deephash.core.errors import UserError
from deephash.core.instantiate import build
from deephash.core.io import write_json
from deephash.data.audit import Audit, Pair
from deephash.data.audit import audit as audited
from deephash.data.files.split_lists import from_lists
from deephash.data.image_set import ImageSet
from deephash.data.split_files import FACTS, PARTS, differences, write
from deephash.data.splits import Split, hold_out_validation
from deephash.experiment.console import quiet_libraries
from deephash.experiment.settings import Settings, checked

SHOWN = 10  # lines of each kind
LEAKS = {
    "id": "queries trained on or searched under their own id",
    "content": "queries trained on or searched under another id, by their pixels",
    "near": "near-duplicates of queries trained on or searched",
}

app = typer.Typer(help="Look at a data set and its split.", no_args_is_help=True)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings as train.py takes them: dataset=cifar10 protocol=1k-59k"),
]
List = Annotated[
    Path | None, typer.Option(help="A list: a line an image, its path and maybe 0 or 1 a class.")
]


@app.command()
def audit(
    overrides: Overrides = None,
    query: List = None,
    database: List = None,
    train: List = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the paths begin; else where their list lies.")
    ] = None,
    near: Annotated[bool, typer.Option(help="Look for near-duplicates.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all of it there.")] = None,
) -> None:
    """Look for queries that are trained on or searched, for copies and for unusable rows.

    Of a data set and protocol, or of lists. Exit code 0: no leak, 1: a leak, 2: wrong input.
    """
    with command_line(), quiet_libraries(), TemporaryDirectory() as folder:
        named = {"query": query, "train": train, "database": database}
        lists = {part: path for part, path in named.items() if path}
        if not lists and not root:
            image_set, split = _as_trained(overrides or [])
        elif overrides or not query or not database:
            raise UserError(
                "lists are audited by --query and --database, and --train where there is one, "
                "without settings."
            )
        else:
            image_set, split = from_lists(lists, root, Path(folder))
        found = audited(image_set, split, near=near)
        _show(found)
        if json_file:
            try:
                write_json(json_file, asdict(found))
            except OSError as error:
                raise UserError(
                    f"--json {json_file} cannot be written: {error.strerror}."
                ) from None
        raise typer.Exit(int(found.leaky))


def _as_trained(overrides: Sequence[str]) -> tuple[ImageSet, Split]:
    """Images and split of a run, but with the copies of queries, which a run leaves out."""
    settings = _settings(overrides)
    image_set = build("dataset", settings.dataset)
    split = hold_out_validation(
        build("protocol", settings.protocol, image_set, settings.seed),
        image_set.labels.numpy(),
        share=settings.validation.share,
        database=settings.validation.database,
        seed=settings.seed,
    )
    return image_set, split


def _settings(overrides: Sequence[str]) -> Settings:
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise UserError(
                f"{word} is no setting. Your own images are dataset=images dataset.path={word}"
            )
    return checked(composed(overrides))


def _show(found: Audit) -> None:
    print(f"{found.name}\ndata  {found.data}\nsplit {found.split}\n")
    table = Table(box=None, pad_edge=False)
    table.add_column("images")
    for part in found.sizes:
        table.add_column(part, justify="right")
    table.add_row("all", *(f"{size:,}" for size in found.sizes.values()))
    for name in found.classes["query"]:
        table.add_row(name, *(f"{counts[name]:,}" for counts in found.classes.values()))
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
    print()
    for kind, rows in found.left_out.items():
        _some(f"{kind} rows", rows)
    _some("no images by their names", found.no_images)
    if found.copies_in_database:
        print(f"copies within the database, no leak: {found.copies_in_database:,}")
    for kind, pairs in found.leaks.items():
        _some(LEAKS[kind], [_told(pair) for pair in pairs])
    if not found.leaky:
        looked = "by id, pixels or look" if "near" in found.leaks else "by id or pixels"
        print(f"no query is trained on or searched, {looked}")


def _told(pair: Pair) -> str:
    where = ", ".join(pair.parts)
    if pair.other == pair.query:
        return f"{pair.query} in {where}"
    if not pair.difference:
        return f"{pair.query} is {pair.other} in {where}"
    return f"{pair.query} looks like {pair.other} in {where}, {pair.difference} of 255 levels apart"


def _some(heading: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"{heading}: {len(lines):,}")
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN:,} more; --json FILE lists all")


@app.command()
def splits(
    folder: Annotated[Path, typer.Argument(help="Where the lists lie, or are to lie.")],
    overrides: Overrides = None,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the lists against the data set.")
    ] = False,
) -> None:
    """Write the split that a protocol draws: query.txt, train.txt, database.txt and split.json.

    protocol=given reads the lists. Exit code of --check 0: they fit, 1: they do not.
    """
    with command_line(), quiet_libraries():
        if "=" in str(folder).partition("/")[0]:
            raise UserError(
                f"{folder}: first comes the folder of the lists, then settings: deephash data "
                f"splits FOLDER {folder}"
            )
        settings = _settings(overrides or [])
        image_set = build("dataset", settings.dataset)
        if check:
            wrong = differences(folder, image_set)
            print("\n".join(wrong) or f"{folder}: as {FACTS} says, and fits {image_set.name}")
            raise typer.Exit(int(bool(wrong)))
        split = build("protocol", settings.protocol, image_set, settings.seed)
        drawn = {"protocol": settings.protocol, "seed": settings.seed}
        write(folder, image_set, split, drawn)
        sizes = ", ".join(f"{len(split.arrays()[part]):,} {part}" for part in PARTS)
        print(f"{folder}: {sizes}")
