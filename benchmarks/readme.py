"""Copy the tables of results/ into README.md and docs/, between their markers.

python -m benchmarks.readme
"""

import argparse
import re

from benchmarks.machine import ROOT

TABLE = re.compile(r"(<!-- (benchmarks/\S+) -->)\n.*?<!-- end -->", flags=re.DOTALL)


def main() -> None:
    """Replace the text between each `<!-- benchmarks/results/NAME.md -->` and `<!-- end -->`."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        document.write_text(TABLE.sub(insert_table, document.read_text()))


def insert_table(match: re.Match[str]) -> str:
    """The marker, the table of its file, and the end marker."""
    return f"{match[1]}\n{(ROOT / match[2]).read_text().strip()}\n<!-- end -->"


if __name__ == "__main__":
    main()
