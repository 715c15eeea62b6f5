"""A text classifier of transformers, built from scratch, and its data: sentences made here.

Nothing is downloaded: no weights, no tokenizer, no data.
"""

import numpy as np
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import fls_bench
from fls_bench.integrations.transformers import Logits

THINGS = [
    "soup", "bread", "service", "room", "view", "music",
    "staff", "price", "coffee", "bed", "garden", "wine",
]  # fmt: skip
PRAISE = [
    "good", "fresh", "warm", "lovely", "quiet", "fair",
    "kind", "bright", "clean", "tasty", "calm", "generous",
]  # fmt: skip
BLAME = [
    "bad", "stale", "cold", "awful", "noisy", "unfair",
    "rude", "dark", "dirty", "bland", "slow", "stingy",
]  # fmt: skip
OPENINGS = ["", "honestly", "in the end", "we found that", "last night"]
DEGREES = ["", "very", "rather", "quite"]
LENGTH = 20
PAD, UNKNOWN = 0, 1
WORDS = sorted(
    {word for part in (THINGS, PRAISE, BLAME, OPENINGS, DEGREES) for words in part
     for word in words.split()} | {"the", "was"}
)  # fmt: skip
NUMBERS = {word: k for k, word in enumerate(WORDS, start=2)}


def sentence(rng: np.random.Generator) -> tuple[str, int]:
    """A review of three remarks, and whether most of them praise."""
    praise = rng.integers(2, size=3)
    remarks = [
        f"the {rng.choice(THINGS)} was {rng.choice(DEGREES)} {rng.choice(PRAISE if one else BLAME)}"
        for one in praise
    ]
    return f"{rng.choice(OPENINGS)} {', '.join(remarks)}", int(praise.sum() > 1)


def tokens(text: str) -> list[int]:
    """Numbers of the words of a text, padded to one length."""
    numbers = [NUMBERS.get(word, UNKNOWN) for word in text.replace(",", "").split()][:LENGTH]
    return numbers + [PAD] * (LENGTH - len(numbers))


def draw_task(n_train: int, seed: int = 0) -> fls_bench.Task:
    """Sentences as numbers of words; the test part is the same for every seed."""
    return fls_bench.make_task(
        "reviews", train=part(n_train, 0, seed), validation=part(500, 1, seed), test=part(1000, 2)
    )


def part(n: int, *seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Padded sentences [n, LENGTH] and their labels [n]."""
    rng = np.random.default_rng(seeds)
    texts, labels = zip(*(sentence(rng) for _ in range(n)), strict=True)
    return np.array([tokens(text) for text in texts]), np.array(labels)


def build() -> nn.Module:
    """The net as `fls-bench diagnose --model reviews:build` sees it: word numbers -> logits."""
    config = BertConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
        pad_token_id=PAD,
    )
    return Logits(BertForSequenceClassification(config))
