"""The table of costs in docs/atlas-plan.md: FLOPs are counted, what a GPU makes of them is assumed.

    python benchmarks/atlas_plan.py

A net costs epochs x images x FLOP of an image, forward and backward, over what a GPU is assumed to do.
Change an assumption here, and the table with it, once stage 0 has measured it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from fls_bench import models

PEAK = 67e12
"""FLOP/s of an H100 (SXM) in float32 outside of its tensor cores, by its data sheet."""

SHARE = {"large": 0.30, "small": 0.03}
"""Of that peak, assumed: nets that fill a GPU alone, and small ones trained as a batch of replicas."""

NUM_C, SEEDS, RETRIES = 10, 6, 1.15
"""A survey's cells, and what is trained again: cut short, calibrated rates, beyond the range."""

HOURS = 10_000

BYTES = {"shard": 218, "store": 4999 + 71}
"""A net, by benchmarks/record_sizes.py (2026-11-26)."""


@dataclass(frozen=True)
class Row:
    """Setups of one kind."""

    stage: int
    what: str
    net: str
    size: int
    n_train: int
    epochs: int
    setups: int
    kind: str = "large"

    @property
    def gpu_hours(self) -> float:
        """Of all its setups."""
        flop = self.epochs * self.n_train * flop_per_image(self.net, self.size)
        seconds = flop / (SHARE[self.kind] * PEAK)
        return RETRIES * self.nets * seconds / 3600

    @property
    def nets(self) -> int:
        """Trained nets."""
        return self.setups * NUM_C * SEEDS


ROWS = (
    Row(0, "pilot: speeds, epochs, spread of seeds", "resnet18", 32, 10_000, 40, 40),
    Row(0, "the CPU atlas again, on a GPU", "cnn", 32, 2_000, 60, 60, "small"),
    Row(1, "small CNNs and ResNets, all data sets", "cnn", 32, 5_000, 60, 2_400, "small"),
    Row(1, "small vision transformers", "vit", 32, 5_000, 80, 1_200, "small"),
    Row(2, "ResNet-18, a quarter of the data", "resnet18", 32, 10_000, 40, 1_700),
    Row(2, "ResNet-18, all data", "resnet18", 32, 45_000, 40, 360),
    Row(2, "VGG-19 with BatchNorm", "vgg19", 32, 10_000, 40, 700),
    Row(3, "ResNet-34", "resnet34", 32, 20_000, 40, 190),
    Row(3, "ResNet-50", "resnet50", 32, 20_000, 40, 150),
    Row(3, "ResNet-18 at 64 x 64", "resnet18", 64, 20_000, 40, 90),
    Row(4, "set aside: data and families that nobody saw", "resnet34", 32, 10_000, 40, 240),
)


@cache
def flop_per_image(net: str, size: int) -> float:
    """Of one step, counted."""
    shape = (3, size, size)
    arguments = models.architecture(net).sized(shape, 10)
    checked = models.check_arguments(net, arguments).model_dump(mode="json")
    with FlopCounterMode(display=False) as counter:
        # On the device without numbers: counted, not computed.
        made = models.build(net, checked, seed=0).to("meta")
        made(torch.empty(1, *shape, device="meta")).sum().backward()
    return float(counter.get_total_flops())


def table() -> list[str]:
    """Rows of the page."""
    lines = [
        "| stage | what | GFLOP an image | images | epochs | setups | nets | GPU-hours |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        lines.append(
            f"| {row.stage} | {row.what} | {flop_per_image(row.net, row.size) / 1e9:.2g} | "
            f"{row.n_train:,} | {row.epochs} | {row.setups:,} | {row.nets:,} | {row.gpu_hours:,.0f} |"
        )
    nets, hours = sum(row.nets for row in ROWS), sum(row.gpu_hours for row in ROWS)
    lines.append(f"| all | | | | | {sum(row.setups for row in ROWS):,} | {nets:,} | {hours:,.0f} |")
    lines.append(f"| reserve | | | | | | | {HOURS - hours:,.0f} |")
    lines.append("")
    sizes = ", ".join(f"{name}s {nets * size / 1e9:.2g} GB" for name, size in BYTES.items())
    lines.append(f"{nets:,} nets: {sizes}.")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
