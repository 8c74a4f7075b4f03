"""`deephash data`: audit a data set and its split; store a split as lists; list decoded images.

Each command imports what it needs, so that help and mistakes are answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deephash.data.audit import Audit, Leak
    from deephash.data.files.stores import StoreSummary
    from deephash.data.image_set import ImageSet
    from deephash.data.splits import Split
    from deephash.experiment.settings import Settings

MAX_SHOWN_LINES = 10  # of each kind
LEAK_HEADINGS = {
    "id": "queries trained on or searched under their own id",
    "content": "queries trained on or searched under another id, by their pixels",
    "near": "near-duplicates of queries trained on or searched",
}

app = typer.Typer(help="Inspect a data set and its split.", no_args_is_help=True)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings as in train.py: dataset=cifar10 protocol=1k-59k"),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="Folder of configurations of your own, as for training."),
]
ImageList = Annotated[
    Path | None,
    typer.Option(
        help="List with one image per line: its path and, if labelled, a 0 or 1 per class."
    ),
]


@app.command(short_help="Find leaked queries, duplicates and unusable images.")
def audit(
    overrides: Overrides = None,
    query: ImageList = None,
    database: ImageList = None,
    train: ImageList = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that the paths are relative to; default: that of their list."),
    ] = None,
    near: Annotated[bool, typer.Option(help="Look for near-duplicates.")] = True,
    config_dir: ConfigDir = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the complete result to this file.")
    ] = None,
) -> None:
    """Find queries that are trained on or searched, duplicates and unusable images.

    Audits a data set and protocol, or lists. Exit code 0: no leak, 1: a leak, 2: invalid input.
    """
    from deephash.cli.errors import report_user_errors

    with report_user_errors():
        from dataclasses import asdict
        from tempfile import TemporaryDirectory

        from deephash.core.errors import UserError
        from deephash.core.io import write_json
        from deephash.experiment.console import log_to_stdout, quiet_libraries

        list_of_part = {"query": query, "train": train, "database": database}
        lists = {part: path for part, path in list_of_part.items() if path}
        is_list_audit = bool(lists or root)
        if is_list_audit and (overrides or not query or not database):
            raise UserError(
                "Lists are audited by --query and --database, optionally --train, without settings."
            )
        settings = None if is_list_audit else _parse_inputs(overrides or [], config_dir)
        with log_to_stdout(), quiet_libraries(), TemporaryDirectory() as folder:
            from deephash.data.audit import audit as run_audit
            from deephash.data.audit_lists import load_audit_lists

            if settings is None:
                image_set, split = load_audit_lists(lists, root, Path(folder))
            else:
                image_set, split = _load_with_duplicates(settings)
            result = run_audit(image_set, split, near_duplicates=near)
        _print_audit(result)
        if json_file:
            try:
                write_json(json_file, asdict(result))
            except OSError as error:
                raise UserError(
                    f"--json {json_file} cannot be written: {error.strerror}."
                ) from None
        raise typer.Exit(int(result.has_leaks))


@app.command(short_help="Write the split that a protocol draws, or check it.")
def splits(
    folder: Annotated[Path, typer.Argument(help="Folder of the lists.")],
    overrides: Overrides = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the lists with the data set.")
    ] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Write the split that a protocol draws: query.txt, train.txt, database.txt and split.json.

    protocol=given reads the lists. Exit code of --check 0: they fit, 1: they do not.
    """
    from deephash.cli.errors import report_user_errors

    with report_user_errors():
        from deephash.core.errors import UserError
        from deephash.core.instantiate import build
        from deephash.experiment.console import log_to_stdout, quiet_libraries

        if "=" in str(folder).partition("/")[0]:
            raise UserError(
                f"{folder}: the folder of the lists comes before the settings: deephash data "
                f"splits FOLDER {folder}"
            )
        settings = _parse_inputs(overrides or [], config_dir)
        with log_to_stdout(), quiet_libraries():
            from deephash.data.split_files import PARTS, SUMMARY, find_differences, write_split

            image_set = build("dataset", settings.dataset)
            if check:
                differences = find_differences(folder, image_set)
                agreement = f"{folder}: agrees with {SUMMARY} and fits {image_set.name}"
                print("\n".join(differences) or agreement)
                raise typer.Exit(int(bool(differences)))
            protocol = settings.protocol.node()
            split = build("protocol", protocol, image_set, settings.seed)
            write_split(folder, image_set, split, {"protocol": protocol, "seed": settings.seed})
        sizes = ", ".join(f"{len(split.arrays()[part]):,} {part}" for part in PARTS)
        print(f"{folder}: {sizes}")


