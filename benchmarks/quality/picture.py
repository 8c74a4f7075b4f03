"""The picture of the README: five queries of CIFAR-10 beside their ten nearest photographs.

    python train.py dataset=cifar10 bits=48 run_dir=runs/picture \\
        training.pretrain.epochs=4 training.init.epochs=1 training.hash.epochs=1
    python -m benchmarks.quality.picture runs/picture

Any finished run will do; the picture names its mAP. The queries are the first of each of the first
five classes. Writes results/neighbours.png.
"""

import argparse
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from benchmarks.machine import RESULTS
from deephash.experiment import plots
from deephash.experiment.data import load_data
from deephash.experiment.run import read_metrics
from deephash.experiment.run_dir import read_config
from deephash.experiment.settings import validate_settings

NUM_QUERIES = 5


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, help="folder of a finished run")
    run_dir = parser.parse_args().run_dir
    settings = validate_settings(OmegaConf.create(read_config(run_dir)))
    image_set, split = load_data(settings)
    query, database = (np.load(run_dir / "codes" / f"{part}.npz") for part in ("query", "database"))
    examples = np.unique(query["labels"], return_index=True)[1][:NUM_QUERIES]
    figure = plots.neighbours(
        image_set, split, examples, query["words"][examples], database["words"]
    )
    quality = read_metrics(run_dir)["test"]["map"]
    figure.suptitle(
        f"{image_set.name}, {settings.bits} bits, mAP {quality:.3f}", fontsize=9, parse_math=False
    )
    figure.savefig(RESULTS / "neighbours.png", dpi=110)


if __name__ == "__main__":
    main()
