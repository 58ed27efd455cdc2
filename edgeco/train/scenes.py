"""Generated scenes: textured backgrounds, objects in front of them, and the faults of a camera that films them.

Lengths in a scene are in frame widths, so that they hold for any camera; x points right and y down. Frames are drawn
``SCALE`` times larger than the network's frame and averaged down, like the preparation of a camera's frame does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeco.models.camera_motion import CLIP_SHAPE

Image = NDArray[np.float32]
"""Gray picture (H, W), values 0 to 255."""

VISIBLE = 1.5
"""Gray levels per pixel that the background's weakest direction must vary by, for motion to be seen."""

_, _, HEIGHT, WIDTH = CLIP_SHAPE
SCALE = 2
"""Size of a drawn frame relative to the network's frame."""
TEXTURE = 320
"""Side of a background texture in pixels."""
PATCH = 64
"""Side of an object's texture in pixels."""


def _noise(rng: np.random.Generator, size: int) -> Image:
    """Sum of smooth noise in octaves, from soft clouds to grain."""
    image = np.zeros((size, size), np.float32)
    fall = rng.uniform(0.4, 1.0)
    for octave in range(rng.integers(3, 8)):
        grid = rng.standard_normal((min(size, 3 << octave),) * 2).astype(np.float32)
        image += fall**octave * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return image


def _polygon(rng: np.random.Generator, centre: NDArray[np.float64], radius: float) -> NDArray[np.int32]:
    """Random outline: a box, an ellipse or a lobed blob, stretched and turned; integer corner points (N, 2)."""
    corners = (4, 24, 24)[rng.integers(3)]
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    lobes = 0.35 * rng.random() * (rng.random() < 0.5)
    reach = 1 + lobes * np.cos(rng.integers(2, 5) * angle + 6 * rng.random())
    shape = np.stack([np.cos(angle), np.sin(angle) * rng.uniform(0.25, 1)]) * reach * radius
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline: NDArray[np.int32] = np.round((rotation @ shape).T + centre).astype(np.int32)
    return outline


def leaves(rng: np.random.Generator, size: int, count: int | None = None) -> Image:
    """Shapes lying over each other with sizes from a power law, the statistics of natural scenes."""
    image = np.full((size, size), rng.uniform(-1, 1), np.float32)
    for _ in range(count or rng.integers(15, 160)):
        radius = min(0.4 * size, 4 * rng.random() ** -0.7)
        outline = _polygon(rng, rng.uniform(0, size, 2), radius)
        cv2.fillPoly(image, [outline], float(rng.uniform(-1, 1)), lineType=cv2.LINE_8)
    return image


def _stripes(rng: np.random.Generator, size: int) -> Image:
    """Bars, or checks where two sets of bars cross, at any angle and sharpness."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    turn, sharp = rng.uniform(0, np.pi), rng.uniform(1, 8)
    wave = [
        np.sin((x * np.cos(a) + y * np.sin(a)) * 2 * np.pi / rng.uniform(10, 60) + rng.uniform(0, 6))
        for a in (turn, turn + np.pi / 2)
    ]
    checks = wave[0] * wave[1] if rng.random() < 0.6 else wave[0]
    image: Image = np.tanh(sharp * checks).astype(np.float32)
    return image


def _strokes(rng: np.random.Generator, size: int) -> Image:
    """Short strokes in rows like print, or long thin lines like wires, cracks and window frames."""
    image = np.zeros((size, size), np.float32)
    if rng.random() < 0.6:
        pitch = int(rng.integers(7, 24))
        for row in range(pitch, size, pitch):
            for column in range(0, size, max(3, pitch // 2)):
                if rng.random() < 0.8:
                    start = np.array([column, row]) + rng.integers(0, pitch // 2 + 1, 2)
                    end = start + rng.integers(-pitch // 2, pitch // 2 + 1, 2)
                    cv2.line(image, start.tolist(), end.tolist(), float(rng.choice([-1, 1])), 1 + pitch // 12)
        return image
    for _ in range(rng.integers(8, 50)):
        start, end = rng.integers(0, size, 2).tolist(), rng.integers(0, size, 2).tolist()
        cv2.line(image, start, end, float(rng.uniform(-1, 1)), int(rng.integers(1, 6)))
    return image


def _sparse(rng: np.random.Generator, size: int) -> Image:
    """A few marks on an otherwise plain surface: road, wall, floor, sky."""
    return leaves(rng, size, int(rng.integers(2, 14))) + 0.1 * rng.random() * _noise(rng, size)


def texture(rng: np.random.Generator, size: int = TEXTURE) -> Image:
    """A random gray picture (size, size): one or two patterns over a gradient, with random brightness and contrast."""
    patterns = (_noise, leaves, leaves, _stripes, _strokes, _sparse)
    image = patterns[rng.integers(len(patterns))](rng, size)
    if rng.random() < 0.6:
        image = image + rng.uniform(0.1, 0.8) * patterns[rng.integers(len(patterns))](rng, size)
    across = np.linspace(-1, 1, size, dtype=np.float32)
    image = image + rng.normal(0, 0.3) * across + rng.normal(0, 0.3) * across[:, None]
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5))
    contrast = np.exp(rng.uniform(np.log(14), np.log(75)))
    image = (image - image.mean()) / (image.std() + 1e-3) * contrast + rng.uniform(40, 215)
    made: Image = np.clip(image, 0, 255).astype(np.float32)
    return made


def surface(rng: np.random.Generator) -> Image:
    """A nearly plain background of low contrast (TEXTURE, TEXTURE), like an empty road with a few markings."""
    image = _sparse(rng, TEXTURE)
    contrast = np.exp(rng.uniform(np.log(3), np.log(25)))
    scaled = (image - image.mean()) / (image.std() + 1e-3) * contrast + rng.uniform(50, 205)
    made: Image = scaled.astype(np.float32)
    return made


def view(
    state: NDArray[np.float64], aspect: float, span: float, centre: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Matrix (2, 3) from pixels of a drawn frame to the scene's, where one frame width is ``span`` scene pixels."""
    x, y, zoom, roll = state
    size = span * np.exp(-zoom)
    cos, sin = np.cos(roll) * size, np.sin(roll) * size
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    linear = np.array([[cos / width, -sin * aspect / height], [sin / width, cos * aspect / height]])
    offset = np.array(centre) + span * np.array([x, y]) - linear @ [(width - 1) / 2, (height - 1) / 2]
    return np.column_stack([linear, offset])


