"""Draw the cases of suites/atlas.toml: which setups the atlas holds, by quotas and one fixed seed.

Run it as ``python benchmarks/draw_atlas.py > suites/atlas.toml``; the same seed gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SEED = 20261126
Table = dict[str, Any]

HEADER = """# atlas: trained nets whose regime is known, from which the regime of a single net is read.
#
# Purpose  `fls-bench calibrate --survey atlas` trains the cases over c and measures every net; the data
#          card is baselines/atlas/README.md. Drawn by benchmarks/draw_atlas.py.
# Cost     At most 8 hours of one CPU core, in shards of at most 20 minutes; no GPU. It needs MNIST,
#          Fashion-MNIST, CIFAR-10 and dSprites.
# Sources  Regimes: Yeom, Ha, Lee, arXiv:2602.00827.
# Smaller c = larger FLS = toward over-aligned.

schema = 1
name = "atlas"
version = 1
title = "The atlas: measurements of nets at known places of c"
cost = {{ seconds = 14400, memory_mb = 3000 }}
sources = ["arXiv:2602.00827"]
seeds = 6

[defaults]
stop = {{ target_loss = 0.1, max_epochs = 300 }}

[atlas]
shard = {shard}
# What no fit and no choice has seen before the last evaluation.
set_aside_tasks = ["cifar10", "waveform", "teacher"]
set_aside_families = ["resnet"]
"""
SHARD = 8
LOG2_C = {"from": -14, "to": 4, "step": 2}
DEEP_LOG2_C = {"from": -16, "to": 2, "step": 2}
"""For ReLU nets of at least four weight layers, whose optimum lies at smaller c."""
OFTEN = ("digits", "fashion_mnist", "mnist", "latent_images", "dsprites", "clusters")
"""Tasks of several classes, where more nets are over-aligned: twice as often as the others."""

FAMILIES = {
    "mlp": 144,
    "mlp-bias": 22,
    "mlp-tanh": 24,
    "mlp-gelu": 24,
    "resmlp": 42,
    "resmlp-layernorm": 30,
    "cnn": 36,
    "cnn-batchnorm": 14,
    "resnet": 8,
    "resnet-batchnorm": 8,
}
CONVOLUTIONAL = ("cnn", "cnn-batchnorm", "resnet", "resnet-batchnorm")


def generated(name: str, sizes: tuple[int, ...], **arguments: Any) -> Callable[..., Table]:
    """A task whose points are drawn, of one of some sizes."""

    def draw(rng: np.random.Generator) -> Table:
        chosen = {key: rng.choice(value).item() if isinstance(value, list) else value
                  for key, value in arguments.items()}  # fmt: skip
        test = {"n_test": 3000, "n_val": 1000}
        return {"name": name, "n_train": int(rng.choice(sizes)), **test, **chosen}

    return draw


def stored(name: str, sizes: tuple[int, ...], **arguments: Any) -> Callable[..., Table]:
    """A task of a data set."""

    def draw(rng: np.random.Generator) -> Table:
        chosen = {key: rng.choice(value).item() if isinstance(value, list) else value
                  for key, value in arguments.items()}  # fmt: skip
        return {"name": name, "n_train": int(rng.choice(sizes)), **chosen}

    return draw


FLAT: dict[str, Callable[..., Table]] = {
    "digits": stored("digits", (60, 100, 150, 250, 400)),
    "breast_cancer": stored("breast_cancer", (30, 60, 120)),
    "wine": stored("wine", (40,)),
    "diabetes": stored("diabetes", (80, 160)),
    "fashion_mnist": stored("fashion_mnist", (100, 200, 400, 2000, 2000, 2000, 2000, 2000)),
    "mnist": stored("mnist", (100, 200, 2000, 2000, 2000, 2000, 2000)),
    "cifar10": stored("cifar10", (100, 200)),
    "dsprites": stored(
        "dsprites",
        (100, 200, 2000, 2000, 2000, 2000, 2000),
        size=16,
        n_test=2000,
        factors="scale,x,y",
    ),
    "photo_patches": stored("photo_patches", (100, 200, 400, 2000, 2000, 2000, 2000, 2000)),
    "latent_images": generated("latent_images", (100, 200), latent_dim=[8, 16, 32]),
    "mixture": generated("mixture", (16, 32, 64, 128), input_dim=[30, 100], sigma=[0.3, 0.5, 0.8]),
    "product_of_signs": generated("product_of_signs", (200, 400), input_dim=[6, 10]),
    "teacher": generated("teacher", (100, 200, 400)),
    "single_index": generated("single_index", (200, 400), input_dim=[6, 10]),
    "clusters": generated("clusters", (100, 200, 400, 2000, 2000, 2000, 2000, 2000)),
    "quantiles": generated("quantiles", (100, 200, 400), input_dim=[5, 10]),
    "hastie": generated("hastie", (200, 400)),
    "waveform": generated("waveform", (100, 300)),
    "xor_mixture": generated("xor_mixture", (100, 200, 400), input_dim=[10, 20]),
    "spirals": generated("spirals", (100, 200, 400)),
    "piecewise": generated("piecewise", (100, 200, 400)),
}
IMAGES: dict[str, Callable[..., Table]] = {
    "digits": stored("digits", (60, 100, 150, 250)),
    "fashion_mnist": stored("fashion_mnist", (60, 120)),
    "mnist": stored("mnist", (60, 100)),
    "cifar10": stored("cifar10", (100,)),
    "dsprites": stored("dsprites", (80, 150), size=16, n_test=1000, factors="x,y"),
    "photo_patches": stored("photo_patches", (60, 100, 200)),
    "latent_images": generated("latent_images", (80, 150), latent_dim=[8, 16]),
}
MERGED = {
    "digits": [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]],
    "mnist": [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]],
    "fashion_mnist": [[0, 2, 4, 6], [1, 3], [5, 7, 9], [8]],
    "cifar10": [[0, 1, 8, 9], [2, 3, 4, 5, 6, 7]],
}
"""Odd and even digits; tops, other clothes, shoes and bags; vehicles and animals."""
NOISY = ("digits", "fashion_mnist", "mnist", "clusters", "quantiles", "xor_mixture", "photo_patches",
         "dsprites", "hastie", "latent_images", "waveform", "cifar10")  # fmt: skip


def task_of(name: str, family: str, rng: np.random.Generator) -> tuple[Table, Table]:
    """A task and what is altered of it."""
    images = family in CONVOLUTIONAL
    task, alter = (IMAGES if images else FLAT)[name](rng), {}
    if name in ("fashion_mnist", "mnist", "cifar10", "latent_images"):
        alter["pool"] = 4 if task["n_train"] >= 2000 or name == "cifar10" else 2
    if images and name == "digits":
        alter["shape"] = [1, 8, 8]
    if name in MERGED and rng.random() < 0.3:
        alter["classes"] = MERGED[name]
    if name in NOISY and not images and task["n_train"] < 2000 and rng.random() < 0.32:
        alter["label_noise"] = float(rng.choice([0.1, 0.2]))
    return task, alter


def mlp_of(family: str, n: int, wide: bool, rng: np.random.Generator) -> Table:
    """Arguments of a fully connected net."""
    if family.startswith("resmlp"):
        norm = "layer" if family.endswith("layernorm") else "none"
        width = int(rng.choice([32, 64, 64]))
        return {
            "name": "resmlp",
            "norm": norm,
            "width": width,
            "blocks": int(rng.choice([1, 2, 3])),
        }
    if wide:
        model = {"depth": int(rng.choice([2, 3, 3])), "width": 512}
    else:
        depths, widths = [2, 3, 3, 4, 4, 5, 6, 8], [32, 64, 64, 128, 128, 256]
        if n >= 1000:
            depths = [2, 3, 4]
        model = {"depth": int(rng.choice(depths)), "width": int(rng.choice(widths))}
        if n > 200:
            model["width"] = min(model["width"], 64 if n >= 2000 else 128)
    if family != "mlp":
        kind = family.removeprefix("mlp-")
        model |= {"bias": True} if kind == "bias" else {"activation": kind}
        if kind != "bias" and rng.random() < 0.3:
            model["bias"] = True
    if rng.random() < 0.3:
        model["init"] = str(rng.choice(["lecun", "torch"]))
    return {"name": "mlp", **model}


def image_net_of(family: str, rng: np.random.Generator) -> Table:
    """Arguments of a convolutional net."""
    norm = "batch" if family.endswith("batchnorm") else "none"
    if family.startswith("resnet"):
        return {"name": "resnet", "norm": norm, "width": 4, "blocks": 1}
    depth, width = int(rng.choice([2, 3, 4, 4, 6])), int(rng.choice([4, 8, 8]))
    return {"name": "cnn", "norm": norm, "depth": depth, "width": width}


def recipe_of(family: str, n: int, wide: bool, rng: np.random.Generator) -> Table:
    """Optimizer, batch size and stop."""
    kind = "sgd"
    if not wide and n <= 200:
        others = ["adam", "momentum", "adamw", "nesterov"]
        kind = str(rng.choice(["sgd", *others], p=[0.68, 0.12, 0.1, 0.05, 0.05]))
    rate = float(rng.choice([0.05, 0.1, 0.1, 0.2]))
    optimizer: Table = {"kind": "sgd", "lr": rate}
    if kind in ("momentum", "nesterov"):
        optimizer |= {"lr": round(rate / 5, 4), "momentum": 0.9}
        optimizer |= {"nesterov": True} if kind == "nesterov" else {}
    elif kind in ("adam", "adamw"):
        optimizer = {"kind": kind, "lr": float(rng.choice([1e-3, 2e-3]))}
    elif rng.random() < 0.1:
        optimizer["weight_decay"] = 1e-4
    sizes = [10, 25, 25, 50] if n <= 200 else [25, 25, 50] if n <= 400 else [50, 100]
    recipe: Table = {"optimizer": optimizer, "batch_size": int(rng.choice(sizes))}
    draw = rng.random()
    if draw < 0.06:
        recipe["stop"] = {"target_loss": 0.03, "max_epochs": 300}
    elif draw < 0.12:
        recipe["stop"] = {"target_loss": 0.2, "max_epochs": 300}
    elif draw < 0.18:
        recipe["stop"] = {"target_accuracy": 0.99, "max_epochs": 300}
    return recipe


def cases(rng: np.random.Generator) -> Iterator[Table]:
    """All cases: the tasks of a family in turn, so that each is as often there as the others."""
    for family, count in FAMILIES.items():
        names = list(IMAGES) if family in CONVOLUTIONAL else [*FLAT, *OFTEN]
        turns = -(-count // len(names))
        order = np.concatenate([rng.permutation(len(names)) for _ in range(turns)])[:count]
        for i, place in enumerate(order):
            name = names[place]
            if family == "resnet" and name == "cifar10":  # set aside for both: one of them will do
                name = "digits"
            task, alter = task_of(name, family, rng)
            if family in ("mlp-tanh", "mlp-gelu", "mlp-bias") or family.startswith("resmlp"):
                task["n_train"] = min(task["n_train"], 400)
            wide = family == "mlp" and task["n_train"] <= 400 and rng.random() < 0.36
            if wide:
                task["n_train"] = min(task["n_train"], 100)
            model = (
                image_net_of(family, rng)
                if family in CONVOLUTIONAL
                else mlp_of(family, task["n_train"], wide, rng)
            )
            if rng.random() < 0.15:
                model["centered"] = True
            case = {"id": f"{family}-{i:03d}-{name.replace('_', '-')}", "family": family}
            case |= {"task": task, "alter": alter, "model": model, "log2_c": LOG2_C}
            if family in ("mlp", "resmlp") and model.get("depth", 4) >= 4:
                case["log2_c"] = DEEP_LOG2_C
            yield {k: v for k, v in case.items() if v} | recipe_of(
                family, task["n_train"], wide, rng
            )


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


def main() -> None:
    """Print the suite."""
    rng = np.random.default_rng(SEED)
    drawn = list(cases(rng))
    print(HEADER.format(shard=SHARD), end="")
    for k in rng.permutation(len(drawn)):
        print("\n[[case]]")
        for key, value in drawn[k].items():
            print(f"{key} = {toml(value)}")


if __name__ == "__main__":
    main()
