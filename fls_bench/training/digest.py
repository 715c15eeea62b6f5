"""The key under which the runs of a setup are stored."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from fls_bench.schema import LrRule, Sgd, canonical_digest
from fls_bench.training.checks import one_thread, user_code
from fls_bench.training.runs import make_net, seeded
from fls_bench.training_setup import Custom, TrainingSetup

ENGINE_VERSION = 3
"""Part of every setup's digest: raised when the same configuration would give other numbers."""


@torch.no_grad()
def setup_digest(
    setup: TrainingSetup,
    rule: LrRule,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> str:
    """Identify a setup by what it does: the key under which its runs are stored.

    Code can't be hashed reliably, so this hashes behaviour: the initial parameters of one seed, the
    outputs on a few inputs in training and in evaluation mode (of a factory at two multipliers), the
    data, and the recipe. The multiplier, the rate and centering belong to each run, not to the setup.

    Args:
        setup: The setup.
        rule: Its learning-rate rule.
        dtype: Floating type of the training.
        device: Where it is trained: another device rounds otherwise.

    Returns:
        SHA-256 in hex.
    """
    task = setup.task_for(0)
    behaviour = hashlib.sha256()

    def observe(name: str, value: Tensor) -> None:
        behaviour.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        behaviour.update(value.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())

    x = torch.as_tensor(task.x_train[:8], dtype=dtype)
    own = setup.known_optimizer
    # Settings other than the rate are relative to those at the setup's own c.
    refers_to_own_c = bool(
        rule.exponents or own.weight_decay or own.clip_norm or not isinstance(own, Sgd)
    )
    for c in (1.0, 0.5) if setup.route == "factory" else (1.0,):
        net = make_net(setup, 0, c, dtype)
        for name, value in net.state_dict().items():
            observe(name, value)
        for training in (False, True):
            with seeded(0), one_thread():
                observe("output", net.train(training)(x))
    return canonical_digest(
        {
            "engine": ENGINE_VERSION,
            "torch": torch.__version__,
            "behaviour": behaviour.hexdigest(),
            "task": [task.fingerprint, setup.task_for(1).fingerprint],
            "loss": [setup.loss, setup.label_smoothing],
            "error": setup.error,
            "optimizer": _custom(setup.optimizer)
            if isinstance(setup.optimizer, Custom)
            else setup.optimizer.model_dump(exclude={"lr"}),
            "augmentation": setup.augmentation,
            "own_c": setup.output_multiplier if refers_to_own_c else None,
            "batch_size": setup.batch_size,
            "stop": setup.stop.model_dump(exclude={"max_epochs"}),
            "rule": rule.model_dump(),
            "route": setup.route,
            "feature_layer": setup.feature_layer,
            "dtype": str(dtype),
            "device": torch.device(device).type,
            # A key of its own only where there is one: the digests of other setups stay as they were.
            **(
                {}
                if setup.rank_term is None
                else {"rank_term": setup.rank_term.model_dump(mode="json")}
            ),
        }
    )


def _custom(own: Custom) -> list[str]:
    """What can be told of a user's optimizer: its class and its settings but for the rate."""
    with user_code(
        "The optimizer's make failed", "Let it take parameter groups, as torch.optim does."
    ):
        made = own.make([{"params": [torch.zeros(1, requires_grad=True)], "lr": own.lr}])
        told = [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in made.param_groups
        ]
    return [f"{type(made).__module__}.{type(made).__qualname__}", repr(told), own.like]
