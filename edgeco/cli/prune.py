"""``prune``: a smaller network by removing channels, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeco.cli.options import JSON
from edgeco.command import INTERRUPTED, Command

_IMPORTANCE = ("taylor", "magnitude", "norm", "activation", "random")


@click.command(cls=Command)
@click.argument("model", required=False)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Weights to write (.safetensors).")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled recordings; without them nothing is trained.")
@click.option("--budget", default="macs=50%", show_default=True, help="macs, parameters, state or latency: see below.")
@click.option("--importance", type=click.Choice(_IMPORTANCE), default="taylor", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="Parts of the way.")
@click.option("--train", type=click.IntRange(min=0), default=200, show_default=True, help="Steps after each round.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Clips of a training step.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, help="Greatest learning rate."
)
@click.option("--distil", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Unpruned network's share.")
@click.option("--protect", multiple=True, metavar="NAME", help="A layer whose channels stay, or a pattern; repeatable.")
@click.option(
    "--round-to", type=click.IntRange(min=1), default=1, show_default=True, help="Widths are multiples of it."
)
@click.option("--min-width", type=click.IntRange(min=1), default=2, show_default=True, help="Least units of a group.")
@click.option("--cap", type=click.FloatRange(0, 0.99), default=0.9, show_default=True, help="Most that a group loses.")
@click.option("--per", type=click.Choice(["macs", "parameters"]), help="Rank by importance per cost.")
@click.option("--approximate", is_flag=True, help="Also channels whose removal changes a normalisation.")
@click.option("--sensitivity", is_flag=True, help="Draw what each group costs alone; takes long.")
@click.option("--no-timing", is_flag=True, help="Do not measure steps before and after.")
@click.option("--dry-run", is_flag=True, help="Say what would go; write nothing.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with fields of 'edgeco build'.")
@click.option("--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument of the factory; repeatable.")
@click.option("--clip", metavar="C,T,H,W", help="Shape of one clip, without the batch.")
@click.option("--time-dim", type=int, help="Axis of the batched clip that counts frames.  [default: 2]")
@click.option("--labels", metavar="FILE", help="Class names, one per line, in the network's order.")
@click.option("--weights", metavar="FILE", help="Safetensors, or a checkpoint (read as weights only).")
@click.option("--seed", type=int, default=0, show_default=True)
@JSON
def prune(
    model: str | None,
    out: Path,
    data: Path | None,
    sensitivity: bool,
    no_timing: bool,
    dry_run: bool,
    config: Path | None,
    arguments: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Remove channels of a clip network until it keeps to a budget.

    MODEL is as for 'edgeco build'. The budget is a share or a number: macs=50%, parameters=1.2M, state=64KiB,
    latency=5ms (a step on this machine). What goes is held against an oracle first: removing channels must equal
    zeroing them. Beside OUT lie the plan (.plan.json) and a report (.report.json, .report.html); build the pruned
    network with 'edgeco build MODEL --plan OUT.plan.json --weights OUT'. Ctrl-C keeps what was done; the same command
    goes on.
    """
    from edgeco.command import need_build_side, refuse_overwriting, stop_on_signal
    from edgeco.show.console import console, print_json
    from edgeco.show.prune import prune_progress, show_pruned

    need_build_side()
    from edgeco.prune.job import PruneJob
    from edgeco.prune.recipe import PruneRecipe
    from edgeco.spec import fields_from

    network = {name: given.pop(name) for name in ("clip", "time_dim", "labels", "weights")}
    fields = fields_from(config, {"model": model, **network}, arguments)
    if "model" not in fields:
        raise click.UsageError("Name the network to prune, as 'edgeco models' lists them, or file.py:factory.")
    refuse_overwriting(
        out, config, *(str(fields.get(k) or "").rsplit(":", 1)[0] for k in ("model", "weights", "labels"))
    )
    job = PruneJob(fields, PruneRecipe(**given), data, out)
    with prune_progress(console(stderr=True), given["train"]) as watch, stop_on_signal() as stop:
        watch.stop = stop
        report = job.dry_run(watch) if dry_run else job.run(watch, timed=not no_timing, curves=sensitivity)
    if report is None:
        console(stderr=True).print(f"Stopped; the same command goes on from {job.beside('run')}.")
        raise click.exceptions.Exit(INTERRUPTED)
    if as_json:
        print_json(report)
    else:
        show_pruned(report, None if dry_run else out, console())
