"""Your own training loop, and one call at its end that makes the net diagnosable."""

import torch
from my_pkg.my_setup import draw_task, make_net

import fls_bench

LR, BATCH_SIZE, TARGET_LOSS, MAX_EPOCHS, SEED = 0.15, 25, 0.3, 100, 0


def main() -> None:
    torch.manual_seed(SEED)
    task = draw_task(SEED)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    net = make_net()
    initial_state = {name: value.clone() for name, value in net.state_dict().items()}

    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    for epoch in range(1, MAX_EPOCHS + 1):
        for batch in torch.randperm(len(y)).split(BATCH_SIZE):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(torch.nn.functional.cross_entropy(net(x), y))
        if loss <= TARGET_LOSS:
            print(f"training loss {loss:.3f} after {epoch} epochs")
            break

    path = fls_bench.save_bundle(
        "model.pt",
        net,
        initial_state=initial_state,
        task=task,
        recipe=fls_bench.Recipe(
            optimizer=fls_bench.Sgd(lr=LR),
            batch_size=BATCH_SIZE,
            stop=fls_bench.TargetLoss(target_loss=TARGET_LOSS, max_epochs=MAX_EPOCHS),
            seed=SEED,
        ),
        builder_hint="my_pkg.my_setup:make_net",
        force=True,
    )
    print(f"written: {path}")


if __name__ == "__main__":
    main()
