"""Train a net on digits with Lightning, and record the run with ``FlsBenchCallback``."""

import argparse

import lightning.pytorch as pl
import torch
from digits_net import DigitsModule, StopAtLoss, draw_task
from torch.utils.data import DataLoader, TensorDataset

import fls_bench
from fls_bench.integrations.lightning import FlsBenchCallback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-train", type=int, default=150)
    parser.add_argument("--output-multiplier", type=float, default=4.0, help="c")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--target-loss", type=float, default=0.1)
    parser.add_argument("--max-epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="model.pt")
    options = parser.parse_args()

    task = draw_task(options.n_train)
    x, y = torch.as_tensor(task.x_train), torch.as_tensor(task.y_train)
    torch.manual_seed(options.seed)
    module = DigitsModule(options.lr, options.output_multiplier)

    stop = StopAtLoss(x, y, options.target_loss)
    record = FlsBenchCallback(
        options.output,
        module="net",  # the net within the LightningModule: what `build` returns
        task=task,
        stop=fls_bench.TargetLoss(options.target_loss, max_epochs=options.max_epochs),
        output_multiplier=options.output_multiplier,  # it is applied outside of `net`
        seed=options.seed,
        builder_hint="digits_net:build",
        force=True,
    )
    trainer = pl.Trainer(
        max_epochs=options.max_epochs,
        callbacks=[stop, record],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=25, shuffle=True))

    with torch.no_grad():
        answers = module.cpu()(torch.as_tensor(task.x_test)).argmax(1).numpy()
    print(f"training loss {stop.loss:.3f} after {trainer.current_epoch} epochs")
    print(f"test error {100 * (answers != task.y_test).mean():.1f} %")


if __name__ == "__main__":
    main()
