"""Nets by name: what a model file may name, and what is read off any net.

A net here computes f(x) alone: the output multiplier c and the centering are put around it by
``fls_bench.training``, so that every net is treated alike.
"""

from fls_bench.models.features import (
    CONVOLUTIONS,
    WEIGHT_LAYERS,
    named_features,
    read_out,
    weight_matrices,
)
from fls_bench.models.mlp import Activation, Mlp, MlpArguments, Size, TwoLayerArguments
from fls_bench.models.table import (
    ARCHITECTURES,
    MAX_PARAMETERS,
    Architecture,
    architecture,
    build,
    check_arguments,
    state_shapes,
)

__all__ = [
    "ARCHITECTURES",
    "CONVOLUTIONS",
    "MAX_PARAMETERS",
    "WEIGHT_LAYERS",
    "Activation",
    "Architecture",
    "Mlp",
    "MlpArguments",
    "Size",
    "TwoLayerArguments",
    "architecture",
    "build",
    "check_arguments",
    "named_features",
    "read_out",
    "state_shapes",
    "weight_matrices",
]
