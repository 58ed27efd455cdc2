"""Adapters on every kind of layer: nothing changes when they come, nothing is lost when they go."""

from __future__ import annotations

import copy

import pytest
import torch
from adapted_nets import LAYERS, Mixed, learn
from streaming import randomise_norms, relative
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.adapters import AdapterSpec, Delta, adapted_weights, attach, base_state, detach, fuse, merge, unmerge
from edgeco.adapters.spec import LEARNED, Kind, make_adapter_spec
from edgeco.errors import SpecError

FOR_ALL: tuple[Kind, ...] = ("low-rank", "splora", "sppara", "axis", "full")


def given(name: str) -> tuple[nn.Module, Tensor]:
    layer, shape = LAYERS[name]
    return copy.deepcopy(layer), torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def kinds_of(name: str) -> tuple[Kind, ...]:
    return (*FOR_ALL, *(["taps"] if name in ("depthwise", "multiplied") else []), *(["splopa"] * (name == "linear")))  # type: ignore[return-value]


CASES = [(name, kind) for name in LAYERS for kind in kinds_of(name)]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_attaching_changes_no_bit_and_fusing_no_answer(name: str, kind: Kind) -> None:
    net, x = given(name)
    before, plain = net(x), copy.deepcopy(net.state_dict())
    attach(net, AdapterSpec(kind=kind, rank=2, alpha=3, blocks=(3, 2), prototypes=4))
    assert torch.equal(net(x), before)
    learn(net)
    adapted = net(x)
    assert relative(adapted, before) > 1e-3
    merge(net)
    with torch.no_grad():
        assert relative(net(x), adapted) <= 1e-6
    unmerge(net)
    assert torch.equal(net(x), adapted)
    assert all(torch.equal(value, plain[key]) for key, value in base_state(net).items())
    fuse(net)
    assert type(net) is type(LAYERS[name][0]) and set(net.state_dict()) == set(plain)
    assert relative(net(x), adapted) <= 1e-6


@pytest.mark.parametrize("name", ["3x3x3", "9x1", "even", "dilated", "grouped", "reflecting", "linear"])
def test_a_low_rank_adapter_is_two_layers_one_after_the_other(name: str) -> None:
    """The definition, computed apart: A with the layer's own options, then B as a product of channels."""
    net, x = given(name)
    wide = copy.deepcopy(net)
    attach(net, AdapterSpec(rank=2, alpha=6))
    learn(net)
    (delta,) = [m for m in net.modules() if isinstance(m, Delta)]
    a, b = delta.a.detach(), delta.b.detach()
    product = torch.einsum("or,r...->o...", b, a)
    with torch.no_grad():
        wide.weight += 3 * product
    assert relative(net(x), wide(x)) <= 1e-5
    rank = torch.linalg.matrix_rank(product.flatten(1))
    assert int(rank) == 2 and delta.scale == 3
    if isinstance(net, nn.Conv3d) and name == "3x3x3":
        two = F.conv3d(F.conv3d(x, a, padding=1), b[:, :, None, None, None])
        assert relative(net(x) - LAYERS[name][0](x), 3 * two) <= 1e-4


@pytest.mark.parametrize(("kind", "taps"), [("splora", {(1, 1, 1)}), ("sppara", {(1, 1, 1)})])
def test_centre_taps_change_the_centre_alone(kind: Kind, taps: set[tuple[int, ...]]) -> None:
    net, _ = given("3x3x3")
    before = net.weight.detach().clone()
    attach(net, AdapterSpec(kind=kind, rank=2))
    learn(net)
    changed = (net.weight - before).abs().sum((0, 1)) > 0
    assert {tuple(place) for place in changed.nonzero().tolist()} == taps


def test_one_axis_is_the_longest_through_the_centre_of_the_others() -> None:
    net = nn.Conv3d(2, 4, (5, 3, 3))
    before = net.weight.detach().clone()
    attach(net, AdapterSpec(kind="axis", rank=2))
    learn(net)
    changed = (net.weight - before).abs().sum((0, 1)) > 0
    assert changed[:, 1, 1].all() and int(changed.sum()) == 5


