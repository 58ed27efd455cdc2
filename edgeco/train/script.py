"""What the training scripts of the shipped networks have in common: flags, the loop, a test on what was held out."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from edgeco.command import INTERRUPTED, one_line, stop_on_signal
from edgeco.errors import EdgecoError, SpecError
from edgeco.files import check_target, replace_file
from edgeco.train.checkpoint import checkpoint_beside
from edgeco.train.config import Recipe, add_flags, recipe_from
from edgeco.train.data import Data
from edgeco.train.loop import BatchFunction, Outcome, train
from edgeco.train.nearest import nearest_accuracy
from edgeco.train.objective import Loss, supervised
from edgeco.train.progress import progress

Clips = tuple[NDArray[Any], NDArray[np.int64]]
"""Frames of clips (number, frames, *frame) as the data have them, and their classes."""


class Task(ABC):
    """A network, its data, and how both come together."""

    recipe: ClassVar[Recipe]
    """The defaults of its script."""
    labels: ClassVar[tuple[str, ...]]
    fps: ClassVar[float]

    @abstractmethod
    def fresh(self) -> nn.Module:
        """An untrained network."""

    @abstractmethod
    def parts(self, path: Path, seed: int) -> tuple[Data, Data, Data]:
        """What is learnt from, what validates, what tests: they share no case."""

    @abstractmethod
    def batches(self, data: Data, recipe: Recipe) -> BatchFunction:
        """Batches drawn from the first part."""

    @abstractmethod
    def clips(self, data: Data, seed: int) -> Clips:
        """Every clip of a part that an accuracy is counted over."""

    @abstractmethod
    def entering(self, frames: NDArray[Any]) -> Tensor:
        """Frames of clips as the network takes them."""

    def known(self, data: Data, seed: int) -> Clips:
        """The clips among which a nearest neighbour is looked for."""
        return self.clips(data, seed)

    def shown(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Frames as a source would give them: values as they are."""
        return frames


def accuracy(net: nn.Module, task: Task, clips: Clips) -> float:
    """Share of clips that the clip network tells rightly."""
    frames, classes = clips
    with torch.inference_mode():
        told = torch.cat([net(task.entering(frames[i : i + 256])).argmax(1) for i in range(0, len(frames), 256)])
    return float((told.numpy() == classes).mean())


def fit(
    task: Task, loss: Loss, path: Path, recipe: Recipe, checkpoint: Path | None = None, resume: bool = False
) -> tuple[nn.Module, Outcome]:
    """Train a network on one split; it has the weights that validated best."""
    torch.set_num_threads(recipe.threads)
    learnt, validation, _ = task.parts(path, recipe.seed)
    held = task.clips(validation, recipe.seed + 1)
    torch.manual_seed(recipe.seed)
    net = task.fresh()
    options = recipe.options(validate=lambda net: accuracy(net, task, held))
    with progress(recipe.steps) as report, stop_on_signal() as stop:
        outcome = train(
            net,
            task.batches(learnt, recipe),
            supervised(loss),
            recipe.schedule(),
            options,
            checkpoint=checkpoint,
            resume=resume,
            report=report,
            stop=stop,
        )
    return net.eval(), outcome


def compared(task: Task, path: Path, seed: int, net: nn.Module) -> tuple[float, float]:
    """Accuracy of a network and of 1-nearest-neighbour on the test part; the latter knows the validation part too."""
    learnt, validation, test = task.parts(path, seed)
    known = [task.known(part, seed) for part in (learnt, validation)]
    frames, classes = (np.concatenate(both) for both in zip(*known, strict=True))
    clips = task.clips(test, seed + 2)
    return accuracy(net, task, clips), nearest_accuracy((frames, classes), clips)


def main_of(task: Task, loss: Loss, arguments: Sequence[str] | None, about: str | None) -> None:
    """A training script's ``main``."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, required=True, help="the recordings")
    parser.add_argument("--out", type=Path, help="weights to write (safetensors); the checkpoint lies beside them")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint beside --out")
    parser.add_argument("--test", type=Path, metavar="FILE.npz", help="write what was held out, for 'edgeco eval'")
    parser.add_argument("--search", type=int, metavar="N", help="try N recipes of --config's search space")
    add_flags(parser, task.recipe)
    given = parser.parse_args(arguments)
    with one_sentence(parser):
        recipe, space = recipe_from(given, task.recipe)
        for path in filter(None, (given.out, given.test)):
            check_target(path)
        if not (given.out or given.test or given.search):
            raise SpecError("Nothing to do: give --out, --test or --search.")
        if given.test:
            write_test(task, given.data, recipe.seed, given.test)
        if given.search:
            for number, tried in enumerate(space.draw(recipe.seed, given.search)):
                _, outcome = fit(task, loss, given.data, tried)
                if outcome.ended == "stopped":
                    parser.exit(INTERRUPTED)
                told = ", ".join(f"{name} {getattr(tried, name)}" for name in space.search)
                print(f"{number + 1}: {outcome.best:.4f} of the validation part with {told}")
        elif given.out:
            _train_and_tell(task, loss, given.data, recipe, given.out, given.resume)


def _train_and_tell(task: Task, loss: Loss, data: Path, recipe: Recipe, out: Path, resume: bool) -> None:
    checkpoint = checkpoint_beside(out, resume)
    net, outcome = fit(task, loss, data, recipe, checkpoint, resume)
    write_trained(net, outcome, out, checkpoint)
    own, nearest = compared(task, data, recipe.seed, net)
    print(f"{out}: {own:.4f} of the test clips told rightly; 1-nearest-neighbour: {nearest:.4f}")


@contextmanager
def one_sentence(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End a script with one line and the error's exit code, or quietly with 130 after a second Ctrl-C."""
    try:
        yield
    except EdgecoError as error:
        parser.exit(error.exit_code, f"{parser.prog}: error: {one_line(str(error))}\n")
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, f"{parser.prog}: interrupted\n")


def write_trained(net: nn.Module, outcome: Outcome, out: Path, checkpoint: Path) -> None:
    """Write the weights of a training that came to its end; a stopped one keeps its checkpoint and exits with 130.

    Raises:
        WriteError: they cannot be written; the checkpoint is kept.
    """
    if outcome.ended == "stopped":
        print(f"stopped after {outcome.steps} steps; go on with --resume")
        raise SystemExit(INTERRUPTED)
    with replace_file(out) as file:
        file.write(save({name: value.contiguous() for name, value in net.state_dict().items()}))
    checkpoint.unlink(missing_ok=True)


def write_test(task: Task, data: Path, seed: int, path: Path) -> None:
    """Write the test part's clips as a file that ``read_data`` reads."""
    frames, classes = task.clips(task.parts(data, seed)[2], seed + 2)
    with replace_file(path) as file:
        np.savez_compressed(file, x=task.shown(frames), y=classes, labels=np.array(task.labels), fps=task.fps)
