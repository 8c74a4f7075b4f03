"""Lists of images: CSV, TSV, Parquet or plain text, read whole and told apart line by line."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deephash.core.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True)
class Table:
    """Rows of as many strings as there are columns.

    Attributes:
        source: the file.
        columns: their names; of plain text the numbers from 0.
        rows: in order.
        lines: of the file, from 1, that the rows stand in.
    """

    source: Path
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, position: int) -> list[str]:
        """Its values."""
        return [row[position] for row in self.rows]

    def where(self, row: int, position: int) -> str:
        """The place of a value, for errors."""
        return f"{self.source}, line {self.lines[row]}, column '{self.columns[position]}'"


def read_table(source: Path) -> Table:
    """The rows of a list by its suffix; empty lines are left out.

    What is no UTF-8 is kept as it is, since names of files need not be.

    Raises:
        UserError: the file cannot be read, a row has more or fewer values than the others, or
            values are not single ones.
    """
    try:
        if source.suffix.lower() == ".parquet":
            return _from_parquet(source)
        text = source.read_bytes().decode("utf-8-sig", errors="surrogateescape")
        return _from_text(source, text)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0].rstrip(".")  # Parquet's
        raise UserError(f"{source} cannot be read: {reason}.") from None


def _from_text(source: Path, text: str) -> Table:
    if "\0" in text:
        raise UserError(f"{source} is no text in UTF-8. Save it as such, or as CSV.")
    named = source.suffix.lower() != ".txt"
    columns: list[str] = []
    rows, lines = [], []
    for line, row in _split(source, text, named):
        if not columns and named:
            columns = [name.strip() for name in row]
            if ";" in columns[0]:
                raise UserError(
                    f"{source}, line {line}: its columns are apart by semicolons. Save it with "
                    "commas or, as .tsv, with tabs."
                )
            continue
        columns = columns or list(map(str, range(len(row))))
        if len(row) != len(columns):
            raise UserError(
                f"{source}, line {line}: it has {len(row)} values, and there are {len(columns)} "
                f"columns ({', '.join(columns[:4])}{', …' if len(columns) > 4 else ''})."
            )
        if any("\n" in value for value in row):
            raise UserError(
                f"{source}, up to line {line}: a value goes on over several lines. Close or remove "
                "its quotation mark."
            )
        rows.append(row)
        lines.append(line)
    return Table(source, columns, rows, lines)


def _split(source: Path, text: str, named: bool) -> Iterator[tuple[int, list[str]]]:
    if not named:
        yield from (
            (i, line.split()) for i, line in enumerate(io.StringIO(text), 1) if line.strip()
        )
        return
    reader = csv.reader(
        io.StringIO(text, newline=""),
        dialect="excel-tab" if source.suffix.lower() == ".tsv" else "excel",
        strict=True,  # else a quotation mark that none closes swallows the lines below
    )
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise UserError(
            f"{source}, line {reader.line_num}: no values between "
            f"{'tabs' if reader.dialect.delimiter == chr(9) else 'commas'} ({error})."
        ) from None


def _from_parquet(source: Path) -> Table:
    try:
        import pyarrow.parquet  # most lists are text
    except ImportError:
        raise UserError(
            f"{source}: Parquet needs a package: pip install 'deephash[parquet]'"
        ) from None
    try:
        table = pyarrow.parquet.read_table(source)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source} cannot be read as Parquet: {reason}") from None
    for field in table.schema:
        if pyarrow.types.is_nested(field.type):
            raise UserError(
                f"{source}: column '{field.name}' holds values of several parts, {field.type}. "
                "Give text: several labels between semicolons, or a column of 0 and 1 each."
            )
    names = [name.strip() for name in table.column_names]
    columns = [list(map(_text, column.to_pylist())) for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(source, names, rows, list(range(1, len(rows) + 1)))


def _text(value: object) -> str:
    """As a text file has it; nothing for None and not a number."""
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    return str(int(value) if isinstance(value, bool) else value)