def test_taps_of_a_depthwise_kernel_are_per_channel_over_time() -> None:
    net, _ = given("depthwise")
    before = net.weight.detach().clone()
    task = attach(net)
    assert task.count(net).adapters == 4 * 3
    learn(net)
    changed = (net.weight - before).abs() > 0
    assert changed[:, 0, :, 2, 2].all() and int(changed.sum()) == 12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_adapters_take_the_type_of_the_base(dtype: torch.dtype) -> None:
    net = Mixed().to(dtype).eval()
    x = torch.randn(2, 3, 4, 9, 9).to(dtype)
    before = net(x)
    attach(net, AdapterSpec(rank=2), head="head")
    assert torch.equal(net(x), before) and {p.dtype for p in net.parameters()} == {dtype}
    learn(net)
    adapted = net(x)
    net.float()
    assert next(adapted_weights(net)[0].owner.parameters()).dtype == torch.float32
    net.to(dtype)
    fuse(net)
    assert relative(net(x).float(), adapted.float()) <= (2e-2 if dtype == torch.bfloat16 else 1e-14)


def test_adapters_go_where_the_base_is() -> None:
    net = Mixed().to("meta")
    attach(net, AdapterSpec(rank=2))
    assert {p.device.type for p in net.parameters()} == {"meta"}


def test_flags_of_training_are_kept() -> None:
    net = Mixed().train()
    net.norm.eval()
    flags = {name: m.training for name, m in net.named_modules()}
    attach(net)
    assert all(m.training == flags[name] for name, m in net.named_modules() if name in flags)
    assert all(m.training for m in net.modules() if isinstance(m, Delta))
    fuse(net)
    assert {name: m.training for name, m in net.named_modules()} == flags


def test_a_layer_used_twice_has_one_adapter() -> None:
    net = Mixed().eval()
    attach(net, AdapterSpec(rank=2, modules=("twice",)))
    assert len([m for m in net.modules() if isinstance(m, Delta)]) == 1
    learn(net)
    x = torch.randn(2, 3, 4, 9, 9)
    adapted = net(x)
    fuse(net)
    assert relative(net(x), adapted) <= 1e-6


def test_a_module_under_two_names_and_tied_weights_stay_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.third = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second = self.first
            self.third.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.third(self.second(self.first(x).tanh()).tanh())
            return made

    net, x = Tied(), torch.randn(3, 4)
    task = attach(net, AdapterSpec(rank=2))
    assert net.first is net.second
    assert task.count(net).adapters == 2 * (4 + 4)
    learn(net)
    adapted = net(x)
    fuse(net)
    assert net.first is net.second and net.first.weight is net.third.weight
    assert relative(net(x), adapted) <= 1e-6


def test_an_embedding_tied_to_an_adapted_layer_keeps_its_numbers() -> None:
    words, out = nn.Embedding(6, 4), nn.Linear(4, 6)
    out.weight = words.weight
    before = words.weight.detach().clone()
    net = nn.ModuleDict({"words": words, "out": out})
    attach(net, AdapterSpec(rank=2, modules=("out",)))
    learn(net)
    fuse(net)
    assert torch.equal(words.weight, before) and not torch.equal(out.weight, before)


def test_queries_keys_and_values_have_factors_of_their_own() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    task = attach(attention, AdapterSpec(rank=2))
    assert task.adapted == ("in_proj_weight", "out_proj.weight")
    assert task.count(attention).adapters == 4 * 2 * (8 + 8)
    before = attention.in_proj_weight.detach().clone()
    learn(attention)
    change = (attention.in_proj_weight - before).detach()
    assert [int(torch.linalg.matrix_rank(part)) for part in change.chunk(3)] == [2, 2, 2]
    assert int(torch.linalg.matrix_rank(change)) == 6
    for fast in (False, True):
        with torch.set_grad_enabled(not fast):
            adapted = attention.eval()(x, x, x, need_weights=False)[0]
        fused = copy.deepcopy(attention)
        fuse(fused)
        assert relative(fused(x, x, x, need_weights=False)[0], adapted) <= 1e-6


def test_attention_with_keys_of_another_width() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    task = attach(attention, AdapterSpec(rank=2))
    assert set(task.adapted) == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    learn(attention)
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 7, 6), torch.randn(2, 7, 4)
    adapted = attention(q, k, v)[0]
    fuse(attention)
    assert relative(attention(q, k, v)[0], adapted) <= 1e-6


