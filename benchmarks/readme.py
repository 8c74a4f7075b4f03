"""Put the tables of results/ into the README, between their markers.

python benchmarks/readme.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Replace what stands between `<!-- benchmarks/results/NAME.md -->` and `<!-- end -->`."""
    readme = ROOT / "README.md"

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{(ROOT / match[2]).read_text().strip()}\n<!-- end -->"

    pattern = r"(<!-- (benchmarks/\S+) -->)\n.*?<!-- end -->"
    readme.write_text(re.sub(pattern, table, readme.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main()
