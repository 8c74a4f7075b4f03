"""The text of README.md and docs/, with the commands and examples in it."""

import re
import shlex
import tomllib

from conftest import ROOT

README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

LINES = [
    line
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line and not line.startswith("#")
]
# Each command once, as words.
COMMANDS = list(dict.fromkeys(tuple(shlex.split(line)) for line in LINES))
# The arguments of those that train, and of `deephash`.
TRAINING = [
    words[words.index(program) + 1 :]
    for words in COMMANDS
    for program in ("train.py", "train")
    if program in words and not {"--cfg", "pip"} & set(words)
]
DATA = [words[1:] for words in COMMANDS if words[:2] == ("deephash", "data")]

# Files in the text: the line above the block is the name.
EXAMPLES = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
TABLES = [
    (document, table)
    for document in DOCUMENTS
    for table in re.findall(r"<!-- (benchmarks/\S+) -->", document.read_text())
]
