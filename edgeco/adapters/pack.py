"""Task packs: all that a task adds to a shared base network, in one safetensors file.

Tensors are ``adapter/<weight>/<n>/<tensor>`` (a, b, d, p), ``prototypes/<tensor>`` (the blocks that all adapters of a
network mix) and ``value/<name>`` (norms and their statistics, biases, the head); names are the base's own. What they
mean is JSON in the file's metadata (`PackInfo`), with the hash of the base, on which alone a pack is applied.
`docs/adapters.md` has the format.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgeco.adapters.attach import adapted_weights, detach, fuse, put
from edgeco.adapters.choose import Weight, all_weights, deltas
from edgeco.adapters.delta import Blocks, Delta, Direct, LowRank, Prototypes
from edgeco.adapters.head import outputs_of, resize_head
from edgeco.adapters.naming import state_hash
from edgeco.adapters.plans import mask_bits, plan_of_base, pruned
from edgeco.adapters.spec import AdapterSpec
from edgeco.adapters.task import Group, Learned, Task, task_of
from edgeco.errors import EdgecoError, PackError
from edgeco.files import replace_file
from edgeco.prune.plan import PruningPlan

FORMAT = 1
_KEY = "edgeco.pack"


class AdapterInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One adapter of a weight: its form, what it is multiplied by, and into how many matrices its weight is divided."""

    form: str
    scale: float
    parts: int = 1


class HeadInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The layer that is the task's own as a whole."""

    name: str
    outputs: int


class PackInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a pack's tensors mean.

    Attributes:
        format: `FORMAT`.
        base: sha256 of the base network, see `edgeco.adapters.naming.state_hash`.
        adapters: per weight of the base its adapters, in the order in which they are added.
        values: per tensor that the task has of its own, what it is.
        plan: what of the base's channels is kept, as `edgeco.prune` writes it; None for all.
        labels: names of the task's classes.
        notes: where it comes from; informative.
    """

    format: int
    base: str
    name: str = "task"
    spec: AdapterSpec
    adapters: dict[str, tuple[AdapterInfo, ...]]
    values: dict[str, Group]
    head: HeadInfo | None = None
    plan: dict[str, Any] | None = None
    labels: tuple[str, ...] | None = None
    notes: dict[str, Any] = {}


@dataclass(frozen=True)
class TaskPack:
    """What a task adds to a base: its description and its tensors."""

    info: PackInfo
    tensors: dict[str, Tensor]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pack; a reader finds the whole file or the one before it.

        Raises:
            WriteError: the file cannot be written.
        """
        text = msgspec.json.encode(self.info, order="deterministic").decode()
        held = {name: value.detach().cpu().contiguous() for name, value in sorted(self.tensors.items())}
        with replace_file(path) as handle:
            handle.write(save(held, metadata={_KEY: text}))

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def apply(self, base: nn.Module, *, share: bool = False) -> nn.Module:
        """The adapted network; the base stays as it is.

        Args:
            base: the network that the pack was made for, with its weights.
            share: whether what the task does not have of its own is the base's tensor, not a copy of it, so that many
                tasks in memory cost little more than one. It must then not be changed in place. Not with a plan.

        Raises:
            PackError: the pack was made for another base, or does not fit it.
        """
        self._check_base(base)
        held = {id(t): t for t in (*base.parameters(), *base.buffers())} if share and self.info.plan is None else {}
        net = copy.deepcopy(base, dict(held))
        if self.info.plan is not None:
            net = pruned(net, self.info.plan)
        self._put_on(net)
        return net

    def fuse(self, base: nn.Module) -> nn.Module:
        """The task's ordinary network: adapted, its adapters folded into the weights."""
        net = self.apply(base)
        fuse(net)
        return net

    def swap(self, net: nn.Module, base: nn.Module) -> None:
        """Make a network that serves another task of the same base, and of the same channels, serve this one; in place.

        Raises:
            PackError: it does not fit.
        """
        self._check_base(base)
        if self.info.plan is not None:
            base = pruned(copy.deepcopy(base), self.info.plan)
        detach(net)
        _restore(net, base)
        self._put_on(net)

    def task(self, net: nn.Module) -> Task:
        """What the task adds to a network that it was applied to: to train on, or to count."""
        return task_of(net, self.info.spec, self.info.head.name if self.info.head else None)

    def count(self, net: nn.Module) -> Learned:
        """What the task learned and stores, mask bits of its plan included."""
        return self.task(net).count(net, mask_bits(self.info.plan))

    def _check_base(self, base: nn.Module) -> None:
        if next(iter(adapted_weights(base)), None) is not None:
            raise PackError("The base has adapters already; apply a pack to the plain base, or swap.")
        found = state_hash(base.state_dict())
        if found != self.info.base:
            raise PackError(
                f"The task pack {self.info.name!r} was made for another base (its hash begins with "
                f"{self.info.base[:12]}, this network's with {found[:12]}); give the weights it was trained on."
            )

    def _put_on(self, net: nn.Module) -> None:
        head = self.info.head
        try:
            if head is not None:
                resize_head(net, head.name, head.outputs)
        except (AttributeError, EdgecoError) as error:
            raise PackError(f"The task pack's head {head and head.name!r} does not fit the base: {error}") from error
        self._put_values(net)
        weights = {w.name: w for w in all_weights(net)}
        made = _Adapters(self)
        placed: set[tuple[int, str]] = set()
        for name, chain in self.info.adapters.items():
            weight = weights.get(name)
            if weight is None:
                raise PackError(f"The task pack adapts {name!r}, which the base has not.")
            if (id(weight.owner), weight.attribute) not in placed:
                placed.add((id(weight.owner), weight.attribute))
                put(weight, [made.delta(weight, number, info) for number, info in enumerate(chain)])

    def _put_values(self, net: nn.Module) -> None:
        state = net.state_dict()
        for name in self.info.values:
            value = self.tensors[f"value/{name}"]
            if name not in state:
                raise PackError(f"The task pack holds {name!r}, which the base has not.")
            _check_like(name, value, state[name])
            _set(net, name, value)


