"""How to start this program again, for hints in messages."""

import re
import sys
from pathlib import Path


def train_command(arguments: str) -> str:
    """A training command with these arguments, in the way that this program was started."""
    started_as = Path(sys.argv[0]).name if sys.argv else ""
    prefix = {"deephash": "deephash train", "__main__.py": "python -m deephash train"}
    return f"{prefix.get(started_as, 'python train.py')} {arguments}"


def resume_command(run_dir: Path, arguments: str = "") -> str:
    """The command that continues a run, quoted for shell and Hydra where its folder needs it.

    Args:
        run_dir: of the run; in a sweep its name holds `=` and `,`.
        arguments: that are given as well.
    """
    is_plain = re.fullmatch(r"[\w/.:-]+", str(run_dir))
    override = f"resume={run_dir}" if is_plain else f"\"resume='{run_dir}'\""
    return train_command(f"{override} {arguments}".rstrip())
