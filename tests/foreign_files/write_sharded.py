"""Write safetensors files with the libraries that others use: ``python write_sharded.py FOLDER``.

Needs torch, safetensors and ``huggingface_hub``. The net and its formula come from
``write_torch.py``.

- ``sharded/``: shards and index by ``huggingface_hub.save_torch_state_dict``, float32;
- ``sharded-bf16/``: the same in bfloat16;
- ``tied.safetensors``: ``safetensors.torch.save_model`` of two Linear layers with one weight.
"""

import argparse
import pathlib

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_model
from torch import nn
from write_torch import entries, formula_net


class Tied(nn.Module):
    """The weight is entries(0), the biases are entries(1) and entries(2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(entries(i, parameter.shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder

    for name in ("sharded", "sharded-bf16"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    state = formula_net().state_dict()
    save_torch_state_dict(state, folder / "sharded", max_shard_size=120)
    halved = {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}
    save_torch_state_dict(halved, folder / "sharded-bf16", max_shard_size=70)
    save_model(Tied(), str(folder / "tied.safetensors"))
    for path in sorted([*folder.glob("sharded*/*"), folder / "tied.safetensors"]):
        print(path.relative_to(folder), path.stat().st_size)


if __name__ == "__main__":
    main()
