"""Write ``torch-<version>.pt`` as a plain training script does: ``python write_torch.py FOLDER``.

Needs torch (1.13 or newer) and the standard library. ``--legacy`` also writes
``torch-<version>-legacy.pt``: the bare state dict in float16, as torch saved before its zip format.

Every value follows a formula, so that a test can compute it again. Parameter number i (in the
order of ``net.parameters()``), flattened entry k: sin(1 + i + 0.37 k). Running mean: i = 6 in the
same formula. Running variance: 1.5 + the formula with i = 7. Batches tracked: 11.
"""

import argparse
import math
import pathlib

import torch
from torch import nn

NUM_TRACKED = 11


def entries(i: int, shape: torch.Size, base: float = 0.0) -> torch.Tensor:
    values = [base + math.sin(1 + i + 0.37 * k) for k in range(shape.numel())]
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def formula_net() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(entries(i, parameter.shape))
        net[1].running_mean.copy_(entries(6, net[1].running_mean.shape))
        net[1].running_var.copy_(entries(7, net[1].running_var.shape, base=1.5))
        net[1].num_batches_tracked.fill_(NUM_TRACKED)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--legacy", action="store_true", help="also write the old format")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    version = torch.__version__.split("+")[0]

    net = formula_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    # One step with learning rate 0: the optimizer has a state, the parameters stay as they are.
    opt = torch.optim.Adam(net.parameters(), lr=0.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(opt, milestones=[2, 4])
    inputs = entries(8, torch.Size([6, 4]))
    loss = nn.functional.cross_entropy(net(inputs), torch.tensor([0, 1, 2, 0, 1, 2]))
    loss.backward()
    opt.step()
    scheduler.step()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} has changed"
    assert len(opt.state_dict()["state"]) == 6

    checkpoint = {
        "epoch": 3,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": opt.state_dict(),
        "scheduler_state_dict": scheduler.state_dict(),
        "loss": loss.item(),
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")),
    }
    path = options.folder / f"torch-{version}.pt"
    torch.save(checkpoint, path)
    print(path, path.stat().st_size)
    if options.legacy:
        path = options.folder / f"torch-{version}-legacy.pt"
        torch.save(net.half().state_dict(), path, _use_new_zipfile_serialization=False)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
