"""Write state dicts of the same net inside the usual wrappers: ``python write_wrapped.py FOLDER``.

Needs torch 2 or newer; with ``ema-pytorch`` installed it writes that package's file as well. The net
and its formula come from ``write_torch.py``; P stands for the formula's values there.

- ``torch-<version>-data_parallel.pt``, ``-compiled.pt``, ``-compiled-data_parallel.pt``: P itself.
- ``torch-<version>-averaged.pt``: ``AveragedModel`` updated at P and 3 P, so it holds 2 P.
- ``ema_pytorch-<version>.pt``: ``EMA(net, beta=0.9)`` updated at P, then at 3 P.

Only parameters are scaled; buffers are the formula's everywhere.
"""

import argparse
import copy
import importlib.metadata
import pathlib

import torch
from torch import nn
from write_torch import formula_net


def scale_parameters(net: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(factor)


def save(state: dict, path: pathlib.Path) -> None:
    torch.save(state, path)
    print(path.name, path.stat().st_size, *state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    stem = f"torch-{torch.__version__.split('+')[0]}"

    net = formula_net()
    parallel = nn.DataParallel(net)
    save(parallel.state_dict(), folder / f"{stem}-data_parallel.pt")
    save(torch.compile(net).state_dict(), folder / f"{stem}-compiled.pt")
    save(torch.compile(parallel).state_dict(), folder / f"{stem}-compiled-data_parallel.pt")

    averaged = torch.optim.swa_utils.AveragedModel(net)
    averaged.update_parameters(net)
    tripled = copy.deepcopy(net)
    scale_parameters(tripled, 3)
    averaged.update_parameters(tripled)
    for mean, parameter in zip(averaged.module.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mean, 2 * parameter)
    save(averaged.state_dict(), folder / f"{stem}-averaged.pt")

    try:
        from ema_pytorch import EMA
    except ImportError:
        print("no ema-pytorch here")
        return
    online = formula_net()
    ema = EMA(online, beta=0.9, update_after_step=0, update_every=1)
    ema.update()
    scale_parameters(online, 3)
    ema.update()
    version = importlib.metadata.version("ema-pytorch")
    save(ema.state_dict(), folder / f"ema_pytorch-{version}.pt")
    first = next(iter(net.parameters()))
    print("ema / P:", (next(iter(ema.ema_model.parameters())) / first).mean().item())


if __name__ == "__main__":
    main()
