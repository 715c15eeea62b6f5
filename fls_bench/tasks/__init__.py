"""Data by name, and the user's own: arrays in three parts, redrawn with a seed.

What is chosen (c*, learning rates) is chosen on training or validation data; regime and gain are
measured on a test part that chose nothing. Finite data keep one fixed test part, and the seed
redraws training and validation from the rest; generated data are redrawn whole.
"""

from fls_bench.tasks.altered import altered
from fls_bench.tasks.arrays import ONLY_WHOLE, arrays_source, npz_source
from fls_bench.tasks.bundled import breast_cancer, diabetes, digits, wine
from fls_bench.tasks.drawing import SPLIT_SEED
from fls_bench.tasks.folders import folder_source
from fls_bench.tasks.generated import MAX_NUMBERS, mixture, noise, product_of_signs
from fls_bench.tasks.images import cifar10, cifar100, fashion_mnist, mnist
from fls_bench.tasks.latent import latent_images
from fls_bench.tasks.photos import photo_patches
from fls_bench.tasks.signals import mnist1d
from fls_bench.tasks.sources import TASKS, function_source, load_task, named_source, task_source
from fls_bench.tasks.sprites import dsprites
from fls_bench.tasks.synthetic import (
    clusters,
    hastie,
    piecewise,
    quantiles,
    single_index,
    spirals,
    teacher,
    waveform,
    xor_mixture,
)
from fls_bench.tasks.tables import table_source
from fls_bench.tasks.task import (
    MIN_PER_PART,
    NO_VALIDATION,
    Array,
    Labels,
    Task,
    TaskSource,
    make_task,
)

__all__ = [
    "MAX_NUMBERS",
    "MIN_PER_PART",
    "NO_VALIDATION",
    "ONLY_WHOLE",
    "SPLIT_SEED",
    "TASKS",
    "Array",
    "Labels",
    "Task",
    "TaskSource",
    "altered",
    "arrays_source",
    "breast_cancer",
    "cifar10",
    "cifar100",
    "clusters",
    "diabetes",
    "digits",
    "dsprites",
    "fashion_mnist",
    "folder_source",
    "function_source",
    "hastie",
    "latent_images",
    "load_task",
    "make_task",
    "mixture",
    "mnist",
    "mnist1d",
    "named_source",
    "noise",
    "npz_source",
    "photo_patches",
    "piecewise",
    "product_of_signs",
    "quantiles",
    "single_index",
    "spirals",
    "table_source",
    "task_source",
    "teacher",
    "waveform",
    "wine",
    "xor_mixture",
]
