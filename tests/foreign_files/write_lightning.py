"""Train a tiny module with Lightning and keep its checkpoint: ``python write_lightning.py FOLDER``.

Runs with ``lightning`` 2 or, where that is missing, ``pytorch_lightning`` 1.9. Writes
``<library>-<version>.ckpt``, as the Trainer saved it, and the data beside it as ``.npz``; prints
what a test may want to measure again. The learning rate follows OneCycleLR. Two variants write
a ``.ckpt`` of their own, named after them, and follow MultiStepLR: ``--variant multistep``, and
``--variant ema``, which averages the weights as well, with the callback ``EMAWeightAveraging``.
"""

import argparse
import json
import pathlib
import random
import shutil

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

try:
    import lightning
    import lightning.pytorch as pl

    STEM = f"lightning-{lightning.__version__}"
except ImportError:
    import pytorch_lightning as pl

    STEM = f"pytorch_lightning-{'.'.join(pl.__version__.split('.')[:2])}"

# Lightning stores absolute paths of the run in its checkpoints.
RUN_FOLDER = pathlib.Path("/tmp/lightning-run")
BATCH_SIZE = 6
NUM_EPOCHS = 2


class Classifier(pl.LightningModule):
    def __init__(self, args: argparse.Namespace, setup: dict) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        self.loss = nn.CrossEntropyLoss(weight=torch.tensor(setup["loss"]["class_weights"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def training_step(self, batch: list, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = self.loss(self(x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self) -> dict:
        opt = torch.optim.Adam(self.parameters(), lr=self.hparams.args.lr)
        if self.hparams.setup["scheduler"]["name"] == "OneCycleLR":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                opt, max_lr=2 * self.hparams.args.lr, total_steps=NUM_EPOCHS * 60 // BATCH_SIZE + 1
            )
        else:
            scheduler = torch.optim.lr_scheduler.MultiStepLR(opt, milestones=[15, 18])
        return {
            "optimizer": opt,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def blobs(num_points: int, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Three Gaussian clouds in 4 dimensions, their points taking turns."""
    centres = [(2.0, 0.0, 0.0, 1.0), (-1.0, 2.0, 0.0, -1.0), (-1.0, -2.0, 1.0, 0.0)]
    y = [k % 3 for k in range(num_points)]
    x = [[rng.gauss(mean, 0.8) for mean in centres[label]] for label in y]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def losses(checkpoint: dict, key: str, prefix: str, data: tuple) -> dict:
    """Measured from the checkpoint's own numbers, in float64 and without the module above."""
    state = {name: tensor.double() for name, tensor in checkpoint[key].items()}
    (x_train, y_train), (x_test, y_test) = data

    def logits(x: torch.Tensor) -> torch.Tensor:
        w0, b0, w2, b2 = (state[f"{prefix}model.{n}"] for n in WEIGHT_NAMES)
        return torch.relu(x.double() @ w0.T + b0) @ w2.T + b2

    weight = state[f"{prefix}loss.weight"]
    cross_entropy = nn.functional.cross_entropy
    return {
        "train loss": cross_entropy(logits(x_train), y_train).item(),
        "train loss, class weights": cross_entropy(logits(x_train), y_train, weight).item(),
        "test loss": cross_entropy(logits(x_test), y_test).item(),
        "train accuracy": (logits(x_train).argmax(1) == y_train).double().mean().item(),
        "test accuracy": (logits(x_test).argmax(1) == y_test).double().mean().item(),
    }


WEIGHT_NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--variant", choices=["multistep", "ema"])
    options = parser.parse_args()

    rng = random.Random(20261125)
    train, test = blobs(60, rng), blobs(40, rng)
    torch.manual_seed(0)
    module = Classifier(
        argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), tags=["blobs", "tiny"]),
        {
            "loss": {"class_weights": [1.0, 2.0, 1.5]},
            "scheduler": {"name": "MultiStepLR" if options.variant else "OneCycleLR"},
        },
    )
    shutil.rmtree(RUN_FOLDER, ignore_errors=True)
    saving = pl.callbacks.ModelCheckpoint(dirpath=RUN_FOLDER, monitor="train_loss")
    callbacks = [saving, pl.callbacks.EarlyStopping(monitor="train_loss")]
    if options.variant == "ema":
        callbacks.append(pl.callbacks.EMAWeightAveraging(decay=0.9))
    trainer = pl.Trainer(
        max_epochs=NUM_EPOCHS,
        accelerator="cpu",
        devices=1,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=RUN_FOLDER,
    )
    trainer.fit(module, DataLoader(TensorDataset(*train), batch_size=BATCH_SIZE))

    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"{STEM}{f'-{options.variant}' if options.variant else ''}.ckpt"
    shutil.copyfile(saving.best_model_path, path)
    shutil.rmtree(RUN_FOLDER)
    if not options.variant:
        np.savez(
            options.folder / f"{STEM}.npz",
            x_train=train[0].numpy(),
            y_train=train[1].numpy(),
            x_test=test[0].numpy(),
            y_test=test[1].numpy(),
        )

    # The file is our own, and holds more than weights.
    kwargs = {} if torch.__version__.startswith("1.") else {"weights_only": False}
    checkpoint = torch.load(path, **kwargs)
    report = {
        "file": path.name,
        "torch": torch.__version__,
        "library": pl.__version__,
        "numpy": np.__version__,
        "bytes": path.stat().st_size,
        "epoch": checkpoint["epoch"],
        "global_step": checkpoint["global_step"],
        "logged train_loss": float(saving.best_model_score),
        "keys": list(checkpoint),
        "state_dict": {n: list(t.shape) for n, t in checkpoint["state_dict"].items()},
        "measured": losses(checkpoint, "state_dict", "", (train, test)),
    }
    for key in ("current_model_state", "averaging_state"):
        if key in checkpoint:
            report[key] = list(checkpoint[key])
    if "current_model_state" in checkpoint:
        report["measured, current_model_state"] = losses(
            checkpoint, "current_model_state", "", (train, test)
        )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
