"""Plant faults in a copy of this checkout, one at a time, and see which test catches each.

    python tests/planted_faults.py            all of them; a quarter of an hour
    python tests/planted_faults.py shuffle    those with this word in their description

Prints a Markdown table. Exits with 1 if a fault was not caught.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600  # seconds for one run of the tests; a fault that makes them hang is not caught

# Rooms of the code and files of the tests, as the table below abbreviates them.
TRAINING, DATA, METRICS = "deephash/training", "deephash/data", "deephash/metrics"
FILES = "deephash/data/files"
EXPERIMENT, HAMMING, METHODS = "deephash/experiment", "deephash/hamming", "deephash/methods"


class Fault(NamedTuple):
    """One fault: a text in a file, replaced wherever it occurs, and the tests that must fail."""

    description: str
    file: str
    text: str
    replacement: str
    tests: str  # files below tests/, separated by blanks


# fmt: off
FAULTS = [Fault(*row) for row in (
    ("constant rate", f"{TRAINING}/modules.py",
     "self.schedule(step, total_steps)", "1.0", "training/test_schedules.py"),
    ("warm-up ignored", f"{TRAINING}/schedules.py",
     "max(1, round(warmup * total_steps))", "1", "training/test_schedules.py"),
    ("schedule advances by epoch", f"{TRAINING}/modules.py",
     '"interval": "step"', '"interval": "epoch"', "training/test_schedules.py"),
    ("linear fall ends a step early", f"{TRAINING}/schedules.py",
     "falling = (total_steps - step)", "falling = (total_steps - step - 1)",
     "training/test_schedules.py"),
    ("weight decay dropped", f"{TRAINING}/optimization.py",
     "return self._make(groups)", "return self._make(groups, weight_decay=0.0)",
     "training/test_optimization.py"),
    ("parameter groups without settings of their own", f"{TRAINING}/optimization.py",
     '{"params": group, **overrides[prefix]}', '{"params": group}',
     "training/test_optimization.py"),
    ("first prefix decides, not the longest", f"{TRAINING}/optimization.py",
     'max(matches, key=len, default="")', 'next(iter(matches), "")',
     "training/test_optimization.py"),
    ("summed curve", f"{TRAINING}/callbacks.py",
     "float(s) / self._steps", "float(s)", "training/test_callbacks.py"),
    ("curve not cleared between rows", f"{TRAINING}/callbacks.py",
     "self._sums, self._steps = {}, 0\n        if", "self._steps = 0\n        if",
     "training/test_callbacks.py"),
    ("curve without the steps of earlier phases", f"{TRAINING}/callbacks.py",
     "self.first_step + trainer.global_step", "trainer.global_step",
     "training/test_callbacks.py"),
    ("epoch without those of earlier phases", f"{TRAINING}/callbacks.py",
     "self.first_epoch + trainer.current_epoch + 1", "trainer.current_epoch + 1",
     "training/test_callbacks.py"),
    ("same generators in each epoch", f"{TRAINING}/callbacks.py",
     "derived_seed(self.seed, trainer.current_epoch)", "derived_seed(self.seed)",
     "training/test_callbacks.py"),
    ("augmentation in validation", f"{DATA}/datamodule.py",
     "self.trainer is not None and self.trainer.training)", "self.trainer is not None)",
     "training/test_shown_images.py"),
    ("same augmentation in each epoch", f"{DATA}/datamodule.py",
     "epoch=self.trainer.current_epoch", "epoch=0", "training/test_shown_images.py"),
    ("features by a backbone in training mode", f"{TRAINING}/modules.py",
     'return self.backbone(batch["images"]).cpu()',
     'return self.backbone.train()(batch["images"]).cpu()', "training/test_shown_images.py"),
    ("stale batch norm: hashing in evaluation mode", f"{TRAINING}/phases.py",
     "        trainer.fit(module,", "        module.backbone.eval()\n        trainer.fit(module,",
     "training/test_shown_images.py"),
    ("head-only phase trains the backbone", f"{TRAINING}/phases.py",
     'phase.trains == "head"', "False", "training/test_phases.py"),
    ("joint phase leaves the backbone", f"{TRAINING}/modules.py",
     "self.backbone.requires_grad_(not head_only)", "self.backbone.requires_grad_(False)",
     "training/test_phases.py"),
    ("last checkpoint replaced by the first", f"{TRAINING}/phases.py",
     "save_on_train_epoch_end=True,", 'save_on_train_epoch_end=True, monitor="epoch", mode="min",',
     "training/test_phases.py"),
    ("cached pre-training not loaded", f"{TRAINING}/checkpoints.py",
     'module.load_state_dict(checkpoint["state_dict"])', "pass", "training/test_phases.py"),
    ("later phase kept though the earlier one changed", f"{TRAINING}/checkpoints.py",
     'checkpoint.get("trained_from", trained_from) != trained_from', "False",
     "training/test_phases.py"),
    ("cache key without the code", f"{EXPERIMENT}/pipeline.py",
     '"versions", "source_digest")', '"versions")', "training/test_source_digest.py"),
    ("label smoothing ignored", f"{TRAINING}/modules.py",
     ", label_smoothing=smoothing)", ")", "training/test_modules.py"),
    ("smoothed validation loss", f"{TRAINING}/modules.py",
     "smoothing=0)", "smoothing=self.label_smoothing)", "training/test_modules.py"),
    ("validation loss is a mean of batches, not of images", f"{TRAINING}/modules.py",
     "self.validation_loss.update(loss, len(logits))", "self.validation_loss.update(loss)",
     "training/test_modules.py"),
    ("validation codes of earlier epochs kept", f"{TRAINING}/modules.py",
     "        self.ranking.reset()\n", "", "training/test_modules.py"),
    ("query and database swapped in validation", f"{TRAINING}/modules.py",
     '"query" if dataloader_idx == 0 else "database"',
     '"database" if dataloader_idx == 0 else "query"', "training/test_modules.py"),
    ("accuracy of training images", f"{TRAINING}/modules.py",
     "if dataloader_idx == 0:", "if dataloader_idx == 1:", "training/test_modules.py"),
    ("a pair of an image with itself counts", f"{METHODS}/joint.py",
     "device=rows.device), rows] = False", "device=rows.device), rows] = True",
     "golden/test_training_losses.py"),
    ("sum of similar and dissimilar pairs, not their mean", f"{METHODS}/joint.py",
     "(sums[:, 0] / sums[:, 1].clamp(min=1)).mean()",
     "(sums[:, 0] / sums[:, 1].clamp(min=1)).sum()", "methods/test_joint.py"),
    ("no shuffle", f"{DATA}/datamodule.py",
     "torch.randperm(len(self.indices), generator=generator)", "torch.arange(len(self.indices))",
     "training/test_shown_images.py"),
    ("same order in each epoch", f"{DATA}/datamodule.py",
     '"order", self.epoch)', '"order")', "data/test_datamodule.py"),
    ("last batch of each epoch dropped", f"{DATA}/datamodule.py",
     "yield from self.indices[order].tensor_split(self.batch_count)",
     "yield from self.indices[order].tensor_split(self.batch_count)[:-1]",
     "data/test_datamodule.py"),
    ("labels in another order than the images", f"{DATA}/datamodule.py",
     '"labels": self.dataset.labels[indices]', '"labels": self.dataset.labels[indices].flip(0)',
     "data/test_datamodule.py"),
    ("validation images trained on", f"{DATA}/splits.py",
     "train = np.setdiff1d(split.train, validation)", "train = split.train",
     "data/test_every_dataset.py"),
    ("copies of queries in the database", f"{DATA}/splits.py",
     "database=split.database[~is_duplicate[split.database]]", "database=split.database",
     "data/test_protocols.py"),
    ("copies of queries never looked for", f"{EXPERIMENT}/data.py",
     "drop_query_duplicates(image_set, split)", "split", "training/test_run_by_hand.py"),
    ("validation images not drawn by the seed", f"{DATA}/splits.py",
     'np.random.default_rng(derived_seed(seed, "validation"))', "np.random.default_rng()",
     "data/test_every_dataset.py"),
    ("queries drawn by the same seed in each run", f"{DATA}/protocols.py",
     'derived_seed(seed, "protocol")', 'derived_seed(0, "protocol")',
     "training/test_run_by_hand.py"),
    ("queries trained on", f"{DATA}/protocols.py",
     "others = np.setdiff1d(indices, query)", "others = indices", "data/test_protocols.py"),
    ("listed names differ by letter case", f"{FILES}/names.py",
     '"letter case": str.casefold,', '"letter case": str,', "data/test_name_index.py"),
    ("listed name that fits two images means the first", f"{FILES}/name_index.py",
     "if len(rows) > 1:", "if len(rows) > 2:", "data/test_name_index.py"),
    ("listed file under two names is two images", f"{FILES}/cleaning.py",
     "keys = (os.path.abspath(self.paths[row]), ", "keys = (", "data/test_listed_files.py"),
    ("label cell of nan is a class", f"{FILES}/labels.py",
     "if cell in MISSING:\n            names", "if not cell:\n            names",
     "data/test_cell_labels.py"),
    ("label cells of several names are classes", f"{FILES}/label_checks.py",
     '_find_separators(counts):', '():', "data/test_cell_labels.py"),
    ("label columns of NUS-WIDE by position, though named", f"{DATA}/datasets/nuswide_lists.py",
     "if concepts and columns.concepts:", "if False:", "data/test_nuswide_layouts.py"),
    ("lists of NUS-WIDE in different orders read in one", f"{DATA}/datasets/nuswide_orders.py",
     "if len(orders) > 1:", "if False:", "data/test_nuswide_layouts.py"),
    ("outliers of small images count", f"{FILES}/pixel_range.py",
     "outliers = max(outliers, one_pixel)", "pass", "data/test_pixel_range.py"),
    ("pixel range of 12 bits in 16 not noticed", f"{FILES}/pixel_range.py",
     "if not uses_small_range(lowest, highest):", "if True:", "data/test_pixel_range.py"),
    ("pixel range off by one level", f"{FILES}/pixel_range.py",
     "(high - low + is_integer)", "(high - low)", "data/test_pixel_range.py"),
    ("decoded store of another pixel range used", f"{FILES}/decoded_store.py",
     "px-{values}-pillow", "px-pillow", "data/test_pixel_range.py"),
    ("decoded store takes a changed file for the old one", f"{FILES}/fingerprints.py",
     "(status.st_size, status.st_mtime_ns, start, samples)", "(status.st_size, 0, start, b'')",
     "data/test_decoded_cache.py"),
    ("decoded store not verified", f"{FILES}/decoded_cache.py",
     'if content_hash(image) != index["content_hash"][row]:', "if False:",
     "data/test_decoded_cache.py"),
    ("class folders: val is always test", f"{DATA}/datasets/class_folders.py",
     'val_as or ("train" if "test" in roles.values() else "test")', 'val_as or "test"',
     "data/test_class_folders.py"),
    ("class folders: parts of a split are classes", f"{DATA}/datasets/class_folders.py",
     'if not nested_folders and "unknown" not in kinds', "if False and kinds",
     "data/test_class_folders.py"),
    ("torchvision names by letter case", f"{DATA}/datasets/torchvision_names.py",
     "known.lower() == name.lower()", "known == name", "data/test_torchvision_set.py"),
    ("torchvision set queries its training images", f"{DATA}/datasets/torchvision_set.py",
     "i > 0 and i == len(parts) - 1", "i == 0", "data/test_torchvision_set.py"),
    ("translation one pixel short", f"{DATA}/augment.py",
     "% (2 * translate + 1) - translate", "% (2 * translate) - translate",
     "training/test_shown_images.py"),
    ("mirroring never mirrors", f"{DATA}/augment.py",
     "is_flipped = draws[2] % 2 == 1", "is_flipped = draws[2] % 2 == 2",
     "training/test_shown_images.py"),
    ("statistics of all images, queries included", f"{EXPERIMENT}/pipeline.py",
     "channel_statistics(image_set.images, split.train)",
     "channel_statistics(image_set.images, np.arange(len(image_set)))",
     "training/test_run_by_hand.py"),
    ("database codes taken from the queries", f"{EXPERIMENT}/evaluate.py",
     "indices = data.split.arrays()[part]", 'indices = data.split.arrays()["query"]',
     "training/test_run_by_hand.py"),
    ("off by one of k: precision@k of k - 1", f"{METRICS}/average_precision.py",
     "np.clip(k - before, 0, items)", "np.clip(k - 1 - before, 0, items)",
     "metrics/test_average_precision.py"),
    ("best order of ties in place of the expectation", f"{METRICS}/ranking.py",
     '"map": average_precision(items, relevant)', '"map": average_precision_best(items, relevant)',
     "metrics/test_average_precision.py"),
    ("mAP@k divided by the hits, not by min(k, R)", f"{METRICS}/ranking.py",
     "average_precision(items, relevant, k)", "average_precision_retrieved(items, relevant, k)",
     "metrics/test_average_precision.py"),
    ("radius off by one", f"{METRICS}/ranking.py",
     "precision[:, radius]", "precision[:, radius - 1]", "metrics/test_average_precision.py"),
    ("queries without a relevant item count as zero", f"{METRICS}/ranking.py",
     "_mean(value[has_relevant])", "_mean(np.nan_to_num(value))",
     "metrics/test_average_precision.py"),
    ("discount of NDCG is the rank", f"{METRICS}/rank_sums.py",
     "1 / np.log2(np.arange(2, TABLE_SIZE + 1))", "1 / np.arange(2, TABLE_SIZE + 1)",
     "metrics/test_graded_metrics.py"),
    ("sign of zero is -1", f"{HAMMING}/codes.py",
     "(logits >= 0)", "(logits > 0)", "hamming/test_codes.py"),
    ("bits packed in the other order", f"{HAMMING}/codes.py",
     'np.packbits(values, axis=1, bitorder="little")',
     'np.packbits(values, axis=1, bitorder="big")', "hamming/test_codes.py"),
)]
# fmt: on


def main(words: list[str]) -> int:
    """Plant the faults whose description has one of `words`; all if there are none."""
    faults = [f for f in FAULTS if not words or any(word in f.description for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        for name in ("deephash", "conf", "tests", "pyproject.toml", "train.py"):
            source, target = ROOT / name, checkout / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        _check_without_fault(checkout, faults)
        print("| fault | file | caught by | seconds |\n|---|---|---|---|", flush=True)
        missed = sum(not _try(checkout, fault) for fault in faults)
    print(f"\n{len(faults) - missed} of {len(faults)} faults are caught.")
    return int(missed > 0)


def _check_without_fault(checkout: Path, faults: list[Fault]) -> None:
    """Exit where a test fails already, or the code under test is not the copy."""
    show = [sys.executable, "-c", "import deephash; print(deephash.__file__)"]
    found = subprocess.run(show, cwd=checkout, env=_environment(checkout), capture_output=True)
    if checkout.name not in found.stdout.decode():
        sys.exit(f"the tests would import {found.stdout.decode().strip()}, not the copy")
    for fault in faults:  # before any time is spent
        _plant(checkout, fault)()
    files = sorted({name for fault in faults for name in fault.tests.split()})
    failed = _first_failure(checkout, files)
    if failed:
        sys.exit(f"without any fault {failed} fails")


def _try(checkout: Path, fault: Fault) -> bool:
    """Plant a fault, print its row of the table, and remove it; whether it was caught."""
    start = time.perf_counter()
    remove = _plant(checkout, fault)
    try:
        failed = _first_failure(checkout, fault.tests.split())
    finally:
        remove()
    seconds = time.perf_counter() - start
    caught_by = f"`{failed}`" if failed else "**nothing**"
    print(f"| {fault.description} | {fault.file} | {caught_by} | {seconds:.0f} |", flush=True)
    return bool(failed)


def _plant(checkout: Path, fault: Fault) -> Callable[[], object]:
    """Replace the text of a fault; returns a function that puts it back."""
    path = checkout / fault.file
    before = path.read_text()
    if fault.text not in before:
        sys.exit(f"{fault.file} has no text {fault.text!r}, to plant: {fault.description}")
    path.write_text(before.replace(fault.text, fault.replacement))
    compile(path.read_text(), str(path), "exec")
    return lambda: path.write_text(before)


def _first_failure(checkout: Path, files: list[str]) -> str:
    """The first failing test of these files; empty if all pass."""
    options = ["-x", "-n", "0", "--tb=line", "-rfE", "-p", "no:cacheprovider"]
    paths = [f"tests/{name}" for name in files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *paths],
        cwd=checkout,
        env=_environment(checkout),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if done.returncode == 0:
        return ""
    failure = re.search(r"^FAILED tests/(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if failure is None:  # the tests could not even be collected: no test has caught it
        sys.exit(f"{paths} did not run:\n{(done.stdout + done.stderr)[-3000:]}")
    return failure.group(1)


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
