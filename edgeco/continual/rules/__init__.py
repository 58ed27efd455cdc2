"""One file per operator family; importing this package registers every rule."""

from edgeco.continual.rules import (
    attention,
    axiswise,
    convolution,
    creation,
    framewise,
    normalisation,
    pointwise,
    pooling,
    positions,
    products,
    recurrent,
    reduction,
    resizing,
    shape,
    slicing,
    transposed,
)

__all__ = [
    "attention",
    "axiswise",
    "convolution",
    "creation",
    "framewise",
    "normalisation",
    "pointwise",
    "pooling",
    "positions",
    "products",
    "recurrent",
    "reduction",
    "resizing",
    "shape",
    "slicing",
    "transposed",
]
