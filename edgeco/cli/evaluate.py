"""``eval``: how well a network tells labelled recordings, in clips and in steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeco.cli.options import AUTO_PRECISION, JSON, engine_options
from edgeco.command import Command


@click.command(cls=Command, name="eval")
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="MODEL's bundle, to be stepped instead of a new one.")
@click.option("--weights", metavar="FILE", help="MODEL's weights; safetensors, or a checkpoint.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with any field of 'edgeco build'.")
@click.option("--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument of the factory; repeatable.")
@click.option("--labels", metavar="FILE", help="MODEL's class names, one per line.")
@click.option("--fps", type=float, help="Frames per second of recordings that do not say it.")
@click.option("--shape", metavar="T,…", help="Of a case in a line of a .csv file; the network's clip unless given.")
@click.option("--cases", type=click.IntRange(min=1), help="As many only, drawn from every class in proportion.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of that drawing.")
@click.option("--every", type=click.IntRange(min=1), help="Frames from window to window; end to end unless given.")
@engine_options
@AUTO_PRECISION
@JSON
def evaluate(**options: Any) -> None:
    """Count how well MODEL tells the labelled recordings in DATA.

    MODEL is a bundle, or whatever 'edgeco build' builds: then the clip network is asked too, on windows that end at the
    same frames. DATA is a folder with a folder per class, or a .csv, .ts or .npz file of cases.
    """
    from edgeco.show.evaluate import EvalOptions, evaluate_model

    evaluate_model(EvalOptions(**options))
