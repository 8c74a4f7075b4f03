"""Write the golden losses anew: `python tests/golden/rewrite.py "why they change"`.

The reason is appended to the list in `losses.json`. Run it for a new method, and for a change that
moves the losses on purpose; say in the reason what changed and why the new values are right.
"""

import json
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "losses.json"


def main() -> None:
    from training_losses import train

    from deephash.cli.compose import CONF

    reason = " ".join(sys.argv[1:]).strip()
    if not reason:
        raise SystemExit(__doc__)
    before = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {"reasons": [], "losses": {}}
    losses = {}
    for path in sorted((CONF / "method").glob("*.yaml")):
        _, recorders = train(path.stem)
        losses[path.stem] = {phase: recorder.losses for phase, recorder in recorders.items()}
    golden = {"reasons": [*before["reasons"], reason], "losses": losses}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    for method, phases in losses.items():
        for phase, values in phases.items():
            old = before["losses"].get(method, {}).get(phase, [])
            same = sum(a == b for a, b in zip(old, values, strict=False))
            print(f"{method} {phase}: {same} of {len(values)} losses as before")


if __name__ == "__main__":
    main()