@app.command(short_help="List the decoded images that are kept, or remove them.")
def cache(
    folder: Annotated[
        str | None,
        typer.Argument(help="dataset.decoded_dir of the runs; default: that of conf/."),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="Remove the store of this name; can be repeated.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all stores.")] = False,
) -> None:
    """List the stores of decoded images with their sizes, or remove them.

    A store that a process adds images to is not removed; exit code 1.
    """
    from deephash.cli.errors import report_user_errors

    with report_user_errors():
        from deephash.core.errors import UserError, did_you_mean
        from deephash.data.files.stores import list_stores, remove_store

        if folder is None:
            folder = _parse_settings(["dataset=image_folder"], None).dataset["decoded_dir"]
        place = Path(folder)
        try:
            stores = {store.folder.name: store for store in list_stores(place)}
            for name in remove or []:
                if name not in stores:
                    raise UserError(
                        f"--remove {name}: not in {place}. {did_you_mean(name, stores)}"
                    )
            if not clear and not remove:
                _print_stores(place, list(stores.values()))
                return
            chosen = [name for name in stores if clear or name in (remove or [])]
            is_removed = {name: remove_store(stores[name].folder) for name in chosen}
        except OSError as error:
            raise UserError(f"{error.filename or place}: {error.strerror}.") from None
        for name, removed in is_removed.items():
            print(f"removed {name}" if removed else f"kept {name}: a process adds images to it")
        if not is_removed:
            print(f"{place}: no decoded images")
        raise typer.Exit(int(not all(is_removed.values())))


def _print_stores(place: Path, stores: Sequence[StoreSummary]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not stores:
        print(f"{place}: no decoded images")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("store")
    for name in ("images", "MB", "last added"):
        table.add_column(name, justify="right")
    for store in stores:
        megabytes = f"{store.bytes / 1e6:,.1f}"
        date = f"{store.modified:%Y-%m-%d %H:%M}"
        table.add_row(store.folder.name, f"{store.images:,}", megabytes, date)
    print(place)
    Console(highlight=False, markup=False, soft_wrap=True).print(table)


def _parse_inputs(overrides: Sequence[str], config_dir: Path | None) -> Settings:
    """The settings, after looking for what they read."""
    from deephash.experiment.inputs import check_inputs

    settings = _parse_settings(overrides, config_dir)
    check_inputs(settings)
    return settings


def _parse_settings(overrides: Sequence[str], config_dir: Path | None) -> Settings:
    from deephash.cli.compose import compose_config, is_search_path, search_path_override
    from deephash.core.errors import UserError
    from deephash.experiment.settings import validate_settings

    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(
                f"{override} is not a setting. For your own images: dataset=image_folder "
                f"dataset.path={override}"
            )
    option = [f"--config-dir={config_dir}"] if config_dir else []
    search_path = search_path_override([*overrides, *option])
    overrides = [override for override in overrides if not is_search_path(override)]
    return validate_settings(compose_config([*overrides, *search_path]))


def _load_with_duplicates(settings: Settings) -> tuple[ImageSet, Split]:
    """Images and split of a run, including the duplicates of queries, which a run drops."""
    from deephash.core.instantiate import build
    from deephash.data.splits import hold_out_validation

    image_set = build("dataset", settings.dataset)
    split = build("protocol", settings.protocol.node(), image_set, settings.seed)
    return image_set, hold_out_validation(
        split,
        image_set.labels.numpy(),
        fraction=settings.protocol.validation.fraction,
        database_size=settings.protocol.validation.database_size,
        seed=settings.seed,
    )


def _print_audit(result: Audit) -> None:
    from rich.console import Console
    from rich.table import Table

    print(f"{result.name}\ndata  {result.data}\nsplit {result.split}\n")
    table = Table(box=None, pad_edge=False)
    table.add_column("images")
    for part in result.sizes:
        table.add_column(part, justify="right")
    table.add_row("all", *(f"{size:,}" for size in result.sizes.values()))
    for name in result.classes["query"]:
        table.add_row(name, *(f"{counts[name]:,}" for counts in result.classes.values()))
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
    print()
    for reason, names in result.left_out.items():
        _print_lines(f"{reason} images", names)
    _print_lines("ignored files, without the suffix of an image", result.ignored_files)
    if result.duplicates_in_database:
        print(f"duplicates within the database, no leak: {result.duplicates_in_database:,}")
    for kind, leaks in result.leaks.items():
        _print_lines(LEAK_HEADINGS[kind], [_describe_leak(leak) for leak in leaks])
    if not result.has_leaks:
        criteria = "id, pixels and look" if "near" in result.leaks else "id and pixels"
        print(f"no query also occurs in the training set or the database (compared by {criteria})")


def _describe_leak(leak: Leak) -> str:
    parts = ", ".join(leak.parts)
    if leak.other == leak.query:
        return f"{leak.query} in {parts}"
    if not leak.difference:
        return f"{leak.query} equals {leak.other} in {parts}"
    return f"{leak.query} looks like {leak.other} in {parts}, {leak.difference} of 255 levels apart"


def _print_lines(heading: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"{heading}: {len(lines):,}")
    for line in lines[:MAX_SHOWN_LINES]:
        print(f"  {line}")
    if len(lines) > MAX_SHOWN_LINES:
        print(f"  and {len(lines) - MAX_SHOWN_LINES:,} more; --json FILE writes all")
