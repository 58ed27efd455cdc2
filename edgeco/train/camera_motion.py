"""Camera motion drawn by a procedure: generated clips with known labels, and the training script of the demo network.

Speed is the root mean square displacement of the picture over the frame, in frame widths per frame. One number so
measures all motions alike: a pan moves every point by it, a zoom or roll moves the corners about twice as far.

* ``still``: the camera drifts by at most ``STILL_SPEED`` = 0.0008 widths per frame (half a pixel per frame at 640).
* moving: ``SLOWEST`` = 0.005 to ``FASTEST_PAN`` = 0.06 widths per frame for pan and tilt, to ``FASTEST_TURN`` = 0.02
  for zoom and roll (on a 4:3 frame 5.5 % of zoom or 3.2 degrees of roll per frame).
* between ``STILL_SPEED`` and ``SLOWEST`` lies a gap without labels, where either answer is right.

A label stands for the dominant motion: each of the three other motions goes along at up to a quarter of its speed, and
the hand's tremor comes on top. Where the background shows no structure in two directions, motion cannot be seen by
anyone, so no clip is labelled as moving there.

The shipped weights were made in two runs, the first with a loss that favours rest::

    python -m edgeco.train.camera_motion --out first.safetensors --seed 1 --steps 4500 --rest 2
    python -m edgeco.train.camera_motion --out camera-motion.safetensors --initial first.safetensors \
        --seed 2 --steps 2400 --peak 1e-3
"""

import argparse
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeco.command import stop_on_signal
from edgeco.factory import load_weights
from edgeco.files import check_target
from edgeco.models.camera_motion import CLIP_SHAPE, LABELS, CameraMotion, normalise
from edgeco.train.checkpoint import checkpoint_beside
from edgeco.train.loop import Options, Outcome, train
from edgeco.train.objective import supervised
from edgeco.train.progress import progress
from edgeco.train.scenes import (
    SCALE,
    TEXTURE,
    Image,
    draw,
    jpeg,
    leaves,
    light,
    overlay,
    sensor,
    shrink,
    surface,
    texture,
    things,
    view,
    visible,
)
from edgeco.train.schedule import Schedule
from edgeco.train.script import one_sentence, write_trained

STILL_SPEED = 0.0008
SLOWEST = 0.005
FASTEST_PAN = 0.06
FASTEST_TURN = 0.02
MIXING = 0.25
"""Speed of each motion that goes along with the dominant one, relative to it, at most."""
_, FRAMES, HEIGHT, WIDTH = CLIP_SHAPE
DRAWN = 10
"""Frames of a training clip. The network averages over time, so a longer clip in use only averages more."""


def camera_path(rng: np.random.Generator, label: int, frames: int, aspect: float) -> NDArray[np.float64]:
    """Camera states (frames + 1, 4): x and y in frame widths, logarithm of zoom, roll in radians; ``aspect`` is H / W.

    The path is centred, so that a zoom passes through scale one half-way.
    """
    spread = np.sqrt((1 + aspect**2) / 12)  # root mean square distance of a frame's points from its centre, in widths
    unit = np.array([1, 1, 1 / spread, 1 / spread])  # states' change per frame at speed one
    if label == 0:
        rates = rng.normal(size=4)
        rates *= rng.uniform(0, STILL_SPEED) / np.linalg.norm(rates)
        speed = STILL_SPEED
    else:
        fastest = FASTEST_PAN if label <= 4 else FASTEST_TURN
        speed = np.exp(rng.uniform(np.log(SLOWEST), np.log(fastest)))
        rates = rng.uniform(-MIXING, MIXING, 4) * speed * (rng.random(4) < 0.6)
        axis, sign = ((0, -1), (0, 1), (1, -1), (1, 1), (2, 1), (2, -1), (3, rng.choice([-1, 1])))[label - 1]
        rates[axis] = sign * speed
    time = np.arange(frames + 1)
    swing = rng.uniform(0, 0.4) * np.sin(time * rng.uniform(0.1, 0.6) + rng.uniform(0, 6)) + rng.normal(0, 0.03) * time
    pace = np.clip(1 + swing, 0.7, 1.4)  # accelerating and slowing down
    if label:
        pace = np.clip(pace, SLOWEST / speed, fastest / speed)
    moves = (rates * unit)[None] * pace[:, None]
    tremor = np.zeros((frames + 1, 4))
    amount = rng.uniform(0, 0.0012) + (rng.uniform(0, 0.1) * speed if label else 0)
    for i in range(1, frames + 1):
        tremor[i] = 0.6 * tremor[i - 1] + rng.normal(0, amount, 4) * (1, 1, 0.3, 0.5)
    return _integrate(moves) + tremor


