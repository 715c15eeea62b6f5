"""What the nets for images share: the shape of their input, and how it follows from the data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from fls_bench.errors import InputError
from fls_bench.schema import Frozen

Side = Annotated[int, Field(ge=1, le=4096)]
Norm = Literal["none", "batch"]


class ImageArguments(Frozen):
    """Arguments that every net for images has."""

    input_shape: tuple[Annotated[int, Field(ge=1, le=1024)], Side, Side]
    """Channels, height and width of one image."""
    n_outputs: Annotated[int, Field(ge=1, le=100_000)]


def sized_image(input_shape: tuple[int, ...], n_outputs: int) -> dict[str, Any]:
    """Arguments that follow from the data.

    Args:
        input_shape: One image: (channels, height, width), or (height, width) for one channel.
        n_outputs: Number of outputs.

    Returns:
        ``input_shape`` and ``n_outputs``.

    Raises:
        InputError: The data are no images.
    """
    if len(input_shape) not in (2, 3):
        raise InputError(
            f"The net takes images, and one point of the data has the shape {list(input_shape)}.",
            "Give images as [n, channels, height, width] or [n, height, width], or choose the net "
            "mlp.",
        )
    shape = (1, *input_shape) if len(input_shape) == 2 else tuple(input_shape)
    return {"input_shape": shape, "n_outputs": n_outputs}


def with_channels(x: Tensor) -> Tensor:
    """Images [n, channels, height, width]; grey ones may come as [n, height, width]."""
    return x.unsqueeze(1) if x.ndim == 3 else x
