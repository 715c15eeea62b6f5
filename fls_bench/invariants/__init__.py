"""Scaling invariants, checked on any net with its data and optimizer.

Each check tries one draw (seed, factor on c, batch, epochs) in float64 and says held, broken or void.
``search`` tries many, and looks for the smallest that breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fls_bench.invariants.claims import Draw, Invariant
from fls_bench.invariants.compensation import (
    check_exact_rule,
    check_one_rate,
    check_own_optimizer,
    check_own_rule,
)
from fls_bench.invariants.multiplier import (
    check_parameter_scale,
    check_routes,
    check_tangent_kernel,
    check_temperature,
)
from fls_bench.invariants.statistical import check_balance, check_lazy_limit, check_movement
from fls_bench.invariants.symmetries import (
    check_batching,
    check_duplication,
    check_label_names,
    check_permutation,
    check_relu_rescaling,
    check_rotation,
    check_sample_order,
)
from fls_bench.invariants.twins import Examined, OptimizerFactory

__all__ = ["INVARIANTS", "Draw", "Examined", "Invariant", "OptimizerFactory"]

_ROWS = (
    Invariant("routes", check_routes),
    Invariant("temperature", check_temperature, trains=False),
    Invariant("tangent_kernel", check_tangent_kernel, trains=False),
    Invariant("parameter_scale", check_parameter_scale, trains=False),
    Invariant("one_rate", check_one_rate),
    Invariant("exact_rule", check_exact_rule),
    Invariant("own_rule", check_own_rule, optional=True),
    Invariant("own_optimizer", check_own_optimizer, optional=True),
    Invariant("movement", check_movement, once=True),
    Invariant("relu_rescaling", check_relu_rescaling, trains=False),
    Invariant("permutation", check_permutation),
    Invariant("rotation", check_rotation),
    Invariant("duplication", check_duplication),
    Invariant("sample_order", check_sample_order),
    Invariant("label_names", check_label_names),
    Invariant("batching", check_batching),
    Invariant("balance", check_balance),
    Invariant("lazy_limit", check_lazy_limit, once=True),
)

INVARIANTS: Mapping[str, Invariant] = MappingProxyType({row.name: row for row in _ROWS})
"""Every invariant by name, in the order in which they are shown."""
