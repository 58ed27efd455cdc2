"""``adapt``: a task learned beside a shared base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeco.cli.options import JSON
from edgeco.command import INTERRUPTED, Command

_KINDS = ["low-rank", "splora", "sppara", "splopa", "axis", "taps", "full", "none"]
_FIELDS = ("model", "weights", "weights_key", "clip", "time_dim", "fps", "window", "exact", "start")
_ADAPTERS = ("kind", "rank", "alpha", "modules", "exclude", "norms", "biases", "head")
_RECIPE = (
    *("regime", "frames", "distill", "steps", "batch", "peak", "average", "patience", "validate_every"),
    *("held_out", "seed", "threads"),
)


@click.command(cls=Command)
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The pack (.safetensors) to write.")
@click.option("--weights", metavar="FILE", help="The base's weights; safetensors, or a checkpoint.")
@click.option("--weights-key", metavar="KEY", help="Where in a nested checkpoint the weights lie.")
@click.option("--plan", type=click.Path(path_type=Path), help="A plan of 'edgeco prune': channels that go.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with any field of 'edgeco build'.")
@click.option("--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument of the factory; repeatable.")
@click.option("--clip", metavar="C,T,H,W", help="Shape of one clip, without the batch.")
@click.option("--time-dim", type=int, help="Axis of the batched clip that counts frames.  [default: 2]")
@click.option("--fps", type=float, help="Frames per second the network is held to.")
@click.option("--window", type=int, help="Elements the final pooling over time takes in the stream.")
@click.option("--exact", type=click.Choice(["interior", "clip"]), help="Recompute what would stream differently.")
@click.option("--start", type=click.Choice(["zeros", "replicate"]), help="What lies before a stream's first frame.")
@click.option("--name", help="What the pack calls the task; the data's name.")
@click.option("--adapter", "kind", type=click.Choice(_KINDS), help="What is learned of a weight.  [default: low-rank]")
@click.option("--rank", type=float, help="Of its factors; below 1 a fraction of the weight's own.  [default: 8]")
@click.option("--alpha", type=float, help="The change is scaled by alpha / rank; the rank unless given.")
@click.option("--modules", multiple=True, metavar="REGEX", help="Modules or weights to adapt; repeatable.")
@click.option("--exclude", multiple=True, metavar="REGEX", help="Those to leave alone; repeatable.")
@click.option("--head", metavar="NAME", help="The layer that is the task's own as a whole; the last one.")
@click.option("--norms/--no-norms", default=None, help="Whether norms and their statistics are the task's own.")
@click.option("--biases/--no-biases", default=None, help="Whether biases of adapted layers are learned.")
@click.option("--regime", type=click.Choice(["clip", "stream"]), help="Train clips, or every step of a stream.")
@click.option("--frames", type=click.IntRange(min=1), help="Of a recording in the streamed regime; two clips.")
@click.option("--distill", type=click.FloatRange(0, 1), metavar="SHARE", help="Learn from the base's answers too.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps.  [default: 600]")
@click.option("--batch", type=click.IntRange(min=1), help="Clips of a step.  [default: 16]")
@click.option("--peak", type=float, help="Greatest learning rate.  [default: 0.003]")
@click.option("--average", type=float, help="Decay of the weights' moving average.")
@click.option("--patience", type=click.IntRange(min=1), help="Validations without a better one that end it.")
@click.option("--validate-every", type=click.IntRange(min=1), help="Steps between validations.  [default: 100]")
@click.option("--held-out", type=float, metavar="SHARE", help="Of the cases, to validate on.  [default: 0.2]")
@click.option("--group", metavar="REGEX", help="What of a case's name must not be torn apart: a person, a session.")
@click.option("--shape", metavar="T,…", help="Of a case in a line of a .csv file; the network's clip unless given.")
@click.option("--seed", type=click.IntRange(min=0), help="Of all chance.  [default: 1]")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads.  [default: 1]")
@click.option("--torch-device", "device", default="auto", show_default=True, help="Where it learns: cpu, cuda, mps …")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside the pack.")
@JSON
def adapt(**options: Any) -> None:
    """Learn a task beside the base network MODEL.

    MODEL is whatever 'edgeco build' builds; DATA shows the task: a folder with a folder of recordings per class, or a
    .csv, .ts or .npz file of cases. What the task adds to the base is written as one small file, with a report beside
    it (.html, .json); 'edgeco build --pack' folds it into a bundle. Ctrl-C keeps what was learned so far for --resume.
    """
    from edgeco.show.adapt import AdaptOptions, adapt_model

    def taken(names: tuple[str, ...]) -> dict[str, Any]:
        found = {name: options.pop(name) for name in names}
        return {name: value for name, value in found.items() if value not in (None, ())}

    finished = adapt_model(
        AdaptOptions(fields=taken(_FIELDS), adapters=taken(_ADAPTERS), recipe=taken(_RECIPE), **options)
    )
    if not finished:
        raise click.exceptions.Exit(INTERRUPTED)
