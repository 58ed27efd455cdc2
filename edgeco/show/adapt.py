"""``edgeco adapt``: network and data found, the learning watched, pack and report written and printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgeco.command import need_build_side, refuse_overwriting, stop_on_signal
from edgeco.errors import SpecError
from edgeco.files import replace_file
from edgeco.show.console import bytes_text, console, facts, plain, print_json, say

if TYPE_CHECKING:
    from edgeco.adapters.learn import AdaptReport
    from edgeco.train.data import Data


@dataclass(frozen=True)
class AdaptOptions:
    """What ``edgeco adapt`` was asked for.

    Attributes:
        fields: of the build specification. adapters, recipe: fields of those records.
        out: the pack; report and checkpoint lie beside it.
    """

    fields: dict[str, Any]
    config: Path | None
    arguments: tuple[str, ...]
    data: Path
    out: Path
    name: str | None = None
    plan: Path | None = None
    group: str | None = None
    shape: str | None = None
    device: str = "cpu"
    resume: bool = False
    adapters: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    as_json: bool = False


def adapt_model(options: AdaptOptions) -> bool:
    """Adapt, write and print; says whether it came to its end, rather than being stopped.

    Raises:
        EdgecoError: whatever the options, the network, or the data raise.
    """
    need_build_side()
    from edgeco.adapters.learn import Adaptation, AdaptRecipe
    from edgeco.adapters.page import page
    from edgeco.adapters.spec import make_adapter_spec
    from edgeco.building import resolve
    from edgeco.factory import load_weights, make_network
    from edgeco.prune.plan import load_plan
    from edgeco.spec import fields_from
    from edgeco.train.config import make_recipe
    from edgeco.train.progress import progress

    out, checkpoint = options.out, options.out.with_suffix(".checkpoint")
    refuse_overwriting(out, options.config, options.plan, options.fields.get("weights"))
    _check_folder(out)
    spec, factory = resolve(fields_from(options.config, options.fields, options.arguments))
    adapters = make_adapter_spec({k: v for k, v in options.adapters.items() if v is not None})
    recipe = make_recipe(AdaptRecipe, {k: v for k, v in options.recipe.items() if v is not None})
    say("making the network")
    base = make_network(factory, spec.arguments).eval().float()
    if spec.weights is not None:
        load_weights(base, spec.weights, spec.weights_key)
    say("reading the recordings")
    data = _data(options, spec)
    say("adapting the network")
    plan = None if options.plan is None else load_plan(options.plan)
    adaptation = Adaptation(spec, base, data, adapters, recipe, plan, _device(options.device))
    with progress(recipe.steps) as report, stop_on_signal() as stop:
        outcome = adaptation.run(checkpoint=checkpoint, resume=options.resume, report=report, stop=stop)
    if outcome.ended == "stopped":
        say(f"stopped after {outcome.steps} steps, kept in {checkpoint}; go on with --resume")
        return False
    pack = adaptation.pack(options.name or options.data.stem)
    made = adaptation.report(pack, outcome, options.data.name)
    pack.save(out)
    _write(out.with_suffix(".html"), page(made).encode())
    _write(out.with_suffix(".json"), _json(made))
    checkpoint.unlink(missing_ok=True)
    if options.as_json:
        print_json(made.to_json())
    else:
        show_adapted(made, out, console())
    return True


def _check_folder(out: Path) -> None:
    if not out.absolute().parent.is_dir():
        raise SpecError(f"{out} cannot be written: its folder does not exist; create it first.")
    if out.suffix in (".html", ".json", ".checkpoint"):
        raise SpecError(f"{out} would be its own report; call the pack .safetensors.")


def _data(options: AdaptOptions, spec: Any) -> Data:
    from edgeco.train.data import read_data

    shape: tuple[int, ...] | None = None
    if options.shape is not None:
        parts = options.shape.split(",")
        if not all(part.strip().isdecimal() and int(part) for part in parts):
            raise SpecError(f"--shape {options.shape!r} is not a list of whole numbers, as in 16,2.")
        shape = tuple(map(int, parts))
    elif options.data.suffix.lower() in (".csv", ".tsv"):
        rest = [n for axis, n in enumerate(spec.clip, 1) if axis != spec.time_dim]
        shape = (spec.clip[spec.time_dim - 1], *rest)
    # The task's classes are those of its data; those that a network carries are of the base's task.
    return read_data(options.data, fps=options.fields.get("fps"), shape=shape, group=options.group)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise SpecError(f"PyTorch cannot use the device {name!r} here ({reason}); leave it out.") from error
        return name
    return str(torch.accelerator.current_accelerator() or "cpu") if torch.accelerator.is_available() else "cpu"


def _write(path: Path, contents: bytes) -> None:
    with replace_file(path) as file:
        file.write(contents)


def _json(report: AdaptReport) -> bytes:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(report.to_json()), indent=2) + b"\n"


def show_adapted(report: AdaptReport, out: Path, shown: Console) -> None:
    """Print what an adaptation came to."""
    learned, before, after = report.learned, report.before, report.after
    more = f", {learned.mask_bits} mask bits" if learned.mask_bits else ""
    values = {
        "data": f"{report.data}: {report.cases} cases of {len(report.labels)} classes, {report.held_out} held out",
        "learned": (
            f"{learned.parameters:,} numbers, {learned.parameters / max(report.parameters, 1):.1%} of the network's: "
            f"adapters {learned.adapters:,}, norms {learned.norms:,}, biases {learned.biases:,}, head {learned.head:,}"
        ),
        "stored": f"{bytes_text(learned.bytes)}, with {learned.statistics:,} statistics of norms{more}",
        "clip network": f"{before.clip:.1%} of the held-out cases before, {after.clip:.1%} after",
        "its stream": f"{before.step:.1%} before, {after.step:.1%} after; of every answer {after.steps:.1%}",
    }
    if report.skipped:
        values["left alone"] = ", ".join(report.skipped)
    shown.print(facts(f"Task pack {report.name}", values))
    shown.print(plain(f"{out} is written, its report beside it; fuse it with: edgeco build MODEL --pack {out} -o FILE"))
