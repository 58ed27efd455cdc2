"""From a network's name and a folder of recordings to a task pack and its report, on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from edgeco.adapters.learn import Adaptation, AdaptRecipe, AdaptReport
from edgeco.adapters.page import page
from edgeco.adapters.spec import make_adapter_spec
from edgeco.errors import SpecError, WeightsError
from edgeco.factory import load_weights
from edgeco.files import check_target, replace_file
from edgeco.prune.job import resolve_network
from edgeco.prune.plan import PruningPlan, load_plan
from edgeco.spec import BuildSpec
from edgeco.train.checkpoint import checkpoint_beside
from edgeco.train.config import make_recipe
from edgeco.train.data import Data, read_data
from edgeco.train.progress import Report


@dataclass(frozen=True)
class AdaptJob:
    """An adaptation from end to end.

    Attributes:
        fields: of the build specification: model, arguments, clip, weights …
        adapters, recipe: fields of `AdapterSpec` and `AdaptRecipe`.
        data: a folder or file of labelled recordings.
        out: the pack to write; report and checkpoint lie beside it.
        name: what the pack calls the task; the data's name if None.
        plan: a plan of 'edgeco prune'. With the base's own weights its channels go first, and the pack says which; with
            the weights of the pruned network that is the base, as it is for 'edgeco build --plan'.
        group, shape: as of `edgeco.train.data.read_data`.
        device: of PyTorch; "auto" takes the accelerator, if there is one.
    """

    fields: Mapping[str, Any]
    data: Path
    out: Path
    adapters: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    plan: Path | None = None
    group: str | None = None
    shape: tuple[int, ...] | None = None
    device: str = "auto"

    @property
    def checkpoint(self) -> Path:
        """Where a stopped run is kept."""
        return checkpoint_beside(self.out, resume=True)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self._recipe().steps

    def run(
        self,
        *,
        resume: bool = False,
        say: Callable[[str], None] = lambda text: None,
        report: Report | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> AdaptReport | None:
        """Adapt, and write pack and report; None if it was stopped, and kept for `resume`.

        Raises:
            SpecError: a stopped run is kept, and this one does not go on from it.
            EdgecoError: whatever the specification, the network, the data or the disk raise.
        """
        check_target(self.out)
        if self.out.suffix in (".html", ".json", ".checkpoint"):
            raise SpecError(f"{self.out} would be its own report; call the pack .safetensors.")
        checkpoint = checkpoint_beside(self.out, resume)
        adapters, recipe = make_adapter_spec(dict(self.adapters)), self._recipe()
        say("making the network")
        spec, base, plan = self._base()
        say("reading the recordings")
        data = self._read(spec)
        say("attaching adapters")
        adaptation = Adaptation(spec, base, data, adapters, recipe, plan, torch_device(self.device))
        say("learning")
        outcome = adaptation.run(checkpoint=checkpoint, resume=resume, report=report, stop=stop)
        if outcome.ended == "stopped":
            return None
        say("packing")
        pack = adaptation.pack(self.name or self.data.stem)
        made = adaptation.report(pack, outcome, self.data.name)
        pack.save(self.out)
        _write(self.out.with_suffix(".html"), page(made).encode())
        _write(
            self.out.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(made.to_json()), indent=2) + b"\n"
        )
        checkpoint.unlink(missing_ok=True)
        return made

    def _recipe(self) -> AdaptRecipe:
        return make_recipe(AdaptRecipe, self.recipe)

    def _base(self) -> tuple[BuildSpec, nn.Module, PruningPlan | None]:
        """The base, and the plan that the task itself prunes it by; weights of a pruned network make that the base."""
        path = self.plan or self.fields.get("plan")
        if path is None:
            return *resolve_network(self.fields), None
        plan = load_plan(path)
        try:
            return *resolve_network(self.fields), plan
        except WeightsError:
            spec, base = resolve_network({**self.fields, "weights": None})
            plan.apply(base)
            spec = msgspec.structs.replace(spec, weights=str(self.fields["weights"]))
            load_weights(base, str(spec.weights), spec.weights_key)
            return spec, base, None

    def _read(self, spec: BuildSpec) -> Data:
        """The recordings; their classes are the task's, those that a network carries are of the base's task."""
        assert spec.clip is not None
        shape = self.shape
        if shape is None and self.data.suffix.lower() in (".csv", ".tsv"):
            rest = [n for axis, n in enumerate(spec.clip, 1) if axis != spec.time_dim]
            shape = (spec.clip[spec.time_dim - 1], *rest)
        return read_data(self.data, fps=self.fields.get("fps"), shape=shape, group=self.group)


def torch_device(name: str) -> str:
    """A device of PyTorch by its name, or the best there is for "auto".

    Raises:
        SpecError: PyTorch cannot use it here.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return "cpu" if found is None else str(found)
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"PyTorch cannot use the device {name!r} here ({reason}); leave it out.") from error
    return name


def _write(path: Path, contents: bytes) -> None:
    with replace_file(path) as file:
        file.write(contents)
