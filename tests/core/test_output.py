"""Standard output that is closed, full, or no longer read."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deephash.core.output import tolerate_lost_output

PROGRAM = """
import sys
from pathlib import Path
from deephash.core.output import tolerate_lost_output
with tolerate_lost_output():
    if sys.argv[1] == "fails":
        sys.exit(2)
    print("a line", flush=len(sys.argv) > 2)
    Path("done").touch()
"""


@pytest.mark.parametrize("arguments", ["works", "works flush", "fails"])
@pytest.mark.parametrize("output", [">&-", "> /dev/full", "| true", ">&- 2>&-", "2>&-", ""])
def test_lost_output_is_told_by_the_exit_code_alone(
    arguments: str, output: str, tmp_path: Path
) -> None:
    command = f"{sys.executable} program.py {arguments} {output}"
    if output == "| true":
        command = f"(sleep 0.5; {command.removesuffix(output)}) {output}; exit ${{PIPESTATUS[0]}}"
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    if arguments == "fails":
        assert done.returncode == 2
    else:
        is_lost = output in ("> /dev/full", "| true")
        assert done.returncode == (1 if is_lost else 0)
        assert (tmp_path / "done").exists()


def test_an_error_of_a_file_is_not_taken_for_one_of_the_output() -> None:
    with pytest.raises(FileNotFoundError), tolerate_lost_output():
        Path("/nowhere/at/all").read_text()


def test_a_pipe_that_closes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(writer, "wb")))
    with pytest.raises(SystemExit, match="1"), tolerate_lost_output():
        print("a line", end=str(os.close(reader)))
