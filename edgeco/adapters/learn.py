"""From a base network and labelled recordings to a task pack: what ``edgeco adapt`` does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.adapters.attach import attach, fuse
from edgeco.adapters.choose import last_layer
from edgeco.adapters.head import outputs_of, resize_head
from edgeco.adapters.pack import TaskPack, make_pack
from edgeco.adapters.plans import mask_bits
from edgeco.adapters.spec import AdapterSpec
from edgeco.adapters.task import Learned
from edgeco.continual.program import convert
from edgeco.continual.training import StreamForm
from edgeco.errors import DataError, SpecError
from edgeco.prune.plan import PruningPlan
from edgeco.prune.recipe import logits, preprocessing_of
from edgeco.spec import BuildSpec
from edgeco.train.config import Recipe
from edgeco.train.data import Batches, Data, clip_of
from edgeco.train.loop import Outcome, Training
from edgeco.train.objective import Objective

Regime = Literal["clip", "stream"]
"""What is trained: the clip network on clips, or what its stream computes at every step of a recording."""


class AdaptRecipe(Recipe, frozen=True, kw_only=True):
    """How a task is learned."""

    steps: Annotated[int, Meta(ge=1)] = 600
    batch: Annotated[int, Meta(ge=1)] = 16
    peak: Annotated[float, Meta(gt=0)] = 3e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    regime: Regime = "clip"
    frames: Annotated[int, Meta(ge=1)] | None = None
    """Of a recording in the streamed regime; two clips unless given, and never fewer than an answer needs."""
    distill: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the base network's own answers in what is learned; it must have the task's classes."""
    held_out: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    """Share of the cases that validate, and that the report tells accuracies of."""


@dataclass(frozen=True)
class Accuracy:
    """Shares of the held-out cases that are told rightly, all at their last frame.

    Attributes:
        clip: by the clip network, on the last clip of each.
        step: by its stream, after the whole case.
        steps: of all answers that the stream gave in all cases.
    """

    clip: float
    step: float
    steps: float


