"""Checks of label cells: whether they hold vectors, or labels with another separator."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from deephash.core.errors import UserError
from deephash.core.program import quote_in_shell
from deephash.data.files.names import escape_undecodable
from deephash.data.files.tables import Table

TRUE, FALSE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
LETTERS = ({"t", "f"}, {"y", "n"})  # in vectors alone
VALUE = re.compile(r"[^\W_]+(?:\.\d*(?:e[+-]\d+)?)?")  # of a vector, such as t, 1, 1., 1.0e+00
BITS = re.compile("[01]+")  # a vector without a separator, or a number of these digits
DECIMAL = re.compile(r"[+-]?\d+\.\d*")
# What may separate labels: other characters than letters and digits, with escape sequences, <br>,
# [SEP] and the like.
JOINT = re.compile(
    r"(?:\\(?:[nrtv]|x\w\w|u\w{4})|%[0-9A-F]{2}|[<\[{][^\w\s]*\w+[^\w\s]*[>\]}]|[\W_])+"
)
MAX_JOINTS = 20  # the most frequent ones are tried
# Characters that stand within words: these, quotation marks, brackets and invisible ones.
SIGNS_OF_WORDS, CATEGORIES_OF_WORDS = "_-.'\"`\u00b4\u2010\u2011", ("Ps", "Pe", "Pi", "Pf", "Cf")
# Labels look composed if there are so many classes, of so few images on average.
MIN_SUSPICIOUS_CLASSES, MAX_IMAGES_PER_CLASS = 20, 10
MAX_SHOWN_LETTERS = 60

logger = logging.getLogger(__name__)


def check_no_vectors(table: Table, column: int, names_of_rows: list[tuple[str, ...]]) -> None:
    """Refuse cells such as 0,1,0: they would be the classes '0' and '1'.

    Of 11 and 101, which may be numbers, only a log line says it.
    """
    vectors = [VALUE.findall(" ".join(names).lower()) for names in names_of_rows]
    values = {value for vector in vectors for value in vector}
    is_vector = [len(vector) > 1 for vector in vectors]
    if any(is_vector):
        if not all(map(_is_bit, values)) and not any(values <= letters for letters in LETTERS):
            return
    else:
        is_vector = [vector != [] and vector[0].count("1") > 1 for vector in vectors]
        if not any(is_vector) or not all(map(BITS.fullmatch, values)):
            return
        if len({*map(len, values)}) > 1 or len(values.pop()) == 2:
            told = (
                f"{table.source}: all labels consist of 0 and 1, such as "
                f"{vectors[is_vector.index(True)][0]}; if they are vectors, give a column of 0 and "
                "1 for each class"
            )
            logger.warning("%s", escape_undecodable(told))
            return
    row = is_vector.index(True)
    raise UserError(
        f"{table.describe_cell(row, column)}: '{shorten(table.rows[row][column])}' looks like a "
        "vector of 0 and 1. Give a column of 0 and 1 for each class, with its name in the first "
        "line; or set dataset.label_separator=null if each is one class."
    )


def _is_bit(value: str) -> bool:
    try:
        return value in TRUE | FALSE or float(value) in (0, 1)
    except ValueError:
        return False


@dataclass(frozen=True)
class _Split:
    """What a separator makes of the names.

    Attributes:
        separator: between the parts.
        composed: names of several parts.
        of_others: those whose parts are all names of others.
        part_count: how many different parts all names have.
    """

    separator: str
    composed: list[str]
    of_others: list[str]
    part_count: int


def check_no_other_separator(
    table: Table, column: int, names_of_rows: list[tuple[str, ...]], label_separator: str
) -> None:
    """Refuse labels that look composed of others.

    Either there are many classes of few images, made of fewer parts; or the parts are classes, too.
    If few classes are made of others by what also stands within words, only a log line says it.
    """
    counts = Counter(name for names in names_of_rows for name in names)
    are_many = MIN_SUSPICIOUS_CLASSES <= len(counts) >= counts.total() / MAX_IMAGES_PER_CLASS
    of_others, of_fewer = [], []
    composed: dict[str, None] = {}
    for separator in _find_separators(counts):
        split = _split_names(counts, separator)
        is_sign = any(map(_is_sign, separator))
        composed |= dict.fromkeys(split.of_others)
        if split.of_others and (is_sign or 3 * len(split.of_others) >= len(counts)):
            of_others.append(split)
        elif (
            are_many
            and (is_sign or any(map(str.isspace, separator)))
            and 3 * len(split.composed) >= len(counts)
            and 2 * split.part_count <= len(counts)
        ):
            of_fewer.append(split)
    if not of_others and not of_fewer:
        _tell_composed(table, list(composed))
        return
    split = min(of_others or of_fewer, key=lambda split: split.part_count)
    example = (split.of_others if of_others else split.composed)[0]
    reason = (
        f"{' and '.join(sorted(_parts(example, split.separator))[:2])} are labels of other images"
        if of_others
        else f"there are {len(counts):,} different ones for {len(names_of_rows):,} images, made of "
        f"{split.part_count:,} parts"
    )
    invisible = [c for c in split.separator if not c.isprintable() and c != "\t"]
    codes = " ".join(f"U+{ord(character):04X}" for character in invisible)
    setting = quote_in_shell("dataset.label_separator", split.separator)
    remedy = f"Set {setting}{f' ({codes})' * bool(codes)}, or"
    if label_separator in example:  # within an element of a list
        remedy = "Make each an element of the list, or set"
    row = next(row for row, names in enumerate(names_of_rows) if example in names)
    raise UserError(
        f"{table.describe_cell(row, column)}: '{shorten(example)}' seems to hold several labels: "
        f"{reason}. {remedy} dataset.label_separator=null if each is one class."
    )


def _tell_composed(table: Table, names: list[str]) -> None:
    if names:
        told = (
            f"{len(names):,} classes, such as {names[0]}, consist"
            if len(names) > 1
            else f"1 class, {names[0]}, consists"
        )
        told = f"{table.source}: {told} of the names of others"
        logger.warning("%s", escape_undecodable(told))


def _split_names(names: Iterable[str], separator: str) -> _Split:
    parts_of = {name: _parts(name, separator) for name in names}
    composed = [
        name for name, parts in parts_of.items() if len(parts) > 1 and not DECIMAL.fullmatch(name)
    ]
    return _Split(
        separator,
        composed,
        of_others=[name for name in composed if parts_of[name] <= parts_of.keys()],
        part_count=len(set().union(*parts_of.values())),
    )


def _parts(name: str, separator: str) -> set[str]:
    return {part.strip() for part in name.split(separator)} - {""}


def _find_separators(names: Iterable[str]) -> list[str]:
    """What may separate labels; the longest first, as parts of it would serve as well."""
    counts: Counter[str] = Counter()
    for name in names:
        # Accents and vowel signs are parts of letters.
        text = name if name.isascii() else "".join("a" if _is_mark(c) else c for c in name)
        counts.update({m[0] for m in JOINT.finditer(text) if m.start() > 0 and m.end() < len(text)})
    whole, signs = [], []
    for joint, _ in counts.most_common(MAX_JOINTS):
        words, is_text = _find_words(names, joint)
        if not is_text:
            whole += [joint.strip() or joint, joint, *words]
            signs += [c for c in joint if not c.isalnum() and not c.isspace()]
    return list(dict.fromkeys([*whole, *signs, " and "]))


def _find_words(names: Iterable[str], joint: str) -> tuple[list[str], bool]:
    """The word between joints in most names, such as `and`; and whether there are more in all."""
    inner_words = [{*words[1:-1]} - {""} for name in names if len(words := name.split(joint)) > 1]
    counts = Counter(word for words in inner_words for word in words).most_common(2)
    is_text = joint.isspace() and len(counts) > 1 and counts[1][1] == len(inner_words)
    most = sum(map(bool, inner_words)) / 2
    return [f"{joint}{word}{joint}" for word, count in counts[:1] if count >= most], is_text


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _is_sign(character: str) -> bool:
    """Whether it separates words, as `,` does, but `-` and blanks do not always."""
    return not (
        character.isalnum()
        or character.isspace()
        or character in SIGNS_OF_WORDS
        or unicodedata.category(character) in CATEGORIES_OF_WORDS
    )


def shorten(text: str) -> str:
    """The beginning of a long text, for messages."""
    return text if len(text) <= MAX_SHOWN_LETTERS else f"{text[:MAX_SHOWN_LETTERS]}…"
