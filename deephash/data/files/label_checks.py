"""Checks of label cells: whether they hold vectors, or labels with another separator."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from deephash.core.errors import UserError
from deephash.core.program import quote_in_shell
from deephash.data.files.tables import Table

TRUE, FALSE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
BITS = re.compile("[01]{3,}")  # a vector without a separator, or a number of these digits
USUAL_SIGNS = (";", ",", "|", "/", "+", "&", "\t", ":")
# Others are of these Unicode categories, but do not stand within words as hyphens do.
SIGN_CATEGORIES, SIGNS_OF_WORDS = ("Po", "Pd", "Sm", "Sk"), "_-.'\"`\u2010\u2011"
# Labels look composed if there are so many classes, of so few images on average.
MIN_SUSPICIOUS_CLASSES, MAX_IMAGES_PER_CLASS = 20, 10
MAX_SHOWN_LETTERS = 60


def check_no_vectors(table: Table, column: int, names_of_rows: list[tuple[str, ...]]) -> None:
    """Refuse cells such as 0,1,0: they would be the classes '0' and '1'."""
    vectors = [re.findall(r"[\w.]+", " ".join(names).lower()) for names in names_of_rows]
    cells = {vector[0] for vector in vectors if len(vector) == 1}
    if all(map(BITS.fullmatch, cells)) and len({*map(len, cells)}) == 1:
        vectors = [[*vector[0]] if len(vector) == 1 else vector for vector in vectors]
        is_vector = [vector.count("1") > 1 for vector in vectors]
    else:
        is_vector = [len(vector) > 1 for vector in vectors]
    if any(is_vector) and {value for vector in vectors for value in vector} <= TRUE | FALSE:
        row = is_vector.index(True)
        raise UserError(
            f"{table.describe_cell(row, column)}: '{shorten(table.rows[row][column])}' looks like "
            "a vector of 0 and 1. Give a column of 0 and 1 for each class, with its name in the "
            "first line; or set dataset.label_separator=null if each is one class."
        )


def check_no_other_separator(
    table: Table, column: int, names_of_rows: list[tuple[str, ...]]
) -> None:
    """Refuse labels that look composed of others.

    Either there are many classes of few images, made of fewer parts; or the parts are classes, too.
    """
    counts = Counter(name for names in names_of_rows for name in names)
    are_many = MIN_SUSPICIOUS_CLASSES <= len(counts) >= counts.total() / MAX_IMAGES_PER_CLASS
    signs = _find_signs(counts)
    words = _find_words(counts)
    for separator in (*signs, *words, "_", "-"):
        parts_of = {n: {part.strip() for part in n.split(separator)} - {""} for n in counts}
        composed = [name for name, parts in parts_of.items() if len(parts) > 1]
        parts = set().union(*parts_of.values())
        of_others = [name for name in composed if parts_of[name] <= counts.keys()]
        if of_others and (separator in signs or 3 * len(of_others) >= len(counts)):
            example = of_others[0]
            reason = f"{' and '.join(sorted(parts_of[example])[:2])} are labels of other images"
        elif (
            are_many
            and separator not in ("_", "-")
            and 3 * len(composed) >= len(counts)
            and 2 * len(parts) <= len(counts)
        ):
            example = composed[0]
            reason = (
                f"there are {len(counts):,} different ones for {len(names_of_rows):,} images, made "
                f"of {len(parts):,} parts"
            )
        else:
            continue
        row = next(row for row, names in enumerate(names_of_rows) if example in names)
        raise UserError(
            f"{table.describe_cell(row, column)}: '{shorten(example)}' seems to hold several "
            f"labels: {reason}. Set {quote_in_shell('dataset.label_separator', separator)}, or "
            "dataset.label_separator=null if each is one class."
        )


def _find_signs(names: Iterable[str]) -> list[str]:
    """Punctuation in the names that may separate labels, such as `,` and `->`."""
    others = [
        character
        for character in dict.fromkeys("".join(names))
        if unicodedata.category(character) in SIGN_CATEGORIES and character not in SIGNS_OF_WORDS
    ]
    runs = {run for name in names for run in re.findall(r"""[^\w\s()\[\]{}'"`]+""", name)}
    signs = []
    for sign in dict.fromkeys((*USUAL_SIGNS, *others)):
        around = [run for run in runs if sign in run]
        signs.append(around[0] if len(around) == 1 else sign)
    return signs


def _find_words(names: Iterable[str]) -> list[str]:
    """Blanks that may separate labels, with the word or dash that is between them in all names."""
    inner_words = [{*words[1:-1]} for name in names if len(words := name.split()) > 1]
    common = set.intersection(*inner_words) if inner_words else set()
    if not common:
        return [" and ", " "]
    return [f" {word} " for word in common] if len(common) == 1 else []


def shorten(text: str) -> str:
    """The beginning of a long text, for messages."""
    return text if len(text) <= MAX_SHOWN_LETTERS else f"{text[:MAX_SHOWN_LETTERS]}…"