def _integrate(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum moves given in the camera's own turned and zoomed frame into states in the scene's frame, centred."""
    states = np.cumsum(moves, axis=0)
    states[:, 2:] -= states[len(states) // 2, 2:]
    cos, sin, size = np.cos(states[:, 3]), np.sin(states[:, 3]), np.exp(-states[:, 2])
    x, y = moves[:, 0], moves[:, 1]
    states[:, 0], states[:, 1] = np.cumsum((cos * x - sin * y) * size), np.cumsum((sin * x + cos * y) * size)
    states[:, :2] -= states[len(states) // 2, :2]
    return states


def _stage(
    rng: np.random.Generator, textures: Sequence[Image], label: int, aspect: float
) -> tuple[Image, float, NDArray[np.float64]]:
    """Background, its pixels per frame width and view centre, chosen so that labelled motion can be seen."""
    if label == 0 and rng.random() < 0.35:  # objects moving over a plain surface do not make the camera move
        return surface(rng), rng.uniform(90, 200), rng.uniform(0, TEXTURE, 2)
    for _ in range(12):
        scene = textures[int(rng.integers(len(textures)))]
        span, centre = rng.uniform(90, 200), rng.uniform(0, TEXTURE, 2)
        if visible(shrink(draw(scene, view(np.zeros(4), aspect, span, centre), cv2.BORDER_WRAP))):
            return scene, span, centre
    return leaves(rng, TEXTURE, 200) * 90 + 128, 150.0, np.array([TEXTURE / 2] * 2)


def clip(rng: np.random.Generator, textures: Sequence[Image], label: int, frames: int = DRAWN) -> NDArray[np.uint8]:
    """A generated clip (frames, 48, 64) in which the camera moves as ``label`` says all the time."""
    aspect = float(rng.choice([9 / 16, 3 / 4, 3 / 4, 1, 4 / 3]))
    scene, span, centre = _stage(rng, textures, label, aspect)
    camera = camera_path(rng, label, frames, aspect)
    objects = things(rng, textures, frames, aspect)
    shutter = rng.uniform(0.2, 0.9) if rng.random() < 0.3 else 0.0
    moments = np.linspace(0, shutter, 3) if shutter else np.zeros(1)
    blur = rng.uniform(0.4, 1.8) if rng.random() < 0.3 else 0.0
    quality = int(rng.integers(20, 70)) if rng.random() < 0.2 else 0
    drawn = np.empty((frames, HEIGHT, WIDTH), np.float32)
    for i in range(frames):
        frame = np.zeros((HEIGHT * SCALE, WIDTH * SCALE), np.float32)
        for part in moments:  # motion blur: the mean over the time the shutter is open
            state = camera[i] + part * (camera[i + 1] - camera[i])
            seen = draw(scene, view(state, aspect, span, centre), cv2.BORDER_WRAP)
            for thing in objects:
                place = thing.path[i] + part * (thing.path[i + 1] - thing.path[i])
                overlay(seen, thing, place, state, aspect)
            frame += seen / len(moments)
        if blur:
            frame = cast(Image, cv2.GaussianBlur(frame, (0, 0), blur))
        drawn[i] = shrink(jpeg(frame, quality) if quality else frame)
    return sensor(rng, light(rng, drawn))


def mirrored(rng: np.random.Generator, clip: NDArray[np.uint8], label: int) -> tuple[NDArray[np.uint8], int]:
    """The clip (T, H, W) flipped left-right, top-bottom and in time, or not, and the label that then fits."""
    flips = rng.integers(2, size=3)
    for axis, swapped in ((2, (1, 2)), (1, (3, 4)), (0, (1, 2, 3, 4, 5, 6))):
        if flips[axis]:
            clip = np.flip(clip, axis)
            label = (label - 1 ^ 1) + 1 if label in swapped else label
    return clip, label


@lru_cache(maxsize=2)
def _textures(seed: int, block: int) -> list[Image]:
    """Textures shared by the clips of eight groups."""
    rng = np.random.default_rng((seed, 1, block))
    return [texture(rng) for _ in range(16)]


@lru_cache(maxsize=16)
def _group(seed: int, group: int) -> list[list[NDArray[np.uint8]]]:
    """Two clips of each class; depends on seed and group number only."""
    rng = np.random.default_rng((seed, 0, group))
    pool = _textures(seed, group // 8)
    return [[clip(rng, pool, label) for _ in range(2)] for label in range(len(LABELS))]


def batch(step: int, seed: int) -> tuple[Tensor, Tensor]:
    """Normalised clips (64, 1, T, 48, 64) and labels (64,), a function of seed and step only.

    Drawing a clip costs more than training on it. Every other step therefore draws one new group, and each step takes a
    clip of every class from each of the last eight, mirrored at random: a clip is seen about eight times, seldom alike.
    """
    rng = np.random.default_rng((seed, 2, step))
    pairs = [
        mirrored(rng, clips[rng.integers(2)], label)
        for group in range(step // 2, step // 2 + 8)
        for label, clips in enumerate(_group(seed, group))
    ]
    clips, labels = zip(*pairs, strict=True)
    return normalise(torch.from_numpy(np.stack(clips))), torch.tensor(labels)


def space_time_filters(filters: int, frames: int, size: int) -> Tensor:
    """Gabor filters drifting right, down, left and up: (filters, 1, frames, size, size), zero mean in every frame.

    With four phases and rectification they measure motion energy. From random weights the same training needs
    thousands of steps to find such filters at all; from these it begins with motion and refines them.
    """
    t, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (frames, size, size)), indexing="ij")
    window = np.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2) - t**2 / (2 * (frames / 3) ** 2))
    made = []
    for i in range(filters):
        length, drift = ((5.0, 1.2), (8.0, 0.6))[i // 16 % 2]  # wavelength in pixels, phase per frame in radians
        turn, phase = i // 4 % 4 * np.pi / 2, i % 4 * np.pi / 2
        along = x * np.cos(turn) + y * np.sin(turn)
        made.append(window * np.cos(2 * np.pi / length * along - drift * t + phase))
        made[-1] -= made[-1].mean(axis=(1, 2), keepdims=True)
        made[-1] /= np.linalg.norm(made[-1])
    return torch.tensor(np.stack(made)[:, None], dtype=torch.float32)


def fresh(seed: int) -> CameraMotion:
    """An untrained network: random weights, and drifting filters in the first layer."""
    torch.manual_seed(seed)
    net = CameraMotion()
    first = net.features[0]
    assert isinstance(first, nn.Conv3d)
    weight = first.weight
    with torch.no_grad():
        made = space_time_filters(weight.shape[0], *weight.shape[2:4])
        weight.copy_(made + 0.02 * torch.randn_like(weight))
    return net


# -------------------------------------------------------------------------------------------------- evaluation


def network_frame(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BGR frame of any size -> gray frame (48, 64) as the network is used with: area averaging, stretched, no crop."""
    small = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return cast(NDArray[np.uint8], cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))


