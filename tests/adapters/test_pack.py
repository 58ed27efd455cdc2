"""Task packs: what a task adds to a base, written, read back and put on it, to the bit; nothing else is taken."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path

import pytest
import torch
from adapted_nets import Mixed, learn
from safetensors.torch import load_file, save_file
from streaming import randomise_norms, relative
from torch import nn

from edgeco.adapters import AdapterSpec, attach, fuse
from edgeco.adapters.head import resize_head
from edgeco.adapters.pack import TaskPack, make_pack, read_pack
from edgeco.adapters.spec import LEARNED, Kind
from edgeco.adapters.task import Task
from edgeco.errors import PackError, SpecError

X = torch.randn(2, 3, 4, 9, 9, generator=torch.Generator().manual_seed(1))


def a_base(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomise_norms(Mixed(), seed).eval()


def trained(base: nn.Module, kind: Kind = "low-rank", seed: int = 1, classes: int = 3) -> tuple[nn.Module, Task]:
    """A network as training leaves it: adapters, norms and their statistics, biases and head are its own."""
    net = copy.deepcopy(base)
    resize_head(net, "head", classes)
    modules = {"taps": ("depth",), "splopa": ("attention.*",)}.get(kind, ())
    spec = AdapterSpec(kind=kind, rank=2, alpha=3, modules=modules, blocks=(3, 4), prototypes=5)
    task = attach(net, spec, head="head")
    learn(net, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        state = net.state_dict()
        for name in task.values:
            state[name] += torch.rand(state[name].shape, generator=generator)
    return net, task


@pytest.mark.parametrize("kind", [*LEARNED, "none"])
def test_a_pack_comes_back_from_its_file_as_it_was(tmp_path: Path, kind: Kind) -> None:
    base = a_base()
    net, task = trained(base, kind, classes=5)
    pack = make_pack(net, task, base, name="other", labels=("a", "b", "c", "d", "e"))
    pack.save(tmp_path / "task.safetensors")
    read = read_pack(tmp_path / "task.safetensors")
    assert read.info == pack.info and read.tensors.keys() == pack.tensors.keys()
    before = copy.deepcopy(base.state_dict())
    applied = read.apply(base)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items()), "the base stays"
    assert set(applied.state_dict()) == set(net.state_dict())
    assert torch.equal(applied(X), net(X)) and net(X).shape == (2, 5)
    assert read.task(applied).values == task.values and read.task(applied).adapted == task.adapted
    counted = read.count(applied)
    assert counted == task.count(net) and counted.bytes == pack.bytes
    fused, own = read.fuse(base), copy.deepcopy(net)
    fuse(own)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in fused.state_dict().items())
    assert relative(fused(X), net(X)) <= 1e-6 and fused.head.out_features == 5


def test_many_tasks_share_one_base(tmp_path: Path) -> None:
    base = a_base()
    made = [trained(base, kind, seed, 2 + seed) for seed, kind in enumerate(("low-rank", "splora", "full"))]
    packs = [make_pack(net, task, base) for net, task in made]
    shared = [pack.apply(base, share=True) for pack in packs]
    for (net, _), other in zip(made, shared, strict=True):
        assert torch.equal(other(X), net(X))
        assert other.stem.parametrizations.weight.original is base.stem.weight
        assert other.norm.weight is not base.norm.weight
    served = packs[0].apply(base)
    for number in (1, 2, 0):
        packs[number].swap(served, base)
        assert torch.equal(served(X), made[number][0](X)), "nothing of the task before is left"
    fuse(shared[0])
    assert torch.equal(shared[1](X), made[1][0](X)), "fusing one leaves the others"


def test_a_pack_without_norms_or_biases_leaves_the_base_its_own() -> None:
    base = a_base()
    net = copy.deepcopy(base)
    task = attach(net, AdapterSpec(rank=1, norms=False, biases=False), head="head")
    learn(net)
    pack = make_pack(net, task, base)
    assert set(pack.info.values) == {"head.weight", "head.bias"}
    assert torch.equal(pack.apply(base)(X), net(X))
    full = make_pack(*trained(base), base)
    served = full.apply(base)
    pack.swap(served, base)
    assert torch.equal(served(X), net(X)), "what the last task had of its own is the base's again"


def test_what_a_pack_would_lose_is_refused() -> None:
    base = a_base()
    net, task = trained(base)
    with torch.no_grad():
        net.stem.parametrizations.weight.original[0] += 1
    with pytest.raises(PackError, match=r"stem.*differs from the base"):
        make_pack(net, task, base)


def test_another_base_is_refused() -> None:
    base = a_base()
    net, task = trained(base)
    pack = make_pack(net, task, base)
    for other in (a_base(1), copy.deepcopy(base).double(), Mixed(4)):
        with pytest.raises(PackError, match="another base"):
            pack.apply(other)
        with pytest.raises(PackError, match="another base"):
            pack.swap(net, other)
    with pytest.raises(PackError, match="adapters already"):
        pack.apply(net)


def rewritten(path: Path, change: dict[str, object] | None = None, drop: str = "", add: str = "") -> Path:
    """The same file with a field of its description, or a tensor, changed."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    info = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["edgeco.pack"])
    info.update(change or {})
    tensors = {name: t for name, t in load_file(path).items() if name != drop}
    if add:
        tensors[add] = torch.zeros(3)
    out = path.with_name("changed.safetensors")
    save_file(tensors, out, {"edgeco.pack": json.dumps(info)})
    return out


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    base = a_base()
    path = tmp_path_factory.mktemp("packs") / "task.safetensors"
    make_pack(*trained(base), base).save(path)
    return path, base


