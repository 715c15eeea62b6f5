"""Train a CNN on Fashion-MNIST in a plain loop, with ``fls_bench.record`` around it."""

import argparse
import sys

import torch
from fashion_cnn import build, draw_task

import fls_bench
from fls_bench.errors import FlsBenchError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-train", type=int, default=300, help="57,000 is all of it")
    parser.add_argument("--max-epochs", type=int, default=200)
    parser.add_argument("--target-loss", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="model.pt")
    options = parser.parse_args()

    task = draw_task(options.n_train)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    torch.manual_seed(options.seed)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    loss_of = torch.nn.functional.cross_entropy

    with fls_bench.record(
        model,
        options.output,
        task=task,
        optimizer=optimizer,
        batch_size=options.batch_size,
        stop=fls_bench.TargetLoss(options.target_loss, max_epochs=options.max_epochs),
        loss="cross_entropy",
        seed=options.seed,
        builder_hint="fashion_cnn:build",
        force=True,
    ) as run:
        for _ in range(options.max_epochs):
            for batch in torch.randperm(len(y)).split(options.batch_size):
                optimizer.zero_grad()
                loss_of(model(x[batch]), y[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(loss_of(model(x), y))
            run.log(loss)
            if loss <= options.target_loss:
                break

    with torch.no_grad():
        answers = model(torch.as_tensor(task.x_test)).argmax(1).numpy()
    print(f"training loss {loss:.3f} after {run.epochs} epochs, {run.steps} steps")
    print(f"test error {100 * (answers != task.y_test).mean():.1f} %")
    print(f"written: {options.output}")


if __name__ == "__main__":
    try:
        main()
    except FlsBenchError as error:  # such as data that are not there
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
