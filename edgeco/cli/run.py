"""Commands that run a network over frames: ``run`` and ``demo``."""

from __future__ import annotations

from typing import Any

import click

from edgeco.cli.options import AUTO_PRECISION, BUNDLE, JSON, engine_options
from edgeco.command import Command

_IDLE_POWER = "Measure power idle first, to tell the energy above it."


@click.command(cls=Command)
@BUNDLE
@click.option("--source", required=True, help="A camera, stream, video file, folder, sensor file or pattern://…")
@click.option("--jsonl", metavar="PATH|-", help="Write one JSON line per frame; '-' is standard output.")
@click.option("--rotate", metavar="SIZE[:KEPT]", help="Begin a new file at this size, as in 10MB:5.")
@click.option("--save", metavar="VIDEO", help="Write a video with the answers drawn in (.mp4, .mkv or .avi).")
@click.option("--show", is_flag=True, help="Show the pictures with the answers in a window; q ends the run.")
@click.option("--fps", type=float, help="Rate the network is held to; the bundle's unless given; 0 is every frame.")
@click.option("--gap", type=click.Choice(["skip", "repeat", "reset"]), default="skip", show_default=True)
@click.option("--gap-threshold", type=float, metavar="SECONDS", help="A longer gap resets the network's state.")
@click.option("--pre", metavar="MODULE:NAME", help="Makes of a frame what the network takes: a pose estimator, say.")
@click.option("--smooth", metavar="mean=N,dwell=N", help="Smooth the answers: a moving mean, a least dwell.")
@engine_options
@AUTO_PRECISION
@click.option("--affinity", metavar="CPUS", help="Run on these processors only, as in 0,2-3.")
@click.option("--preview", type=click.IntRange(0, 65535), metavar="PORT", help="Show the run on a page; 0: any port.")
@click.option("--preview-host", default="127.0.0.1", show_default=True, help="Another address asks for a token.")
@click.option("--idle-power", type=click.FloatRange(0, 600), default=0, metavar="SECONDS", help=_IDLE_POWER)
@click.option("--frames", type=click.IntRange(min=1), help="End after as many frames.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes named in a line.")
@JSON
def run(**options: Any) -> None:
    """Run BUNDLE over a source, frame by frame.

    Prints the best class whenever it changes, on a terminal also the figures of the moment, and at the end what was
    done and how long each stage took. With '--jsonl -' standard output holds the lines alone and all else goes to
    standard error. Ctrl-C or SIGTERM ends the run after the frames in hand, with its summary; twice, at once.
    """
    from edgeco.show.run import RunOptions, run_bundle

    run_bundle(RunOptions(**options))


@click.command(cls=Command)
@engine_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="What the scene looks like.")
@JSON
def demo(engine: str, threads: int | None, seed: int, as_json: bool) -> None:
    """Run the shipped camera-motion network.

    It sees a drawn scene whose camera motion is known, all eight motions in turn; fewer than 80 % told rightly is a
    failed check.
    """
    from edgeco.errors import CheckFailed
    from edgeco.runtime.demo import LEAST_ACCURACY, load_demo, run_demo
    from edgeco.show.console import console, print_json, say
    from edgeco.show.demo import show_demo

    report = run_demo(load_demo(engine, threads, say), seed)
    if as_json:
        print_json(report.to_json())
    else:
        show_demo(report, console())
    if not report.passed:
        raise CheckFailed(
            f"the network told {report.accuracy:.1%} of the motions rightly; {LEAST_ACCURACY:.0%} are due"
        )
