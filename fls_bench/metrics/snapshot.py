"""What is measured: a trained net with its data and, where known, its initial state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class TangentKernel:
    """Empirical tangent kernel of one state of a net on a fixed part of its points.

    An entry is the inner product of the gradients of f at two points with respect to all trained
    parameters, mean over the K' outputs (the trace of the K' x K' block over K'). c is left out.

    Attributes:
        train_points: ``[m]`` indices into the training points.
        train: ``[m, m]`` float64 among these.
        test_points: ``[t]`` indices into the test points.
        test: ``[t, m]`` from test to training points; None at init, where nothing needs it, and where
            test points were left out.
    """

    train_points: Tensor
    train: Tensor
    test_points: Tensor
    test: Tensor | None


@dataclass(frozen=True, eq=False)
class NetState:
    """One state of a net, at init or at the end of training.

    Attributes:
        weights: Layer name -> ``[out, in]``, forward order; convolution kernels as ``[out, -1]``.
        train_features: Layer name -> ``[n_train, width]``: hidden features after the nonlinearity,
            forward order, named like the weight layer that produced them.
        test_features: The same for the test split.
        val_features: The same for the validation split.
        train_outputs: ``[n_train, K']`` raw f(x), without c and without centring; K' = 1 for nets
            with one logit.
        val_outputs: The same for the validation split.
        test_outputs: The same for the test split.
        kernel: Tangent kernel of this state, or None where it was not computed.
        convolutions: Which of the weight layers are convolutions.
    """

    weights: Mapping[str, Tensor]
    train_features: Mapping[str, Tensor]
    test_features: Mapping[str, Tensor]
    val_features: Mapping[str, Tensor]
    train_outputs: Tensor
    val_outputs: Tensor
    test_outputs: Tensor
    kernel: TangentKernel | None = None
    convolutions: frozenset[str] = frozenset()

    def features(self, split: SplitName) -> Mapping[str, Tensor]:
        """Hidden features of one split."""
        return {
            "train": self.train_features,
            "validation": self.val_features,
            "test": self.test_features,
        }[split]

    def outputs(self, split: SplitName) -> Tensor:
        """Raw outputs f(x) of one split."""
        return {
            "train": self.train_outputs,
            "validation": self.val_outputs,
            "test": self.test_outputs,
        }[split]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A trained net with its data and, where known, its initial state. Never stored.

    Attributes:
        final: The net after training.
        init: The net before training, or None.
        c: Effective output multiplier applied to f.
        centered: The logits are c (f - f_0) if true, else c f.
        n_classes: K.
        x_train: ``[n_train, d]`` flattened float inputs; x_val and x_test alike.
        y_train: ``[n_train]`` int labels, 0 to K - 1; y_val and y_test alike.
        last_layer: Layer whose features count as the last; None: the last hidden one.
        no_kernel: One sentence that says why the states hold no tangent kernel.
    """

    final: NetState
    init: NetState | None
    c: float
    centered: bool
    n_classes: int
    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    last_layer: str | None = None
    no_kernel: str = "The tangent kernel of this net was not computed."

    @property
    def layers(self) -> tuple[str, ...]:
        """Hidden layers with features, forward order, up to the one that counts as the last."""
        names = tuple(self.final.train_features)
        return names[: names.index(self.last_layer) + 1] if self.last_layer in names else names

    def inputs(self, split: SplitName) -> Tensor:
        """Flattened inputs of one split."""
        return {"train": self.x_train, "validation": self.x_val, "test": self.x_test}[split]

    def labels(self, split: SplitName) -> Tensor:
        """Labels of one split."""
        return {"train": self.y_train, "validation": self.y_val, "test": self.y_test}[split]

    def logits(self, split: SplitName) -> Tensor:
        """Logits of one split, ``[n, K']``: c f, or c (f - f_0) if centered.

        Raises:
            ValueError: The net is centered and the initial outputs are missing.
        """
        f = self.final.outputs(split)
        if self.centered:
            if self.init is None:
                raise ValueError("a centered net's logits need its initial outputs")
            f = f - self.init.outputs(split)
        return self.c * f
