"""From a network's name and a folder of recordings to a pruned network, its plan and a report, on disk."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import save
from torch import nn

from edgeco.continual.convert import trace_network
from edgeco.continual.program import exact_mode
from edgeco.errors import SpecError
from edgeco.factory import carried_fields, find_factory, load_weights, make_network
from edgeco.files import check_target, replace_file
from edgeco.graph.trace import ClipGraph
from edgeco.prune.budget import Budget
from edgeco.prune.importance import Evidence
from edgeco.prune.page import page
from edgeco.prune.plan import PlanData
from edgeco.prune.planning import Planner
from edgeco.prune.recipe import PruneRecipe, Recordings, loss, recordings_of
from edgeco.prune.report import groups_of, made_report, to_json
from edgeco.prune.rounds import Rounds, Watch
from edgeco.prune.sensitivity import sensitivity
from edgeco.spec import BuildSpec, make_spec, read_labels
from edgeco.train.data import read_data


def resolve_network(fields: Mapping[str, Any]) -> tuple[BuildSpec, nn.Module]:
    """The specification and the network with its weights, unpruned.

    Raises:
        SpecError: the fields are not usable. ConversionError, WeightsError: the network cannot be made so.
    """
    factory = find_factory(str(fields["model"]))
    spec = make_spec({**carried_fields(factory), **{k: v for k, v in fields.items() if v is not None}})
    if spec.clip is None:
        raise SpecError("The clip's shape is not known: give --clip, as 3,16,112,112 for channels, frames, sides.")
    net = make_network(factory, spec.arguments).eval().float()
    if spec.weights is not None:
        load_weights(net, spec.weights, spec.weights_key)
    return spec, net


class PruneJob:
    """One pruning from end to end.

    Args:
        fields: of the build specification: model, arguments, clip, weights …
        recipe: how it is pruned.
        data: a folder or file of labelled recordings; None prunes by the weights alone, without training.
        out: the weights to write; the plan, the report and a folder of the run lie beside it.

    Raises:
        SpecError, ConversionError, WeightsError: the network cannot be made. DataError: nor the data be read.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        recipe: PruneRecipe,
        data: str | os.PathLike[str] | None,
        out: str | os.PathLike[str],
    ) -> None:
        self.fields, self.recipe, self.data, self.out = dict(fields), recipe, data, Path(out)
        check_target(self.out)
        Budget.of(recipe.budget)
        self.spec, self.net = resolve_network(fields)
        self.name = self.spec.name or str(self.spec.model)
        self.exact = exact_mode(self.spec.exact)

    def beside(self, ending: str) -> Path:
        """A path beside the weights."""
        return self.out.with_name(f"{self.out.stem}.{ending}")

    def trace(self, net: nn.Module) -> ClipGraph:
        """The network traced as for the conversion."""
        assert self.spec.clip is not None
        return trace_network(net, torch.zeros(1, *self.spec.clip), self.spec.time_dim)

    def recordings(self) -> Recordings | None:
        """The data, as the network takes it."""
        if self.data is None:
            return None
        data = read_data(self.data, labels=read_labels(self.spec.labels), fps=self.spec.fps)
        return recordings_of(self.spec, data, self.recipe)

    # -- what it does ------------------------------------------------------------------------------------------

    def dry_run(self, watch: Watch | None = None) -> dict[str, Any]:
        """What would go in one round, without writing anything."""
        watch = watch or Watch()
        plan = self._planner(self.recordings(), watch).plan()
        return {
            "name": self.name,
            "budget": plan.data.budget,
            "importance": plan.data.importance,
            "figures": {
                "macs": [plan.data.before.macs, plan.data.after.macs],
                "parameters": [plan.data.before.parameters, plan.data.after.parameters],
                "filters": [plan.data.before.channels, plan.data.after.channels],
            },
            "difference": plan.data.difference,
            "groups": groups_of(plan),
            "unknown": plan.data.unknown,
        }

    def run(self, watch: Watch | None = None, *, timed: bool = True, curves: bool = False) -> dict[str, Any] | None:
        """Prune, train, measure, write; go on from where an earlier run of the same job was stopped.

        Returns:
            The report, or None if it was stopped: what was done is kept.
        """
        watch = watch or Watch()
        recordings = self.recordings()
        folder = self._folder(recordings)
        whole = copy.deepcopy(self.net)
        found: dict[str, dict[str, float]] = {}
        if curves and recordings is not None:
            planner = self._planner(recordings, watch)
            key = recordings.fingerprint
            cache = folder / "sensitivity.json"
            found = sensitivity(planner, recordings.accuracy, cache=cache, key=key, say=watch.say, stop=watch.stop)
        outcome = Rounds(self.net, self.trace, self.recipe, recordings, folder).run(watch)
        if not outcome.finished or outcome.plan is None:
            return None
        watch.say("measuring")
        accuracy = None
        if recordings is not None:
            accuracy = (recordings.accuracy(whole), recordings.accuracy(outcome.net))
        data = recordings.fingerprint if recordings is not None else None
        report = made_report(
            self.name, whole, outcome, self.trace(whole), exact=self.exact, accuracy=accuracy, data=data, timed=timed,
            curves=found,
        )  # fmt: skip
        self._write(outcome.net, _measured(outcome.plan.data, report["figures"]), report)
        shutil.rmtree(folder, ignore_errors=True)
        return report

    def _planner(self, recordings: Recordings | None, watch: Watch) -> Planner:
        recipe = self.recipe
        batches = list(recordings.some(recipe.ranking)) if recordings is not None else []
        options = recipe.options(Budget.of(recipe.budget), data=bool(batches))
        watch.say("tracing the network")
        evidence = Evidence(self.net, batches, loss, recipe.seed)
        return Planner(self.net, self.trace(self.net), options, evidence, watch.say)

    def _folder(self, recordings: Recordings | None) -> Path:
        """The folder of this very run; what another kept there is refused. One that came to nothing kept nothing."""
        digest = hashlib.sha256(msgspec.json.encode([self.recipe, self.fields], enc_hook=str, order="deterministic"))
        digest.update((recordings.fingerprint if recordings is not None else "").encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        folder, key = self.beside("run"), digest.hexdigest()
        mark = folder / "job"
        kept = any(folder.glob("round-*")) or (folder / "sensitivity.json").exists()
        if kept and mark.exists() and mark.read_text() != key:
            raise SpecError(
                f"{folder} is of another run: the network, its weights, the data or an option differ. "
                "Remove the folder, or write to another place."
            )
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(key)
        return folder

    def _write(self, net: nn.Module, plan: PlanData, report: dict[str, Any]) -> None:
        state = {name: tensor.contiguous().clone() for name, tensor in net.state_dict().items()}
        notes = {"edgeco.plan": hashlib.sha256(msgspec.json.encode(plan)).hexdigest()}  # one: their order is not kept
        with replace_file(self.beside("plan.json")) as file:
            file.write(msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
        with replace_file(self.beside("report.json")) as file:
            file.write(to_json(report))
        with replace_file(self.beside("report.html")) as file:
            file.write(page(report).encode())
        with replace_file(self.out) as file:
            file.write(save(state, notes))


def _measured(plan: PlanData, figures: dict[str, Any]) -> PlanData:
    """The plan with the figures that were found of the step networks."""
    both = []
    for place, known in enumerate((plan.before, plan.after)):
        latency = figures["latency_seconds"]
        seconds = None if latency is None else latency["p50"][place]
        both.append(msgspec.structs.replace(known, state=figures["state_bytes"][place], latency=seconds))
    return msgspec.structs.replace(plan, before=both[0], after=both[1])
