"""Settings of earlier versions: renamed ones, for errors, and what their runs are resumed with."""

import re
from collections.abc import Collection
from typing import Any

PROTOCOL_SETTINGS = {  # by the name of the function
    "per_class": {"queries": "queries_per_class", "train": "train_per_class"},
    "stratified": {"queries": "query_fraction"},
    "given": {"tolerated": "max_missing_fraction"},
}
DATASET_SETTINGS = {
    "mark": "label_separator",
    "tolerated": "max_invalid_fraction",
    "keep_decoded": "cache_decoded",
}
SETTINGS = (  # patterns of whole names, their replacements
    (r"phase\.(\w+)\.warmup", r"training.\1.scheduler.warmup"),
    (r"phase(\..+)?", r"training\1"),
    (r"search(\..+)?", r"tuning\1"),
    (r"validation\.share", "protocol.validation.fraction"),
    (r"validation\.database", "protocol.validation.database_size"),
    (r"validation", "protocol.validation"),
    (r"logger\.(mode|project|group)", r"logger.wandb.\1"),
    *((rf"dataset\.{old}", f"dataset.{new}") for old, new in DATASET_SETTINGS.items()),
    *(
        (rf"protocol\.{old}", f"protocol.{new}")
        for names in PROTOCOL_SETTINGS.values()
        for old, new in names.items()
    ),
)
CHOICES = {
    ("dataset", "images"): "dataset=image_folder",
    ("recipe", "images"): "recipe=default",
    ("experiment", "images_pretrained"): "experiment=image_folder_pretrained",
    ("protocol", "tc21"): "protocol=1k-59k",
    ("search", "optuna"): "tuning=optuna",
}
TARGETS = {
    "deephash.data.images.images": "deephash.data.datasets.image_folder.image_folder",
    **{
        f"deephash.data.{name}.{name}": f"deephash.data.datasets.{name}.{name}"
        for name in ("digits", "mnist", "cifar10", "nuswide")
    },
    **{
        f"deephash.tracking.{name}_logger": f"deephash.experiment.loggers.{name}_logger"
        for name in ("csv", "wandb")
    },
}
LATER_SETTINGS: dict[str, dict[str, Any]] = {  # by target: what its earlier versions did
    "deephash.data.datasets.image_folder.image_folder": {
        "path_column": None,
        "label_columns": None,
        "split_column": None,
        "val_as": None,
        "pixel_range": "full",
        "max_pixels": None,
    },
    "deephash.data.datasets.nuswide.nuswide": {
        "label_files": [],
        "pixel_range": "full",
        "max_pixels": None,
    },
    "deephash.experiment.loggers.wandb_logger": {"job_type": None, "notes": None},
}


def renamed_setting(name: str, valid: Collection[str]) -> str | None:
    """The present name of a setting of version 0.2; None where it has none.

    Args:
        name: of the setting.
        valid: settings that there are now, to choose between several new names.
    """
    matches = [(re.fullmatch(pattern, name), new) for pattern, new in SETTINGS]
    names = [match.expand(new) for match, new in matches if match]
    return next((new for new in names if new in valid), next(iter(names), None))


def find_rename(place: str, node: dict[str, Any]) -> str | None:
    """What a dataset or protocol node of version 0.2 says under an old name, and the present name.

    Args:
        place: where the node stands in the configuration.
        node: `_target_`, which may be the user's own, and settings.
    """
    target = str(node.get("_target_"))
    if target in TARGETS:
        return f"{place}._target_={target} is now {TARGETS[target]}."
    if not target.startswith("deephash."):
        return None
    names = {
        "dataset": DATASET_SETTINGS,
        "protocol": PROTOCOL_SETTINGS.get(target.rpartition(".")[2], {}),
    }[place]
    old = next((name for name in node if name in names), None)
    return old and f"{place}.{old} is now {place}.{names[old]}."


def is_old_config(config: dict[str, Any]) -> bool:
    """Whether these are the saved settings of a run of version 0.2."""
    return "phase" in config


def upgrade_config(config: dict[str, Any]) -> dict[str, Any]:
    """Saved settings of a run of version 0.2 as this version has them."""
    config = _rename_targets(config)
    training = {name: _upgrade_phase(phase) for name, phase in config.pop("phase").items()}
    validation, tuning = config.pop("validation"), config.pop("search")
    protocol, dataset, logger = config["protocol"], config["dataset"], config["logger"]
    names = PROTOCOL_SETTINGS.get(protocol["_target_"].rpartition(".")[2], {})
    kind = logger["_target_"].rpartition(".")[2].removesuffix("_logger")
    return {
        **config,
        "tags": [],
        "training": training,
        "dataset": {DATASET_SETTINGS.get(key, key): value for key, value in dataset.items()},
        "protocol": {
            **{names.get(key, key): value for key, value in protocol.items()},
            "validation": {
                "fraction": validation["share"],
                "database_size": validation["database"],
            },
        },
        "logger": {} if kind == "no" else {kind: logger},
        "tuning": tuning,
    }


def add_later_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Saved settings of a run with those that data set and loggers did not have at its time."""
    loggers = config.get("logger")
    if isinstance(loggers, dict):
        loggers = {key: _add_later(node) for key, node in loggers.items()}
    return {**config, "dataset": _add_later(config.get("dataset")), "logger": loggers}


def _add_later(node: Any) -> Any:
    later = LATER_SETTINGS.get(str(node.get("_target_"))) if isinstance(node, dict) else None
    return {**later, **node} if later else node


def _upgrade_phase(phase: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in phase.items() if key != "warmup"}
    linear = {"_target_": "deephash.training.schedules.linear", "warmup": phase["warmup"]}
    return {**settings, "scheduler": linear, "param_groups": None}


def _rename_targets(values: Any) -> Any:
    if isinstance(values, dict):
        return {
            key: TARGETS.get(value, value) if key == "_target_" else _rename_targets(value)
            for key, value in values.items()
        }
    return [_rename_targets(value) for value in values] if isinstance(values, list) else values
