"""One number for a state of a net, by which it is known again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor

WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""Parts of names that torch.compile, FSDP and activation checkpointing put in, anywhere."""


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict: names in order, number types, shapes and numbers.

    What torch.compile and data parallelism put into names does not count.

    Two states have the same digest only if every number of every tensor is the same, whatever
    device they lie on; so a net that was built again from its seed can be proved to be the one that
    training started from.

    Args:
        state: Tensors by name; what is no tensor is left out.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    plain_names = {WRAPPERS.sub("", name): value for name, value in state.items()}
    if all(name.startswith("module.") for name in plain_names):
        plain_names = {name.removeprefix("module."): v for name, v in plain_names.items()}
    for name, value in sorted(plain_names.items()):
        if not isinstance(value, Tensor):
            continue
        plain = value.detach().cpu().contiguous()
        kind = str(plain.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{kind}\0{tuple(plain.shape)}\0".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
