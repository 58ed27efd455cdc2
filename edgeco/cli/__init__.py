"""The command line: parse, call the library, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import click

from edgeco import __version__
from edgeco.cli.adapt import adapt
from edgeco.cli.build import build, models
from edgeco.cli.bundle import bench, inspect, verify
from edgeco.cli.calibrate import calibrate
from edgeco.cli.device import compile_, devices, doctor
from edgeco.cli.evaluate import evaluate
from edgeco.cli.prune import prune
from edgeco.cli.run import demo, run
from edgeco.command import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgeco", message="%(prog)s %(version)s")
def main() -> None:
    """Video networks that see a live camera frame by frame.

    Results go to standard output, messages to standard error. Exit codes: 0 well, 1 a check failed or a file cannot be
    written, 2 usage, 3 the model cannot be converted, 4 an engine or a source is missing or fails, 5 a bundle is
    damaged or foreign, 70 a fault in edgeco.
    """


_COMMANDS = (
    *(build, models, prune, adapt, evaluate, calibrate),
    *(run, demo, verify, inspect, bench),
    *(compile_, devices, doctor),
)
for _command in _COMMANDS:
    main.add_command(_command)