@dataclass
class AdaptReport:
    """What an adaptation did and measured.

    Attributes:
        learned: numbers learned and stored, and bytes; parameters: of the network they are for.
        layers: per adapted weight its shape, form and learned numbers.
        before, after: accuracies; before, a head of other classes knows nothing yet.
        curve: steps done, mean loss since the last entry, best validation so far.
    """

    name: str
    base: str
    data: str
    fingerprint: str
    cases: int
    held_out: int
    labels: list[str]
    regime: Regime
    spec: dict[str, Any]
    recipe: dict[str, Any]
    parameters: int
    learned: Learned
    layers: list[dict[str, Any]]
    skipped: dict[str, str]
    before: Accuracy
    after: Accuracy
    steps: int
    ended: str
    curve: list[tuple[int, float, float | None]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        made["learned"]["parameters"] = self.learned.parameters
        return made


class Adaptation:
    """A base network on its way to a task.

    Args:
        spec: how its clips are, as for a build.
        base: the network with its weights; it stays as it is.
        data: labelled recordings, as they were read.
        adapters, recipe: what is learned, and how.
        plan: channels to remove first.
        device: where it is trained.

    Raises:
        SpecError: the network has several inputs or no fitting head, or what is asked for does not fit together.
        DataError: the recordings do not fit the network.
    """

    def __init__(
        self,
        spec: BuildSpec,
        base: nn.Module,
        data: Data,
        adapters: AdapterSpec,
        recipe: AdaptRecipe,
        plan: PruningPlan | None = None,
        device: str = "cpu",
    ) -> None:
        assert spec.clip is not None
        self.spec, self.base, self.recipe, self.plan, self.data = spec, base.eval(), recipe, plan, data
        self.length = spec.clip[spec.time_dim - 1]
        self.example = torch.zeros(1, *spec.clip)
        self.device = torch.device(device)
        net = copy.deepcopy(self.base)
        if plan is not None:
            plan.apply(net)
        head = self._head(net, adapters, len(data.labels))
        self.task = attach(net, adapters, head=head)
        self.net = net.to(self.device)
        self.task.freeze(self.net)
        self._read(data)
        self.before = self.accuracy()
        self.training = Training(self._target(), self._objective(), recipe.schedule(), self._options())
        self.curve: list[tuple[int, float, float | None]] = []

    def run(
        self,
        *,
        checkpoint: Path | None = None,
        resume: bool = False,
        report: Callable[[int, float, float, float | None], None] | None = None,
        stop: Callable[[], bool] | None = None,
        until: int | None = None,
    ) -> Outcome:
        """Learn, to the end or until stopped; the network then has the weights that validated best."""
        torch.set_num_threads(self.recipe.threads)
        if resume and checkpoint is not None:
            self.training.resume(checkpoint)

        def told(done: int, loss: float, rate: float, best: float | None) -> None:
            self.curve.append((done, loss, best))
            if report is not None:
                report(done, loss, rate, best)

        outcome = self.training.run(self.batches, checkpoint=checkpoint, report=told, stop=stop, until=until)
        self.net.eval()
        return outcome

    def pack(self, name: str, notes: dict[str, Any] | None = None) -> TaskPack:
        """What was learned, proved against the base."""
        net = copy.deepcopy(self.net).cpu().eval()
        return make_pack(net, self.task, self.base, name=name, labels=self.data.labels, plan=self.plan, notes=notes)

    def report(self, pack: TaskPack, outcome: Outcome, source: str) -> AdaptReport:
        """What was done and measured."""
        bits = mask_bits(pack.info.plan)
        layers = [
            {"weight": w, "shape": s, "form": f, "learned": n, "of": m} for w, s, f, n, m in _layers(pack, self.net)
        ]
        return AdaptReport(
            name=pack.info.name, base=pack.info.base, data=source, fingerprint=self.data.fingerprint,
            cases=len(self.data), held_out=len(self.held), labels=list(self.data.labels), regime=self.recipe.regime,
            spec=msgspec.to_builtins(self.task.spec), recipe=msgspec.to_builtins(self.recipe),
            parameters=sum(t.numel() for t in pack.fuse(self.base).parameters()),
            learned=self.task.count(self.net, bits), layers=layers, skipped=self.task.skipped, before=self.before,
            after=self.accuracy(), steps=outcome.steps, ended=outcome.ended, curve=self.curve,
        )  # fmt: skip

    # -- network and data --------------------------------------------------------------------------------------

    def _head(self, net: nn.Module, adapters: AdapterSpec, classes: int) -> str:
        """The task's own layer, with as many outputs as there are classes."""
        name = adapters.head or last_layer(net, self.example)
        with torch.no_grad():
            answers = logits(net.eval()(self.example)).shape[1]
        if answers != classes:
            if name not in dict(net.named_modules()) or outputs_of(net.get_submodule(name)) != answers:
                raise SpecError(
                    f"The data have {classes} classes and the network answers with {answers}; {name!r} does not give "
                    "these, so name the head that does (--head)."
                )
            resize_head(net, name, classes, self.recipe.seed)
        return name

    def _read(self, data: Data) -> None:
        preprocessing = preprocessing_of(self.spec)
        ready = data.prepared(preprocessing, self.spec.fps).held()
        grouped = len({case.group for case in ready}) < len(ready)
        parts = (1 - self.recipe.held_out, self.recipe.held_out)
        learned, held = ready.split(parts, by="group" if grouped else "case", seed=self.recipe.seed)
        self.held = [(self._entering(case.array()), int(case.label or 0)) for case in held]
        length = self.length
        if self.recipe.regime == "stream":
            self.form = self._form(self.net)
            length = max(self.recipe.frames or 2 * self.length, self.form.valid_from + 1)
        self.batches = Batches(
            learned, length, self.recipe.batch, self.recipe.seed, preprocessing=preprocessing,
            time_dim=self.spec.time_dim,
        )  # fmt: skip
        shape = tuple(self.batches(0)[0].shape[1:])
        wanted = list(self.example.shape[1:])
        wanted[self.spec.time_dim - 1] = length
        if shape != tuple(wanted):
            raise DataError(f"The recordings give clips of {shape}, where the network takes {tuple(wanted)}.")

    def _entering(self, frames: np.ndarray[Any, Any]) -> Tensor:
        """A whole case as the network takes it; led by copies of its first frame if it is shorter than a clip."""
        missing = max(0, self.length - len(frames))
        frames = np.concatenate([np.repeat(frames[:1], missing, 0), frames])
        return torch.from_numpy(clip_of(frames, preprocessing_of(self.spec), self.spec.time_dim))[None]

    def _form(self, net: nn.Module) -> StreamForm:
        spec = self.spec
        how: dict[str, Any] = {"window": spec.window, "exact": spec.exact, "start": spec.start}
        return StreamForm(net, self.example.to(self.device), time_dim=spec.time_dim, **how)

    # -- learning ----------------------------------------------------------------------------------------------

    def _target(self) -> nn.Module:
        return _Streamed(self.form) if self.recipe.regime == "stream" else _Clips(self.net)

    def _objective(self) -> Objective:
        share = self.recipe.distill
        teacher = self._teacher() if share else None

        def objective(target: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
            answers = target(inputs)
            loss = F.cross_entropy(answers.flatten(0, 1), labels.repeat_interleave(answers.shape[1]))
            if teacher is None:
                return loss
            with torch.no_grad():
                wanted = F.log_softmax(teacher(inputs).flatten(0, 1) / 2, -1)
            given = F.log_softmax(answers.flatten(0, 1) / 2, -1)
            return (1 - share) * loss + share * 4 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)

        return objective

    def _teacher(self) -> nn.Module:
        """The base network itself, of all its channels."""
        base = copy.deepcopy(self.base).to(self.device).requires_grad_(False)
        with torch.no_grad():
            classes = logits(base(self.example.to(self.device))).shape[1]
        if classes != len(self.data.labels):
            raise SpecError(
                f"The base tells {classes} classes apart and the task has {len(self.data.labels)}; "
                "only a base with the task's classes can be learned from, so leave distill out."
            )
        return _Streamed(self._form(base)) if self.recipe.regime == "stream" else _Clips(base).eval()

    def _options(self) -> Any:
        def validate(target: nn.Module) -> float:
            if self.recipe.regime == "clip":
                return clip_accuracy(self.net, self.held, self.length, self.spec.time_dim)
            least = self.form.valid_from + 1
            return step_accuracy(target, self.held, least, self.spec.time_dim)[0]

        return self.recipe.options(validate=validate, mode=self._mode)

    def _mode(self, target: nn.Module) -> None:
        """Training, but for norms that stay the base's."""
        target.train()
        if not self.task.spec.norms:
            for module in target.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    # -- measuring ---------------------------------------------------------------------------------------------

    def accuracy(self) -> Accuracy:
        """Of the network as it is, on the held-out cases."""
        net = copy.deepcopy(self.net).cpu().eval()
        fuse(net)
        spec = self.spec
        program = convert(
            net, self.example, time_dim=spec.time_dim, window=spec.window, exact=spec.exact, start=spec.start
        )

        def stepped(recording: Tensor) -> Tensor:
            program.clean_state()
            return _answers(program.forward_steps(recording), program.answers[0].stack_dim)

        clip = clip_accuracy(net, self.held, self.length, spec.time_dim)
        return Accuracy(clip, *step_accuracy(stepped, self.held, program.valid_from + 1, spec.time_dim))


Held = Sequence[tuple[Tensor, int]]
"""Whole cases (1, …) as the network takes them, and their classes."""


@torch.no_grad()
def clip_accuracy(net: nn.Module, held: Held, length: int, time_dim: int) -> float:
    """Share of cases of which a clip network tells the last clip rightly."""
    device = next(net.parameters()).device
    last = [case.narrow(time_dim, case.shape[time_dim] - length, length) for case, _ in held]
    told = torch.cat([logits(net(clips.to(device))).argmax(1).cpu() for clips in torch.cat(last).split(16)])
    return float((told == torch.tensor([label for _, label in held])).float().mean())


@torch.no_grad()
def step_accuracy(stream: Callable[[Tensor], Tensor], held: Held, least: int, time_dim: int) -> tuple[float, float]:
    """Shares of right answers of a stream, (rows, answers, classes): of the cases' last ones, and of all.

    Args:
        least: frames without which it gives no answer; shorter cases are led by copies of their first frame.
    """
    device = next((p.device for p in stream.parameters()), None) if isinstance(stream, nn.Module) else None
    last = right = answers = 0
    for case, label in held:
        told = stream(_led(case, least, time_dim).to(device or case.device))[0].argmax(1)
        last += int(told[-1]) == label
        right += int((told == label).sum())
        answers += len(told)
    return last / len(held), right / answers


def _led(case: Tensor, least: int, time_dim: int) -> Tensor:
    """A case led by copies of its first frame, where it is too short for an answer."""
    missing = least - case.shape[time_dim]
    if missing <= 0:
        return case
    first = case.narrow(time_dim, 0, 1)
    return torch.cat([first.expand(*(missing if i == time_dim else -1 for i in range(case.ndim))), case], time_dim)


def _answers(given: Any, stack_dim: int) -> Tensor:
    """(rows, answers, classes) of what a stream gave: of its first answer, if it has several."""
    first = given if isinstance(given, Tensor) else next(iter(given.values() if isinstance(given, dict) else given))
    return first.movedim(stack_dim, 1).flatten(2)


class _Clips(nn.Module):
    """A clip network as (rows, 1, classes)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.network = net

    def forward(self, clips: Tensor) -> Tensor:
        return logits(self.network(clips)).unsqueeze(1)


class _Streamed(nn.Module):
    """A stream as (rows, answers, classes)."""

    def __init__(self, form: StreamForm) -> None:
        super().__init__()
        self.form = form

    def forward(self, recordings: Tensor) -> Tensor:
        return _answers(self.form(recordings), self.form.answers[0].stack_dim)


def _layers(pack: TaskPack, net: nn.Module) -> list[tuple[str, list[int], str, int, int]]:
    """Per adapted weight: its shape, the form of its adapters, numbers they have, numbers it has."""
    from edgeco.adapters.naming import base_state

    state, found = base_state(net), []
    for name, chain in pack.info.adapters.items():
        own = sum(t.numel() for key, t in pack.tensors.items() if key.startswith(f"adapter/{name}/"))
        forms = " + ".join(info.form for info in chain)
        found.append((name, list(state[name].shape), forms, own, state[name].numel()))
    return found