def test_the_base_loads_strictly_before_and_after() -> None:
    net = Mixed()
    base = copy.deepcopy(net.state_dict())
    attach(net, AdapterSpec(rank=2), head="head")
    learn(net)
    own = {name: p.detach().clone() for name, p in net.named_parameters() if ".0." in name}
    other = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in base.items()}
    given_names = set(other)
    net.load_state_dict(other, strict=True)
    assert set(other) == given_names, "the caller's dictionary stays"
    assert all(torch.equal(value, other[key]) for key, value in base_state(net).items())
    assert own and all(torch.equal(p, dict(net.named_parameters())[name]) for name, p in own.items())
    net.load_state_dict(net.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match="Unexpected"):
        net.load_state_dict({**other, "more": torch.zeros(1)}, strict=True)
    with pytest.raises(RuntimeError, match="Missing"):
        net.load_state_dict({k: v for k, v in other.items() if k != "stem.weight"}, strict=True)
    fuse(net)
    net.load_state_dict(base, strict=True)


def test_a_copy_is_a_network_of_its_own() -> None:
    net = Mixed()
    attach(net, AdapterSpec(rank=2))
    other = copy.deepcopy(net)
    learn(other)
    assert not any(m.b.any() for m in net.modules() if isinstance(m, Delta) and hasattr(m, "b"))
    other.load_state_dict(Mixed().state_dict(), strict=True)


def test_adapting_twice_is_refused_or_extends_and_drops_nothing() -> None:
    net = Mixed().eval()
    x = torch.randn(2, 3, 4, 9, 9)
    attach(net, AdapterSpec(rank=2), head="head")
    learn(net)
    learned = net(x)
    with pytest.raises(SpecError, match="adapted already"):
        attach(net, AdapterSpec(rank=2), head="head")
    assert torch.equal(net(x), learned)
    attach(net, AdapterSpec(rank=1, kind="splora"), head="head", extend=True)
    assert relative(net(x), learned) <= 1e-6
    learn(net, seed=5)
    both = net(x)
    merge(net)
    with torch.no_grad():
        assert relative(net(x), both) <= 1e-6
    fuse(net)
    assert relative(net(x), both) <= 1e-6


def test_what_was_merged_is_never_out_of_date() -> None:
    net, x = given("3x3x3")
    attach(net, AdapterSpec(rank=2))
    learn(net)
    merge(net.eval())
    with torch.no_grad():
        before = net(x)
        learn(net, seed=9)
        after = net(x)
    assert relative(after, before) > 1e-2 and relative(net(x), after) <= 1e-6
    merge(net)
    net.double().float()
    with torch.no_grad():
        assert relative(net(x), after) <= 1e-6


def test_gradients_reach_what_is_learned_and_nothing_else() -> None:
    net = Mixed()
    base = copy.deepcopy(net.state_dict())
    task = attach(net, AdapterSpec(rank=2), head="head")
    learned = task.freeze(net)
    optimiser = torch.optim.SGD(learned, lr=0.5, weight_decay=0.1)
    for _ in range(2):  # the first step moves B alone, for it is zero
        optimiser.zero_grad()
        net(torch.randn(4, 3, 4, 9, 9)).square().sum().backward()
        optimiser.step()
    frozen = {"stem.weight", "twice.weight", "depth.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    for name, value in base_state(net).items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, base[name]) == (name in frozen), name
    assert all(p.grad is not None and p.grad.any() for p in learned)


def test_what_cannot_be_adapted_is_said() -> None:
    net = nn.ModuleDict({"memory": nn.LSTM(3, 4), "normed": nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))})
    for pattern, why in ((r"memory", "recurrent"), (r"nothing.*", "No weight is matched"), (r"normed", "parametrised")):
        with pytest.raises(SpecError, match=why):
            attach(net, AdapterSpec(modules=(pattern,)))
    with pytest.raises(SpecError, match="no matrix"):
        attach(nn.Conv1d(2, 2, 3), AdapterSpec(kind="splopa"))
    with pytest.raises(SpecError, match="no layer 'top'"):
        attach(Mixed(), head="top")
    with pytest.raises(SpecError, match="regular expression"):
        AdapterSpec(modules=("(",))
    for rank in (0, -1, 1.5):
        with pytest.raises(SpecError, match="rank"):
            AdapterSpec(rank=rank)
    with pytest.raises(SpecError, match="kind"):
        make_adapter_spec({"kind": "lora"})


