"""Train a small BERT on sentences with the Trainer, and record the run with ``FlsBenchCallback``."""

import argparse
import tempfile

import torch
from reviews import PAD, build, draw_task
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

import fls_bench
from fls_bench.integrations.transformers import FlsBenchCallback


class StopAtLoss(TrainerCallback):
    """End training once the loss on all training sentences is at most a target."""

    def __init__(self, x: Tensor, y: Tensor, target: float) -> None:
        self.x, self.y, self.target = x, y, target
        self.loss = float("inf")

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        """Look after every epoch."""
        model = kwargs["model"].eval()
        self.loss = float(torch.nn.functional.cross_entropy(answers(model, self.x), self.y))
        model.train()
        control.should_training_stop = self.loss <= self.target


@torch.no_grad()
def answers(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Logits of padded sentences."""
    x = x.to(model.device)
    return model(input_ids=x, attention_mask=(x != PAD).long()).logits.cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-train", type=int, default=200)
    parser.add_argument("--max-epochs", type=int, default=40)
    parser.add_argument("--target-loss", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="model.pt")
    options = parser.parse_args()

    task = draw_task(options.n_train)
    x, y = torch.as_tensor(task.x_train).long(), torch.as_tensor(task.y_train)
    rows = [
        {"input_ids": words, "attention_mask": (words != PAD).long(), "labels": label}
        for words, label in zip(x, y.tolist(), strict=True)
    ]
    set_seed(options.seed)
    model = build().model  # a BertForSequenceClassification
    stop = StopAtLoss(x, y, options.target_loss)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=options.max_epochs,
                per_device_train_batch_size=25,
                learning_rate=options.lr,
                lr_scheduler_type="constant",  # a schedule has a length, and this stops at a loss
                seed=options.seed,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=torch.cuda.is_available(),
            ),
            train_dataset=rows,
            callbacks=[stop],
        )
        FlsBenchCallback(
            options.output,
            task=task,
            stop=fls_bench.TargetLoss(options.target_loss, max_epochs=options.max_epochs),
            seed=options.seed,
            builder_hint="reviews:build",
            force=True,
        ).attach(trainer)
        trainer.train()

    test = answers(model.eval(), torch.as_tensor(task.x_test).long())
    print(f"training loss {stop.loss:.3f} after {round(trainer.state.epoch)} epochs")
    print(f"test error {100 * (test.argmax(1).numpy() != task.y_test).mean():.1f} %")


if __name__ == "__main__":
    main()
