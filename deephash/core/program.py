"""How to start this program again, for hints in messages."""

import re
import shlex
import sys
from pathlib import Path

CONFIG = "config.yaml"  # in the folder of a run, from when it can be resumed


def train_command(arguments: str) -> str:
    """A training command with these arguments, in the way that this program was started."""
    program = sys.argv[0] if sys.argv else ""
    script = program if Path(program).name == "train.py" else "train.py"  # from another folder
    prefix = {"deephash": "deephash train", "__main__.py": "python -m deephash train"}
    return f"{prefix.get(Path(program).name, f'python {shlex.quote(script)}')} {arguments}"


def resume_command(run_dir: Path, arguments: str = "") -> str:
    """The command that continues a run, quoted for shell and Hydra where its folder needs it.

    Args:
        run_dir: of the run; in a sweep its name holds `=` and `,`.
        arguments: that are given as well.
    """
    return train_command(f"{path_in_shell('resume', run_dir)} {arguments}".rstrip())


def resume_hint(run_dir: Path, arguments: str = "", words: str = "Resume with") -> str:
    """A sentence with the command that continues a run; empty where its folder holds none yet.

    Args:
        run_dir: of the run.
        arguments: that are given as well.
        words: before the command.
    """
    is_run = (run_dir / CONFIG).is_file()
    return f" {words}: {resume_command(run_dir, arguments)}" if is_run else ""


def path_in_shell(name: str, path: Path) -> str:
    """A setting that names a path, quoted for shell and Hydra where it needs it."""
    return f"{name}={path}" if _is_plain(path) else quote_in_shell(name, str(path))


def path_override(name: str, path: Path) -> str:
    """A setting that names a path, quoted for Hydra where it needs it."""
    return f"{name}={path}" if _is_plain(path) else f"{name}={quote(str(path))}"


def _is_plain(path: Path) -> bool:
    """Whether neither shell nor Hydra reads the path as something else, such as a number."""
    return re.fullmatch(r"[A-Za-z_./][\w.-]*/[\w/.-]*", str(path), re.ASCII) is not None


def quote_in_shell(name: str, value: str) -> str:
    """A setting with a text of any characters, quoted for shell and Hydra."""
    text = f"{name}={quote(value)}"
    return shlex.quote(text) if re.search(r'["$`!\\]', text) else f'"{text}"'


def quote(text: str) -> str:
    """Text as Hydra's override grammar takes it, whatever characters it has."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", r"\'")
    return f"'{escaped}'"