def draw(scene: NDArray[Any], matrix: NDArray[np.float64], border: int) -> NDArray[Any]:
    """Sample a scene into a drawn frame of ``SCALE`` times the network's size; values keep their type."""
    return cv2.warpAffine(
        scene, matrix, (WIDTH * SCALE, HEIGHT * SCALE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
    )


def visible(frame: Image) -> bool:
    """Whether this network-sized frame shows structure in every direction in at least three of its four quarters.

    Along a single edge motion cannot be seen (the aperture problem), and from one corner of the frame alone a zoom or
    roll looks like a pan. The weakest direction is the smaller eigenvalue of a quarter's structure tensor.
    """
    slopes: Any = np.gradient(frame)
    gy, gx = slopes
    quarters = [
        np.array([[(x * x).mean(), (x * y).mean()], [(x * y).mean(), (y * y).mean()]])
        for x, y in (
            (gx[rows, columns], gy[rows, columns])
            for rows in (slice(HEIGHT // 2), slice(HEIGHT // 2, None))
            for columns in (slice(WIDTH // 2), slice(WIDTH // 2, None))
        )
    ]
    return float(np.sort(np.linalg.eigvalsh(quarters)[:, 0])[1]) >= VISIBLE**2


@dataclass(frozen=True)
class Thing:
    """A textured object in front of the background, with a movement of its own."""

    patch: NDArray[np.float32]
    """Gray and opacity (PATCH, PATCH, 2)."""
    size: tuple[float, float]
    """Width and height in frame widths."""
    path: NDArray[np.float64]
    """Centre x, y in frame widths from the frame's centre, and angle: (frames + 1, 3)."""
    in_scene: bool
    """Whether ``path`` is relative to the scene (a person walking) or to the frame (followed by the camera)."""


def _thing(rng: np.random.Generator, textures: Sequence[Image], area: float, frames: int, aspect: float) -> Thing:
    """A random object that covers ``area`` of the frame: a body, vehicle, hand or arm, moving or swinging."""
    source = textures[int(rng.integers(len(textures)))]
    y, x = rng.integers(0, TEXTURE - PATCH, 2)
    gray = source[y : y + PATCH, x : x + PATCH]
    gray = np.clip((gray - gray.mean()) * rng.uniform(0.3, 1.5) + rng.uniform(20, 235), 0, 255)
    opacity = np.zeros((PATCH, PATCH), np.float32)
    outline = _polygon(rng, np.full(2, PATCH / 2 - 0.5), PATCH * 0.35)
    cv2.fillPoly(opacity, [outline], 1.0)
    stretch = np.exp(rng.uniform(-0.9, 0.9))
    side = np.sqrt(area * aspect / max(0.05, float(opacity.mean())))
    time = np.arange(frames + 1)[:, None] - frames / 2
    steady = rng.random() < 0.3  # a vehicle: straight ahead, and fast
    speed = np.exp(rng.uniform(np.log(0.015 if steady else 0.003), np.log(0.12))) * (steady or rng.random() < 0.85)
    heading = rng.integers(4) * np.pi / 2 if steady or rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
    wave = np.sin(time * rng.uniform(0.1, 1.0) + rng.uniform(0, 6, 3))
    swing = rng.uniform(0.02, 0.25, 3) * (not steady and rng.random() < 0.5) * wave
    place = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5) * aspect, rng.uniform(0, 6)])
    spin = rng.normal(0, 0.06) * (not steady and rng.random() < 0.3)
    path = place + swing + time * np.array([np.cos(heading) * speed, np.sin(heading) * speed, spin])
    patch = np.dstack([gray, opacity]).astype(np.float32)
    return Thing(patch, (side * stretch, side / stretch), path, rng.random() < 0.6)


def things(rng: np.random.Generator, textures: Sequence[Image], frames: int, aspect: float) -> list[Thing]:
    """No object, one, or several, which together cover up to 45 % of the frame."""
    if rng.random() < 0.3:
        return []
    total = rng.uniform(0.02, 0.45)
    shares = rng.dirichlet(np.ones(rng.integers(1, 6)))
    return [_thing(rng, textures, total * share, frames, aspect) for share in shares]


def overlay(frame: Image, thing: Thing, place: NDArray[np.float64], camera: NDArray[np.float64], aspect: float) -> None:
    """Draw an object at its ``place`` (x, y, angle) into a drawn frame seen from the ``camera`` state."""
    x, y, angle = place
    zoom, roll = 0.0, 0.0
    if thing.in_scene:
        cx, cy, zoom, roll = camera
        dx, dy, grow = x - cx, y - cy, np.exp(zoom)
        x, y = (np.cos(roll) * dx + np.sin(roll) * dy) * grow, (-np.sin(roll) * dx + np.cos(roll) * dy) * grow
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    reach = 0.5 * float(np.hypot(*thing.size)) * np.exp(zoom)  # only the pixels around the object are drawn
    left, right = (int(np.clip((x + side * reach + 0.5) * width + side, 0, width)) for side in (-1, 1))
    top, bottom = (int(np.clip(((y + side * reach) / aspect + 0.5) * height + side, 0, height)) for side in (-1, 1))
    if left >= right or top >= bottom:
        return
    turn = roll - angle
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = (PATCH * np.exp(-zoom) / np.array(thing.size))[:, None] * turned * (1 / width, aspect / height)
    corner = np.array([left + 0.5 - (x + 0.5) * width, top + 0.5 - (y / aspect + 0.5) * height])
    matrix = np.column_stack([linear, linear @ corner + PATCH / 2 - 0.5])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(thing.patch, matrix, (right - left, bottom - top), flags=flags)
    under = frame[top:bottom, left:right]
    under += patch[..., 1] * (patch[..., 0] - under)


def shrink(frame: Image) -> Image:
    """Average a drawn frame down to the network's frame (48, 64)."""
    return cast(Image, cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))


def jpeg(frame: Image, quality: int) -> Image:
    """Compression damage: encode and decode."""
    data = cv2.imencode(".jpg", np.clip(frame, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded.astype(np.float32)


def light(rng: np.random.Generator, clip: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gamma, vignette, exposure drift, flicker and slowly moving soft shadow on a clip (T, H, W)."""
    frames = len(clip)
    lit: NDArray[Any] = clip
    if rng.random() < 0.5:
        lit = 255 * (np.clip(clip, 0, 255) / 255) ** np.exp(rng.normal(0, 0.25))
    gain = np.ones(frames)
    if rng.random() < 0.4:
        gain = gain + np.cumsum(rng.normal(rng.normal(0, 0.008), 0.005, frames))
    if rng.random() < 0.3:
        gain = gain + rng.normal(0, 0.015, frames)
    lit = lit * gain[:, None, None]
    if rng.random() < 0.25:
        field = cv2.resize(_noise(rng, 32), (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_CUBIC)
        field = cv2.GaussianBlur(field, (0, 0), 12)
        field = 1 + rng.uniform(0.02, 0.2) * field / max(1e-3, float(np.abs(field).max()))
        steps = np.outer(np.arange(frames), rng.normal(0, 1.0, 2)) + np.array([HEIGHT // 2, WIDTH // 2])
        steps = np.clip(steps, 0, (HEIGHT, WIDTH))
        lit = lit * np.stack([field[y : y + HEIGHT, x : x + WIDTH] for y, x in steps.astype(int)])
    return lit.astype(np.float32)


def sensor(rng: np.random.Generator, clip: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Noise, blocks a video codec left unchanged, dropped frames and static borders; clip (T, H, W) -> uint8."""
    frames = len(clip)
    clip = clip + rng.standard_normal(clip.shape, np.float32) * (rng.uniform(0, 2) * (rng.random() < 0.7))
    if rng.random() < 0.08:
        limit = rng.uniform(0.4, 1.2)
        for i in range(1, frames):
            change = _blocks(np.abs(clip[i] - clip[i - 1]))
            clip[i] = np.where(change < limit, clip[i - 1], clip[i])
    if rng.random() < 0.05:
        clip = clip[np.maximum(0, np.arange(frames) - (rng.random(frames) < 0.15))]
    if rng.random() < 0.08:
        bar, value = int(rng.integers(1, 9)), rng.uniform(0, 60)
        if rng.random() < 0.5:
            clip[:, :bar] = clip[:, -bar:] = value
        else:
            clip[:, :, :bar] = clip[:, :, -bar:] = value
    return np.clip(np.round(clip), 0, 255).astype(np.uint8)


def _blocks(change: Image) -> Image:
    """Mean over blocks of 8 x 8, spread back over each block."""
    blocks = cv2.resize(change, (WIDTH // 8, HEIGHT // 8), interpolation=cv2.INTER_AREA)
    return cast(Image, cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST))
