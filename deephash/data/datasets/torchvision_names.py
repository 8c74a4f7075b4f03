"""Names and parts of torchvision's classification sets. Nothing heavy is imported here."""

# The parts of each set. The last one is the test set, the others are training images.
TRAIN_FLAG = dict.fromkeys(  # chosen by an argument `train`
    ("CIFAR10", "CIFAR100", "EMNIST", "FashionMNIST", "KMNIST", "MNIST", "USPS"),
    ("train", "test"),
)
SPLIT_NAMES = {  # chosen by an argument `split`
    **dict.fromkeys(("Food101", "GTSRB", "STL10", "StanfordCars", "SVHN"), ("train", "test")),
    **dict.fromkeys(("DTD", "Flowers102", "RenderedSST2"), ("train", "val", "test")),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), ("trainval", "test")),
    **dict.fromkeys(("ImageNet", "Imagenette"), ("train", "val")),
    "Country211": ("train", "valid", "test"),
    "Places365": ("train-standard", "val"),
}
WITHOUT_PARTS = dict.fromkeys(("EuroSAT", "SEMEION", "SUN397"), ("all",))
SETS = TRAIN_FLAG | SPLIT_NAMES | WITHOUT_PARTS

# They show signs, digits or letters: a mirrored one is another, or none.
SIGNS = ("EMNIST", "GTSRB", "KMNIST", "MNIST", "RenderedSST2", "SEMEION", "SVHN", "USPS")


def find_set(name: str) -> str | None:
    """The set of this name, whose letter case does not matter; None if there is none.

    >>> find_set("cifar100")
    'CIFAR100'
    """
    return next((known for known in SETS if known.lower() == name.lower()), None)
