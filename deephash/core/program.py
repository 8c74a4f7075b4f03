"""How to start this program again, for hints in messages."""

import sys
from pathlib import Path


def train_command(arguments: str) -> str:
    """A training command with these arguments, in the way that this program was started."""
    started_as = Path(sys.argv[0]).name if sys.argv else ""
    prefix = {"deephash": "deephash train", "__main__.py": "python -m deephash train"}
    return f"{prefix.get(started_as, 'python train.py')} {arguments}"
