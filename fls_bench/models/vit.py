"""A small vision transformer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fls_bench.models.images import ImageArguments, with_channels
from fls_bench.models.inits import init_he, normal

MAX_TOKENS = 4096
"""Attention holds the square of this many numbers per head and image."""

POSITION_VARIANCE = 0.02**2


class VitArguments(ImageArguments):
    """Arguments of ``vit``."""

    patch: Annotated[int, Field(ge=1, le=256)] = 4
    """Side of the square patches, in pixels; divides height and width."""
    dim: Annotated[int, Field(ge=1, le=4096)] = 48
    """Numbers per token, a multiple of ``heads``."""
    depth: Annotated[int, Field(ge=1, le=64)] = 4
    """Number of blocks, each of attention and a two-layer perceptron."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    mlp_ratio: Annotated[int, Field(ge=1, le=16)] = 2
    """Hidden units of a block's perceptron per number of a token."""
    pooling: Literal["mean", "class"] = "mean"
    """What the read-out sees: the mean over the tokens, or an extra token that is learned."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On the embedded patches and on what each half of a block adds."""

    @property
    def num_patches(self) -> int:
        """Tokens of one image."""
        _, height, width = self.input_shape
        return (height // self.patch) * (width // self.patch)

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        _, height, width = self.input_shape
        if height % self.patch or width % self.patch:
            raise ValueError(f"patch = {self.patch} does not divide images of {height} x {width}")
        if self.num_patches > MAX_TOKENS:
            raise ValueError(
                f"patch = {self.patch} cuts images of {height} x {width} into "
                f"{self.num_patches:,} tokens; the limit is {MAX_TOKENS:,}"
            )
        if self.dim % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
        return self


class Attention(nn.Module):
    """Every token sees all tokens: multi-head self-attention.

    Written as plain products: they batch over stacked parameters, and give the same numbers in
    training and in evaluation mode.

    Args:
        dim: Numbers per token.
        heads: Divides ``dim``.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [n, T, dim] to [n, T, dim]."""
        num, tokens, dim = x.shape
        parts = self.qkv(x).reshape(num, tokens, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        mixed = scores.softmax(-1) @ value
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """Attention, then a two-layer perceptron; each normalises its input and adds to the tokens.

    Args:
        arguments: See ``VitArguments``.
    """

    def __init__(self, arguments: VitArguments) -> None:
        super().__init__()
        dim = arguments.dim
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, arguments.heads)
        self.norm2 = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, arguments.mlp_ratio * dim)
        self.out = nn.Linear(arguments.mlp_ratio * dim, dim)
        self.dropout = nn.Dropout(arguments.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [n, T, dim] to [n, T, dim]."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        hidden = functional.gelu(self.hidden(self.norm2(x)))
        output: Tensor = x + self.dropout(self.out(hidden))
        return output


class Vit(nn.Module):
    """Patches as tokens with learned positions, blocks, a last LayerNorm, a linear read-out.

    Args:
        arguments: See ``VitArguments``.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv 2010.11929), section 3.1.
    """

    def __init__(self, arguments: VitArguments) -> None:
        super().__init__()
        channels, dim = arguments.input_shape[0], arguments.dim
        self.patch = arguments.patch
        self.embed = nn.Linear(channels * arguments.patch**2, dim)
        with_class = arguments.pooling == "class"
        self.class_token = nn.Parameter(torch.empty(1, 1, dim)) if with_class else None
        self.positions = nn.Parameter(torch.empty(1, arguments.num_patches + with_class, dim))
        self.dropout = nn.Dropout(arguments.dropout)
        self.blocks = nn.Sequential(*(Block(arguments) for _ in range(arguments.depth)))
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, arguments.n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, channels, height, width] or [n, height, width] to f(x) [n, n_outputs]."""
        x = with_channels(x)
        num, channels, height, width = x.shape
        rows, columns, side = height // self.patch, width // self.patch, self.patch
        cut = x.reshape(num, channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        tokens = self.embed(cut.reshape(num, rows * columns, -1))
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], 1)
        tokens = self.norm(self.blocks(self.dropout(tokens + self.positions)))
        pooled = tokens.mean(1) if self.class_token is None else tokens[:, 0]
        output: Tensor = self.readout(pooled)
        return output


def init_vit(net: Vit, generator: torch.Generator) -> None:
    """Linear layers normal with variance 1/fan_in, zero biases, small positions and class token."""
    init_he(net, generator, gain=1.0)
    for parameter in (net.positions, net.class_token):
        if parameter is not None:
            normal(parameter, POSITION_VARIANCE, generator)
