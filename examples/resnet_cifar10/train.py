"""Train a residual net on CIFAR-10 with SGD and momentum, and record it for a diagnosis."""

import argparse
import sys

import torch
from small_resnet import build, draw_task, resnet20

import fls_bench
from fls_bench.errors import FlsBenchError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="ResNet-20, 45,000 whole images: use a GPU"
    )
    parser.add_argument("--n-train", type=int, help="default: 300, 16 x 16; 45,000 with --full")
    parser.add_argument("--max-epochs", type=int, default=100)
    parser.add_argument("--target-loss", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, help="default: 25; 128 with --full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="model.pt")
    options = parser.parse_args()
    make, pool = (resnet20, 1) if options.full else (build, 2)
    n_train = options.n_train or (45_000 if options.full else 300)
    batch_size = options.batch_size or (128 if options.full else 25)

    task = draw_task(n_train, pool=pool)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, y = torch.as_tensor(task.x_train).to(device), torch.as_tensor(task.y_train).to(device)
    torch.manual_seed(options.seed)
    model = make().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)
    loss_of = torch.nn.functional.cross_entropy

    with fls_bench.record(
        model,
        options.output,
        task=task,
        optimizer=optimizer,
        batch_size=batch_size,
        stop=fls_bench.TargetLoss(options.target_loss, max_epochs=options.max_epochs),
        loss="cross_entropy",
        seed=options.seed,
        builder_hint=f"small_resnet:{make.__name__}",
        force=True,
    ) as run:
        for _ in range(options.max_epochs):
            model.train()
            for batch in torch.randperm(len(y), device=device).split(batch_size):
                optimizer.zero_grad()
                loss_of(model(x[batch]), y[batch]).backward()
                optimizer.step()
            loss = evaluated(model, x, y)[0]
            run.log(loss)
            if loss <= options.target_loss:
                break

    x_test, y_test = (
        torch.as_tensor(task.x_test).to(device),
        torch.as_tensor(task.y_test).to(device),
    )
    print(f"training loss {loss:.3f} after {run.epochs} epochs, {run.steps} steps")
    print(f"test error {100 * evaluated(model, x_test, y_test)[1]:.1f} %")
    print(f"written: {options.output}")


@torch.no_grad()
def evaluated(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Mean loss and error over all points, as the net answers when it is used."""
    model.eval()
    logits = torch.cat([model(part) for part in x.split(500)])
    loss = torch.nn.functional.cross_entropy(logits, y)
    return float(loss), float((logits.argmax(1) != y).double().mean())


if __name__ == "__main__":
    try:
        main()
    except FlsBenchError as error:  # such as data that are not there
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