class _Adapters:
    """Makes a pack's adapters; tied weights, and those that mix the same prototypes, get them once."""

    def __init__(self, pack: TaskPack) -> None:
        self._tensors = pack.tensors
        self._made: dict[tuple[int, int], Delta] = {}
        self._prototypes: Prototypes | None = None

    def delta(self, weight: Weight, number: int, info: AdapterInfo) -> Delta:
        key = (id(weight.tensor), number)
        if key not in self._made:
            self._made[key] = self._make(weight, f"adapter/{weight.name}/{number}/", info)
        return self._made[key]

    def _make(self, weight: Weight, prefix: str, info: AdapterInfo) -> Delta:
        own = {key.removeprefix(prefix): t for key, t in self._tensors.items() if key.startswith(prefix)}
        like = weight.tensor
        try:
            made = self._shaped(like, own, info)
        except (IndexError, RuntimeError, ValueError) as error:
            raise PackError(f"The adapter of {weight.name!r} in the task pack does not fit the base.") from error
        for name, parameter in made.named_parameters(recurse=False):
            _check_like(f"{prefix}{name}", own[name], parameter)
            with torch.no_grad():
                parameter.copy_(own[name])
        return made

    def _shaped(self, like: Tensor, own: dict[str, Tensor], info: AdapterInfo) -> Delta:
        if info.form == "low-rank":
            span = [size > 1 for size in own["a"].shape[2:]]
            return LowRank(like, own["b"].shape[1], span, info.scale, info.parts)
        if info.form == "direct":
            return Direct(like, [size > 1 for size in own["d"].shape[2:]], info.scale)
        if self._prototypes is None:
            a, b = self._tensors["prototypes/a"], self._tensors["prototypes/b"]
            self._prototypes = Prototypes(b.shape[0], (b.shape[1], a.shape[2]), b.shape[2], like)
            for name, parameter in self._prototypes.named_parameters():
                _check_like(f"prototypes/{name}", self._tensors[f"prototypes/{name}"], parameter)
                with torch.no_grad():
                    parameter.copy_(self._tensors[f"prototypes/{name}"])
        return Blocks(like, self._prototypes, info.scale)


_FORMS: dict[type[Delta], str] = {LowRank: "low-rank", Direct: "direct", Blocks: "blocks"}
_TENSORS = {"low-rank": ("a", "b"), "direct": ("d",), "blocks": ("p",)}


def make_pack(
    net: nn.Module,
    task: Task,
    base: nn.Module,
    *,
    name: str = "task",
    labels: tuple[str, ...] | None = None,
    plan: PruningPlan | None = None,
    notes: dict[str, Any] | None = None,
) -> TaskPack:
    """The pack of a trained task, proved: applied to the base it gives the network, bit for bit.

    Args:
        net: the adapted network.
        task: what `attach` returned for it.
        base: the base as it was before, channels that the task does not keep included.
        plan: the pruning of the adapted network from its first state on, if it was pruned.

    Raises:
        PackError: the network differs from the base in more than the task may change.
    """
    adapters: dict[str, tuple[AdapterInfo, ...]] = {}
    tensors: dict[str, Tensor] = {}
    for weight in all_weights(net):
        chain = deltas(weight.owner, weight.attribute)
        for number, delta in enumerate(chain):
            own = {f"adapter/{weight.name}/{number}/{k}": v for k, v in delta.named_parameters(recurse=False)}
            tensors |= own
            if isinstance(delta, Blocks):
                tensors |= {f"prototypes/{k}": v for k, v in delta.prototypes.named_parameters()}
        if chain:
            adapters[weight.name] = tuple(
                AdapterInfo(form=_FORMS[type(d)], scale=d.scale, parts=getattr(d, "parts", 1)) for d in chain
            )
    state = net.state_dict()
    tensors |= {f"value/{key}": state[key] for key in task.values}
    head = None
    if task.head is not None:
        head = HeadInfo(name=task.head, outputs=outputs_of(net.get_submodule(task.head)))
    kept = None if plan is None else msgspec.to_builtins(plan_of_base(plan, base))
    info = PackInfo(
        format=FORMAT, base=state_hash(base.state_dict()), name=name, spec=task.spec, adapters=adapters,
        values=task.values, head=head, plan=kept, labels=labels, notes=notes or {},
    )  # fmt: skip
    pack = TaskPack(info, {key: value.detach().cpu().clone() for key, value in tensors.items()})
    _prove(pack, net, base)
    return pack