def test_a_fraction_of_the_rank_is_at_least_one_and_a_rank_is_never_above_the_weights() -> None:
    net = nn.Linear(16, 8)
    for rank, made in ((0.01, 1), (0.5, 4), (100, 8)):
        copied = copy.deepcopy(net)
        attach(copied, AdapterSpec(rank=rank))
        assert next(m.b.shape[1] for m in copied.modules() if isinstance(m, Delta)) == made


def test_patterns_name_modules_or_weights() -> None:
    net = Mixed()
    for patterns, excluded, found in (
        (("stem",), (), ("stem.weight",)),
        ((r".*\.in_proj_weight",), (), ("attention.in_proj_weight",)),
        ((), (r"attention.*", "head"), ("stem.weight", "twice.weight", "depth.weight")),
    ):
        copied = copy.deepcopy(net)
        assert attach(copied, AdapterSpec(modules=patterns, exclude=excluded)).adapted == found


def test_parameters_that_a_module_uses_by_itself_are_adapted_by_name() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv1d(x, self.kernel)

    net, x = Own(), torch.randn(2, 3, 9)
    attach(net, AdapterSpec(rank=2, modules=("kernel",)))
    learn(net)
    adapted = net(x)
    fuse(net)
    assert relative(net(x), adapted) <= 1e-6


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_parameters_are_counted_exactly(kind: Kind) -> None:
    net = Mixed()
    modules = {"taps": ("depth",), "splopa": ("attention.*",)}.get(kind, ())
    task = attach(net, AdapterSpec(kind=kind, rank=2, modules=modules, blocks=(4, 4), prototypes=6), head="head")
    learned = task.freeze(net)
    counted = task.count(net, mask_bits=20)
    assert counted.parameters == sum(p.numel() for p in learned)
    r = 2
    mha = 4 * r * (8 + 8)
    expected = {
        "low-rank": r * (27 + 8) + r * (24 + 8) + 24 + mha,
        "splora": r * (3 + 8) + r * (8 + 8) + 8 + mha,
        "sppara": 24 + 64 + 8 + 256,
        "axis": r * (27 + 8) + r * (24 + 8) + 24 + mha,
        "taps": 24,
        "full": 216 + 192 + 216 + 256,
        "splopa": 6 * 6 * 2 + 6 * 2 * 2 + 6 * 2 * (4 + 4),
    }
    assert counted.adapters == expected[kind]
    assert counted.norms == 16 + 16 and counted.statistics == 16 and counted.head == 27
    assert counted.bytes == 4 * (counted.parameters + counted.statistics) + 3


def test_detaching_gives_the_base_back() -> None:
    net = Mixed()
    base = copy.deepcopy(net.state_dict())
    attach(net)
    learn(net)
    detach(net)
    assert type(net.stem) is nn.Conv3d
    assert all(torch.equal(value, base[name]) for name, value in net.state_dict().items())


def test_fusing_then_folding_is_the_adapted_network_and_the_wrong_order_is_not() -> None:
    """Norms belong to W': folded into W first, an adapter that is not scaled along changes another function."""
    net = randomise_norms(nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8))).double().eval()
    x = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64)
    attach(net, AdapterSpec(rank=2))
    learn(net)
    adapted = net(x)
    right, wrong = copy.deepcopy(net), copy.deepcopy(net)
    fuse(right)
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(right[0], right[1])
    assert relative(folded(x), adapted) <= 1e-13
    change = (wrong[0].weight - wrong[0].parametrizations.weight.original).detach()
    detach(wrong)
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(wrong[0], wrong[1])
    with torch.no_grad():
        folded.weight += change
    assert relative(folded(x), adapted) > 0.05


def test_an_adapted_network_converts_exports_and_is_traced_as_it_is() -> None:
    import edgeco

    net = randomise_norms(Mixed()).double().eval()
    attach(net, AdapterSpec(rank=2), head="head")
    learn(net)
    clip = torch.randn(2, 3, 4, 9, 9, dtype=torch.float64)
    program = edgeco.convert(net, clip, exact="clip")
    plain = copy.deepcopy(net)
    fuse(plain)
    assert relative(program.forward_steps(clip)[:, -1], plain(clip)) <= 1e-12
    exported = torch.export.export(net, (clip,)).module()
    assert relative(exported(clip), net(clip)) <= 1e-12