@torch.inference_mode()
def answers(net: nn.Module, stream: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Class of every frame of a gray stream (N, 48, 64) from the first whole clip on: the clip network, sliding."""
    windows = torch.from_numpy(np.ascontiguousarray(stream)).unfold(0, FRAMES, 1).movedim(-1, 1)
    return torch.cat([net(normalise(part)).argmax(1) for part in windows.split(64)]).numpy()


def _confusion(net: nn.Module, streams: Iterable[tuple[NDArray[np.uint8], int]]) -> NDArray[np.int64]:
    """Frames counted by true class (row) and answered class (column)."""
    counts = np.zeros((len(LABELS), len(LABELS)), np.int64)
    for stream, label in streams:
        counts[label] += np.bincount(answers(net, stream), minlength=len(LABELS))
    return counts


def evaluate_synthetic(net: nn.Module, seeds: Sequence[int], per_class: int = 50, extra: int = 8) -> NDArray[np.int64]:
    """Confusion (seeds, 8, 8) of ``extra + 1`` answers each on ``per_class`` generated streams of every class.

    Training draws from the seed given on its command line; any other seed gives unseen textures and motions.
    """

    def streams(seed: int) -> Iterable[tuple[NDArray[np.uint8], int]]:
        rng = np.random.default_rng((seed, 2**31))
        for i in range(per_class * len(LABELS)):
            if i % 32 == 0:
                pool = [texture(rng) for _ in range(10)]
            yield clip(rng, pool, i % len(LABELS), FRAMES + extra), i % len(LABELS)

    return np.stack([_confusion(net, streams(seed)) for seed in seeds])


def evaluate_warped(
    net: nn.Module,
    frames: Sequence[NDArray[np.uint8]],
    seeds: Sequence[int],
    per_class: int = 50,
    extra: int = 4,
    crop: float = 0.42,
    seen_only: bool = True,
) -> NDArray[np.int64]:
    """Confusion (seeds, 8, 8) on real BGR frames seen through a window that moves as the labels say.

    The window is ``crop`` of the frame wide, which leaves room for the fastest motion. ``seen_only`` leaves out windows
    onto a plain surface, where motion cannot be seen.
    """
    span = WIDTH * SCALE
    pictures = []
    for frame in frames:
        width = round(span / crop)
        size = (width, round(width * frame.shape[0] / frame.shape[1]))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        pictures.append(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32))

    def look(picture: Image, state: NDArray[np.float64]) -> Image:
        height, width = picture.shape
        matrix = view(state, height / width, span, (width / 2 - 0.5, height / 2 - 0.5))
        return shrink(draw(picture, matrix, cv2.BORDER_REFLECT_101))

    if seen_only:
        pictures = [picture for picture in pictures if visible(look(picture, np.zeros(4)))]

    def streams(seed: int) -> Iterable[tuple[NDArray[np.uint8], int]]:
        rng = np.random.default_rng((seed, 2**31 + 1))
        for i in range(per_class * len(LABELS)):
            picture = pictures[rng.integers(len(pictures))]
            states = camera_path(rng, i % len(LABELS), FRAMES + extra, picture.shape[0] / picture.shape[1])[:-1]
            stream = np.stack([look(picture, state) for state in states])
            yield np.clip(np.round(stream), 0, 255).astype(np.uint8), i % len(LABELS)

    return np.stack([_confusion(net, streams(seed)) for seed in seeds])


def evaluate_still(net: nn.Module, frames: Iterable[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Answers (8,) counted by class over the BGR frames of one recording; a fixed camera's should all be ``still``."""
    return np.bincount(answers(net, np.stack([network_frame(frame) for frame in frames])), minlength=len(LABELS))


# -------------------------------------------------------------------------------------------------------- script


def _alone() -> None:
    """Keep a drawing process to one processor core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _trained(net: nn.Module, options: argparse.Namespace, checkpoint: Path) -> Outcome:
    torch.set_num_threads(options.threads)
    workers = ProcessPoolExecutor(1, get_context("spawn"), _alone)
    with progress(options.steps) as report, stop_on_signal() as stop, workers as pool:
        return train(
            net,
            partial(batch, seed=options.seed),
            supervised(nn.CrossEntropyLoss(torch.tensor([options.rest] + [1.0] * (len(LABELS) - 1)))),
            Schedule(options.steps, peak=options.peak, warmup=0.05),
            Options(seed=options.seed),
            checkpoint=checkpoint,
            resume=options.resume,
            report=report,
            pool=pool,
            stop=stop,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network and write its weights as float32 safetensors."""
    parser = argparse.ArgumentParser(prog="python -m edgeco.train.camera_motion", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file to write; the checkpoint lies beside it")
    parser.add_argument("--seed", type=int, default=1, help="seed of the initial weights and of all clips")
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps of 64 clips each")
    parser.add_argument("--initial", type=Path, help="weights to go on from, instead of fresh ones")
    parser.add_argument("--peak", type=float, default=2e-3, help="greatest learning rate")
    parser.add_argument("--rest", type=float, default=1.0, help="weight of 'still' in the loss, for few false alarms")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint beside --out")
    parser.add_argument("--threads", type=int, default=1, help="processor threads for the network")
    options = parser.parse_args(arguments)
    with one_sentence(parser):
        check_target(options.out)
        checkpoint = checkpoint_beside(options.out, options.resume)
        net = fresh(options.seed)
        if options.initial is not None:
            load_weights(net, str(options.initial))
        outcome = _trained(net, options, checkpoint)
        write_trained(net, outcome, options.out, checkpoint)
    counts = evaluate_synthetic(net.eval(), [options.seed + 1], per_class=25)[0]
    for label, row in zip(LABELS, counts, strict=True):
        print(f"{label:10} {row[LABELS.index(label)] / row.sum():.3f}")


if __name__ == "__main__":
    main()