def _prove(pack: TaskPack, net: nn.Module, base: nn.Module) -> None:
    given, made = net.state_dict(), pack.apply(base).state_dict()
    for name in sorted(set(given) | set(made)):
        if name.endswith("num_batches_tracked"):
            continue
        if name not in given or name not in made or not _same(given[name], made[name]):
            raise PackError(
                f"{name!r} differs from the base, but is not the task's own, so that the pack would lose it; "
                "freeze what the task does not learn (Task.freeze), or make it the task's own."
            )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))


def _bits(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8)


def read_pack(path: str | os.PathLike[str]) -> TaskPack:
    """Read a pack, strictly; no code of it is run.

    Raises:
        PackError: the file is missing, is no task pack, or holds more or less than it says.
    """
    where = Path(path)
    if not where.is_file():
        raise PackError(f"There is no task pack {where}; 'edgeco adapt' writes one.")
    try:
        with safe_open(where, framework="pt") as opened:
            text = (opened.metadata() or {}).get(_KEY)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise PackError(f"{where} is damaged or is no safetensors file ({error}).") from error
    if text is None:
        raise PackError(f"{where} is a safetensors file, but no task pack; weights are given with --weights.")
    try:
        info = msgspec.json.decode(text, type=PackInfo)
    except (msgspec.DecodeError, EdgecoError) as error:
        newer = '"format":' in text and f'"format":{FORMAT}' not in text.replace(" ", "")
        more = "; it may be of a newer edgeco" if newer else ""
        raise PackError(f"{where} is no task pack that this edgeco reads ({error}){more}.") from error
    _check_contents(where, info, tensors)
    return TaskPack(info, tensors)


def _check_contents(path: Path, info: PackInfo, tensors: dict[str, Tensor]) -> None:
    if info.format != FORMAT:
        raise PackError(f"{path} is a task pack of format {info.format}; this edgeco reads {FORMAT}.")
    expected = {f"value/{name}" for name in info.values}
    for name, chain in info.adapters.items():
        for number, adapter in enumerate(chain):
            if adapter.form not in _TENSORS or adapter.parts < 1:
                raise PackError(f"{path} has an adapter of the unknown form {adapter.form!r}.")
            expected |= {f"adapter/{name}/{number}/{key}" for key in _TENSORS[adapter.form]}
            if adapter.form == "blocks":
                expected |= {"prototypes/a", "prototypes/b"}
    for what, names in (("lacks", expected - set(tensors)), ("holds the unknown tensor", set(tensors) - expected)):
        if names:
            raise PackError(f"{path} is not a whole task pack: it {what} {sorted(names)[0]!r}.")


def _check_like(name: str, value: Tensor, like: Tensor) -> None:
    if value.shape != like.shape or value.dtype != like.dtype:
        raise PackError(
            f"{name!r} is {tuple(value.shape)} of {value.dtype} in the task pack, and {tuple(like.shape)} of "
            f"{like.dtype} in the network."
        )


def _set(net: nn.Module, name: str, value: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer, which itself stays as it is."""
    owner_name, _, attribute = name.rpartition(".")
    owner = net.get_submodule(owner_name)
    before = getattr(owner, attribute)
    made = value.detach().clone().to(before.device)
    setattr(owner, attribute, nn.Parameter(made, before.requires_grad) if isinstance(before, nn.Parameter) else made)


def _restore(net: nn.Module, base: nn.Module) -> None:
    """The base's own numbers, and head, in a network without adapters."""
    theirs, own = base.state_dict(), net.state_dict()
    if set(own) != set(theirs):
        raise PackError("The network is not one of the same base; apply the pack to the base instead.")
    for name, value in theirs.items():
        if name.endswith("num_batches_tracked") or _same(own[name], value):
            continue
        _set(net, name, value)
    for name, module in base.named_modules():
        for attribute in ("out_features", "out_channels"):
            if hasattr(module, attribute):
                setattr(net.get_submodule(name), attribute, getattr(module, attribute))


def fused_network(net: nn.Module, path: str | os.PathLike[str]) -> tuple[nn.Module, TaskPack]:
    """A base with a task pack folded into its weights, for the build; and the pack."""
    pack = read_pack(path)
    return pack.fuse(net), pack


__all__ = ["PackInfo", "TaskPack", "fused_network", "make_pack", "read_pack"]
