"""Pictures with classes, from disk, the network or a seed; their transforms; their batches."""

# Each file imports only from those above it, which is not the alphabet's order.
from __future__ import annotations

from numpyvit.data.resample import resize_images, resize_matrix
from numpyvit.data.pictures import open_picture, read_picture
from numpyvit.data.dataset import ArrayDataset, Dataset, ImageFolder
from numpyvit.data.subset import Subset, hold_out
from numpyvit.data.download import cache_folder
from numpyvit.data.cifar10 import load_cifar10
from numpyvit.data.shapes import make_shapes
from numpyvit.data.transforms import (
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToFloat,
    ToUint8,
    Transform,
    resized_crops,
)
from numpyvit.data.erasing import RandomErasing
from numpyvit.data.affine import affine_images
from numpyvit.data import enhance as enhance
from numpyvit.data.randaugment import RandAugment
from numpyvit.data.mixing import Mixing
from numpyvit.data.imagenet import (
    default_class_names,
    imagenet_classes,
    imagenet_wordnet_ids,
)
from numpyvit.data import tensorflow_resize as tensorflow_resize
from numpyvit.data import processor_files as processor_files
from numpyvit.data.preprocessing import Preprocessing
from numpyvit.data.official import PREPROCESSINGS
from numpyvit.data.loader import Loader
from numpyvit.data.catalogue import load_dataset

__all__ = [
    "PREPROCESSINGS",
    "ArrayDataset",
    "Compose",
    "Dataset",
    "ImageFolder",
    "Loader",
    "Mixing",
    "Normalize",
    "Preprocessing",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "Subset",
    "ToFloat",
    "ToUint8",
    "Transform",
    "affine_images",
    "cache_folder",
    "default_class_names",
    "hold_out",
    "imagenet_classes",
    "imagenet_wordnet_ids",
    "load_cifar10",
    "load_dataset",
    "make_shapes",
    "open_picture",
    "read_picture",
    "resize_images",
    "resize_matrix",
    "resized_crops",
]
