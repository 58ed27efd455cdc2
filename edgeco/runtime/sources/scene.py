"""An endless textured scene seen by a moving camera, drawn with numpy alone.

The picture is a sum of layers of one periodic texture at sizes that double from layer to layer. Zooming slides every
layer through the sizes; one that becomes too large or too small has faded by then and comes back at the other end, so
that the scene looks alike at any zoom, for any number of frames, and never jumps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

_BITS = 10
_SIDE = 1 << _BITS
"""Side of the texture in texels; a power of two, so that 32-bit coordinates wrap with it."""

_FEATURE = 48
"""Typical size of a blot in the texture, in texels."""

_Image = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(slots=True)
class _Layer:
    size: float
    """Logarithm to base two of a blot's size in pixels."""
    x: float
    y: float
    """Texel at the frame's centre."""


class Scene:
    """A scene and the camera before it.

    Args:
        width, height: of the pictures, in pixels.
        seed: what the scene looks like; equal seeds give equal pictures.
    """

    def __init__(self, width: int, height: int, seed: int) -> None:
        self._rng = np.random.default_rng((seed, 0))
        self._width, self._height = width, height
        self._texture = _paint(np.random.default_rng((seed, 2)))
        self._angle = 0.0
        self._least = math.log2(max(3.0, width / 48))
        self._count = max(3, math.ceil(math.log2(width / 2) - self._least))
        self._layers = [self._layer(self._least + place + 0.5) for place in range(self._count)]

    def _layer(self, size: float) -> _Layer:
        x, y = self._rng.random(2) * _SIDE
        return _Layer(size, float(x), float(y))

    def move(self, across: float, down: float, zoom: float, roll: float) -> None:
        """Move the camera.

        Args:
            across, down: in frame widths, to the camera's right and downwards.
            zoom: growth of the content, as a natural logarithm.
            roll: of the camera, in radians, clockwise.
        """
        sine, cosine = math.sin(self._angle), math.cos(self._angle)
        x, y = across * cosine - down * sine, across * sine + down * cosine
        for place, layer in enumerate(self._layers):
            scale = self._width * _FEATURE / 2.0**layer.size
            layer.x, layer.y = (layer.x + x * scale) % _SIDE, (layer.y + y * scale) % _SIDE
            layer.size += zoom / math.log(2)
            if not self._least <= layer.size < self._least + self._count:
                wrapped = self._least + (layer.size - self._least) % self._count
                self._layers[place] = self._layer(wrapped)
        self._angle = math.remainder(self._angle + roll, 2 * math.pi)

    def render(self) -> _Image:
        """The picture (height, width, 3), uint8."""
        total = np.full((self._height, self._width, 4), 128.0, np.float32)
        part = np.empty_like(total)
        weights = [math.sin(math.pi * (layer.size - self._least) / self._count) ** 2 for layer in self._layers]
        power = math.sqrt(sum(weight**2 for weight in weights))
        total -= np.float32(128.0 * sum(weights) / power)  # texels are stored around 128
        for layer, weight in zip(self._layers, weights, strict=True):
            total += np.multiply(self._sample(layer), np.float32(weight / power), out=part)
        np.clip(np.rint(total, out=total), 0, 255, out=total)
        return total[..., :3].astype(np.uint8)

    def _sample(self, layer: _Layer) -> _Image:
        """The texels behind the pixels, by 32-bit fixed point that wraps around exactly as the texture does."""
        unit = 2.0 ** (32 - _BITS)
        step = _FEATURE / 2.0**layer.size
        sine, cosine = math.sin(self._angle) * step, math.cos(self._angle) * step
        u = np.arange(self._width) - (self._width - 1) / 2
        v = (np.arange(self._height) - (self._height - 1) / 2)[:, None]
        texels = _fixed(u * sine * unit) + _fixed((layer.y + v * cosine) * unit)
        texels >>= 32 - _BITS
        texels <<= _BITS
        columns = _fixed(u * cosine * unit) + _fixed((layer.x - v * sine) * unit)
        columns >>= 32 - _BITS
        texels |= columns
        packed: np.ndarray[Any, np.dtype[np.uint32]] = self._texture.take(texels.view(np.int32))
        return packed.view(np.uint8).reshape(self._height, self._width, 4)


def _fixed(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    rounded: np.ndarray[Any, np.dtype[np.int64]] = np.rint(values).astype(np.int64)
    return rounded.astype(np.uint32)


def _paint(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """A periodic texture of blots with soft edges: three channels around 128 and a spare one, packed into 32 bits."""
    edges = _noise(rng, 1.0)
    np.tanh(np.multiply(edges, 3.0, out=edges), out=edges)
    edges *= 46.0
    edges += 128.5
    texels = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    for channel in range(3):
        colour = _noise(rng, 2.0)
        colour *= 12.0
        colour += edges
        texels[..., channel] = np.clip(colour, 0, 255, out=colour)
    packed: np.ndarray[Any, np.dtype[np.uint32]] = texels.reshape(-1).view(np.uint32)
    return packed


def _noise(rng: np.random.Generator, size: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Smooth periodic noise of unit variance: random values on a grid, blended by raised cosines."""
    cells = max(4, round(_SIDE / (_FEATURE * size)))
    grid = rng.random((cells, cells)) - 0.5
    place = np.arange(_SIDE) * cells / _SIDE
    near = place.astype(np.int64)
    share = 0.5 - 0.5 * np.cos(math.pi * (place - near))
    far = (near + 1) % cells
    blend = np.zeros((_SIDE, cells), np.float32)
    blend[np.arange(_SIDE), near] = 1 - share
    blend[np.arange(_SIDE), far] += share
    noise: np.ndarray[Any, np.dtype[np.float32]] = blend @ grid.astype(np.float32) @ blend.T
    noise -= noise.mean()
    noise /= noise.std()
    return noise
