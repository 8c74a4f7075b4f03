"""Tables of images: CSV, TSV, Parquet or plain text, read into rows of strings."""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deephash.core.errors import UserError
from deephash.data.files.names import escape_undecodable, is_undecodable, repair_encoding
from deephash.data.files.split_lists import check_is_text, read_lines

SUFFIXES = (".csv", ".tsv", ".parquet", ".txt")
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}
MAX_SHOWN_COLUMNS = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """Rows of strings, each as long as there are columns.

    Attributes:
        source: the file.
        columns: their names; of plain text the numbers from 0.
        rows: in the order of the file.
        lines: line number of each row, from 1.
    """

    source: Path
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, index: int) -> list[str]:
        """Values of the column at `index`."""
        return [row[index] for row in self.rows]

    def describe_cell(self, row: int, column: int) -> str:
        """File, line and column of a value, for error messages."""
        return f"{self.source}, line {self.lines[row]}, column '{self.columns[column]}'"


def read_table(source: Path) -> Table:
    """Read a table in the format that its suffix names, without empty lines.

    CSV, TSV and Parquet have named columns; plain text has none, and blanks between the values.
    Bytes that are not valid UTF-8 are kept, as file names may hold them.

    Raises:
        UserError: the file cannot be read, a row has more or fewer values than the others, or a
            Parquet column holds lists or structures.
    """
    suffix = source.suffix.lower()
    try:
        if suffix == ".parquet":
            return _read_parquet(source)
        if suffix == ".txt":
            rows = [(number, line.split()) for number, line in read_lines(source)]
            columns = [str(i) for i in range(len(rows[0][1]))] if rows else []
            return _build_table(source, columns, rows)
        return _read_csv(source, delimiter="\t" if suffix == ".tsv" else ",")
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0].rstrip(".")  # of Parquet: no strerror
        raise UserError(f"{source} cannot be read: {reason}.") from None


def decode_labels(source: Path, texts: Sequence[str]) -> list[str]:
    """Names of classes or columns: where they are not in UTF-8, in Windows-1252, which is logged.

    Args:
        source: the file that they are from.
        texts: the names, with bytes that are not valid UTF-8 as surrogates.

    Raises:
        UserError: they are not in Windows-1252, either.
    """
    names = [repair_encoding(text) if is_undecodable(text) else text for text in texts]
    changed = [name for name, text in zip(names, texts, strict=True) if name != text]
    if any("\ufffd" in name for name in changed):
        raise UserError(f"{source} is in neither UTF-8 nor Windows-1252. Save it in UTF-8.")
    if changed:
        told = f"{source} is not in UTF-8: labels are read as Windows-1252, such as '{changed[0]}'"
        logger.warning("%s", escape_undecodable(told))
    return names


def _read_csv(source: Path, delimiter: str) -> Table:
    text = source.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    check_is_text(source, text)
    rows = _parse_csv(source, text, delimiter)
    line, header = next(rows, (0, []))
    columns = decode_labels(source, [name.strip() for name in header])
    for other, name in SEPARATORS.items():
        if other != delimiter and len(columns) == 1 and other in columns[0]:
            raise UserError(
                f"{source}, line {line}: the columns are separated by {name}. Separate them by "
                "commas or, in a .tsv, by tabs."
            )
    return _build_table(source, columns, rows)


def _parse_csv(source: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and values of each row that is not empty."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,  # otherwise an unclosed quotation mark swallows the lines below it
    )
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        name = "tabs" if delimiter == "\t" else "commas"
        raise UserError(
            f"{source}, line {reader.line_num}: not values separated by {name} ({error})."
        ) from None


def _build_table(source: Path, columns: list[str], rows: Iterable[tuple[int, list[str]]]) -> Table:
    values, lines = [], []
    for line, row in rows:
        if len(row) != len(columns):
            shown = ", ".join(columns[:MAX_SHOWN_COLUMNS])
            shown += ", …" * (len(columns) > MAX_SHOWN_COLUMNS)
            raise UserError(
                f"{source}, line {line}: {len(row)} values for {len(columns)} columns ({shown})."
            )
        if any("\n" in value for value in row):
            raise UserError(
                f"{source}, up to line {line}: a value extends over several lines. Close or remove "
                "its quotation mark, or give the table as Parquet."
            )
        values.append(row)
        lines.append(line)
    return Table(source, columns, values, lines)


def _read_parquet(source: Path) -> Table:
    try:
        import pyarrow.parquet  # an optional dependency
    except ImportError:
        raise UserError(
            f"{source}: reading Parquet needs pyarrow: pip install 'deephash[parquet]'"
        ) from None
    try:
        table = pyarrow.parquet.read_table(source)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source} cannot be read as Parquet: {reason}") from None
    for field in table.schema:
        is_list = pyarrow.types.is_list(field.type) or pyarrow.types.is_large_list(field.type)
        if pyarrow.types.is_nested(field.type.value_type if is_list else field.type):
            raise UserError(
                f"{source}: column '{field.name}' holds nested values, {field.type}. Give lists of "
                "labels, strings with several labels separated by semicolons, or one column of 0 "
                "and 1 per class."
            )
    names = [name.strip() for name in table.column_names]
    columns = [[_to_string(value) for value in column.to_pylist()] for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(source, names, rows, list(range(1, len(rows) + 1)))


def _to_string(value: object) -> str:
    """The value as a text file would hold it; empty for None and NaN, JSON for a list."""
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    return json.dumps(value) if isinstance(value, list) else str(value)
