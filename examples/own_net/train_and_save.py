"""Your own training loop, and ``record`` around it, which makes the net diagnosable."""

import torch
from my_pkg.my_setup import draw_task, make_net

import fls_bench

LR, BATCH_SIZE, TARGET_LOSS, MAX_EPOCHS, SEED = 0.15, 25, 0.3, 100, 0


def main() -> None:
    torch.manual_seed(SEED)
    task = draw_task(SEED)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    with fls_bench.record(
        net,
        "model.pt",
        task=task,
        optimizer=optimizer,
        batch_size=BATCH_SIZE,
        stop=fls_bench.TargetLoss(target_loss=TARGET_LOSS, max_epochs=MAX_EPOCHS),
        loss="cross_entropy",
        seed=SEED,
        builder_hint="my_pkg.my_setup:make_net",
        force=True,
    ) as run:
        for _ in range(MAX_EPOCHS):
            for batch in torch.randperm(len(y)).split(BATCH_SIZE):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(torch.nn.functional.cross_entropy(net(x), y))
            run.log(loss)
            if loss <= TARGET_LOSS:
                break

    print(f"training loss {loss:.3f} after {run.epochs} epochs, {run.steps} steps")
    print("written: model.pt")


if __name__ == "__main__":
    main()