@pytest.mark.parametrize(
    ("change", "drop", "add", "why"),
    [
        ({"format": 2}, "", "", "format 2"),
        ({"more": 1}, "", "", "no task pack that this edgeco reads"),
        ({"spec": {"kind": "lora"}}, "", "", "no task pack that this edgeco reads"),
        ({}, "value/norm.weight", "", "lacks 'value/norm.weight'"),
        ({}, "adapter/stem.weight/0/a", "", "lacks 'adapter/stem.weight/0/a'"),
        ({}, "", "surplus", "unknown tensor 'surplus'"),
        ({"adapters": {"stem.weight": [{"form": "code", "scale": 1.0}]}}, "", "", "unknown form"),
    ],
)
def test_a_damaged_pack_is_refused(
    written: tuple[Path, nn.Module], change: dict[str, object], drop: str, add: str, why: str
) -> None:
    with pytest.raises(PackError, match=why):
        read_pack(rewritten(written[0], change, drop, add))


def test_a_file_that_is_no_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="no task pack"):
        read_pack(tmp_path / "missing")
    (tmp_path / "text").write_text("no")
    with pytest.raises(PackError, match="no safetensors file"):
        read_pack(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(PackError, match="no task pack"):
        read_pack(tmp_path / "weights.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle")
    with pytest.raises(PackError, match="no safetensors file"):
        read_pack(tmp_path / "pickle")


@pytest.mark.parametrize(
    "name", ["adapter/stem.weight/0/a", "adapter/attention.in_proj_weight/0/b", "value/head.weight"]
)
def test_tensors_of_another_shape_or_type_are_refused(written: tuple[Path, nn.Module], name: str) -> None:
    path, base = written
    pack = read_pack(path)
    for other in (pack.tensors[name][:-1], pack.tensors[name].double(), pack.tensors[name].flatten()):
        with pytest.raises(PackError):
            TaskPack(pack.info, {**pack.tensors, name: other}).apply(base)


def test_heads_are_linear_layers_or_convolutions() -> None:
    net = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    resize_head(net, "0", 6)
    assert net[0].out_channels == 6 and net[0](torch.randn(1, 3, 2, 2, 2)).shape[1] == 6
    with pytest.raises(SpecError, match="BatchNorm3d"):
        resize_head(net, "1", 6)
