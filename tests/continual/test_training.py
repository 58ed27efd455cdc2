"""The streamed form of a network: the answers of all steps at once, and the gradients of the steps themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from rated_nets import NETS
from small_nets import Functional, PaddedPair, SharedWeights
from streaming import randomise_norms, relative
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import edgeco
from edgeco.adapters import Delta, attach
from edgeco.continual.training import StreamForm
from edgeco.errors import ConversionError, SpecError


class X3DLike(nn.Module):
    """The stem and a block of X3D: a temporal depthwise stem, expansion, 3x3x3 depthwise, excitation, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.space = nn.Conv3d(3, 6, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.time = nn.Conv3d(6, 6, (5, 1, 1), padding=(2, 0, 0), groups=6, bias=False)
        self.norm = nn.BatchNorm3d(6)
        self.expand = nn.Sequential(nn.Conv3d(6, 10, 1, bias=False), nn.BatchNorm3d(10), nn.ReLU())
        self.depth = nn.Sequential(nn.Conv3d(10, 10, 3, padding=1, groups=10, bias=False), nn.BatchNorm3d(10))
        self.excite = nn.Sequential(nn.Conv2d(10, 4, 1), nn.ReLU(), nn.Conv2d(4, 10, 1), nn.Sigmoid())
        self.project = nn.Sequential(nn.Conv3d(10, 6, 1, bias=False), nn.BatchNorm3d(6))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.time(self.space(x))).relu()
        y = self.depth(self.expand(x))
        b, c, t, h, w = y.shape
        frames = y.transpose(1, 2).reshape(b * t, c, h, w)
        y = (frames * self.excite(frames.mean((2, 3), keepdim=True))).reshape(b, t, c, h, w).transpose(1, 2)
        made: Tensor = self.head((x + self.project(nn.functional.silu(y))).relu().mean((2, 3, 4)))
        return made


class STGCNLike(nn.Module):
    """Two blocks of ST-GCN: a graph convolution with a learned mask, a convolution over time, a shortcut in time."""

    def __init__(self) -> None:
        super().__init__()
        self.adjacency = nn.Parameter(torch.rand(3, 5, 5))
        self.register_buffer("skeleton", torch.rand(3, 5, 5))
        self.channels = nn.ModuleList([nn.Conv2d(2, 12, 1), nn.Conv2d(4, 12, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.times = nn.ModuleList([nn.Conv2d(4, 4, (9, 1), padding=(4, 0)), nn.Conv2d(4, 4, (9, 1))])
        self.head = nn.Conv1d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, t, v, m = x.shape
        x = x.permute(0, 4, 1, 2, 3).reshape(n * m, 2, t, v)
        for i in range(2):
            y = self.channels[i](x)
            y = y.reshape(n * m, 3, 4, y.shape[2], v)
            y = torch.einsum("nkctv,kvw->nctw", y, self.skeleton * self.adjacency)
            y = self.times[i](self.norms[i](y).relu())
            x = (y if i == 0 else y + x[:, :, 4:-4]).relu()
        x = x.reshape(n, m, 4, x.shape[2], v).mean((1, 4))
        made: Tensor = self.head(x).mean(2)
        return made


class Attending(nn.Module):
    """An encoder over time of which the newest token answers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.place = edgeco.RecyclingPositionalEncoding(8, size=11)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.layer(self.place(self.embed(x)))[:, -1])
        return made


class Recurrent(nn.Module):
    """Two layers of a GRU behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru, self.head = nn.Conv1d(3, 4, 3), nn.GRU(4, 5, 2, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.gru(self.conv(x).transpose(1, 2))[0])
        return made


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(4, 4, 3, padding=1), nn.MaxPool1d(2),
        nn.Conv1d(4, 2, 3),
    )  # fmt: skip


def replicated() -> nn.Module:
    padded = {"padding": 1, "padding_mode": "replicate"}
    return nn.Sequential(nn.Conv1d(3, 4, 3, **padded), nn.Tanh(), nn.Conv1d(4, 4, 3, **padded))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "x3d": (X3DLike, (3, 8, 10, 10), 2),
    "st-gcn": (STGCNLike, (2, 20, 5, 2), 2),
    "attention": (Attending, (6, 3), 1),
    "recurrent": (Recurrent, (3, 8), 2),
    "strided": (strided, (3, 24), 2),
    "replicated": (replicated, (3, 12), 2),
    "functional": (Functional, (3, 8, 5, 5), 2),
    "shared": (SharedWeights, (3, 8), 2),
    "two borders": (PaddedPair, (2, 8, 5, 5), 2),
    **{name: (make, clip, 2) for name, (make, clip, _) in NETS.items()},
}


def made(name: str, start: str = "zeros", dtype: torch.dtype = torch.float64) -> tuple[StreamForm, Tensor]:
    """The form, and a recording of more than five receptive fields."""
    torch.manual_seed(0)
    make, clip, time_dim = NETWORKS[name]
    net = randomise_norms(make()).to(dtype).eval()
    form = StreamForm(net, torch.zeros(1, *clip, dtype=dtype), time_dim=time_dim, start=start)
    shape = [2, *clip]
    shape[time_dim] = 5 * form.receptive_field + 3
    return form, torch.randn(shape, dtype=dtype)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("start", ["zeros", "replicate"])
@pytest.mark.parametrize("name", NETWORKS)
def test_all_steps_at_once_are_the_steps(name: str, start: str) -> None:
    form, x = made(name, start)
    for rows in (x, x[:1]):
        form.program[0].clean_state()
        pairs = zip(*(pytree.tree_leaves(f(rows)) for f in (form, form.program[0].forward_steps)), strict=True)
        assert all(relative(given, expected) <= 1e-12 for given, expected in pairs)


def test_in_single_precision_and_for_a_copy() -> None:
    form, x = made("x3d", dtype=torch.float32)
    assert relative(form(x), form.program[0].forward_steps(x)) <= 1e-5
    other = copy.deepcopy(form)
    with torch.no_grad():
        other.network.head.bias += 1
    assert relative(other(x), form(x) + 1) <= 1e-5


def through_the_steps(form: StreamForm, x: Tensor, time_dim: int) -> Tensor:
    """The answers of a loop over the step network itself, its weights made of the parameters; stacked along axis 0."""
    program = form.program[0]
    named = {**dict(form.network.named_parameters()), **dict(form.network.named_buffers())}
    weights = form.weights(named)
    for network in program.networks:
        for name in list(network._buffers):
            network._buffers[name] = weights[name]
    frames = x.unbind(time_dim)
    state, answers = program.begin([frames[0]]), []
    for frame in frames:
        (answer,), after = program.step([frame], state)
        if answer is not None and state.steps >= program.answers[0].timeline.starts_at:
            answers.append(answer)
        state = after
    return torch.stack(answers)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["x3d", "st-gcn", "attention", "recurrent", "strided", "pooled at rate 4", "up again"])
def test_gradients_are_those_of_the_steps(name: str) -> None:
    form, x = made(name)
    (one,) = pytree.tree_leaves(form(x))
    axis = form.answers[0].stack_dim
    torch.manual_seed(1)
    weigh = torch.randn_like(one)
    given = torch.autograd.grad((one * weigh).sum(), list(form.network.parameters()))
    stepped = through_the_steps(form, x, NETWORKS[name][2]).movedim(0, axis)
    expected = torch.autograd.grad((stepped * weigh).sum(), list(form.network.parameters()))
    assert all(relative(a, b) <= 1e-9 for a, b in zip(given, expected, strict=True) if b.abs().max() > 1e-9)
    assert all(g.any() for g in given), "every parameter matters"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["attention", "st-gcn", "x3d"])
def test_gradients_say_what_another_conversion_answers(name: str) -> None:
    """Along a random direction, against the answers of networks converted anew: an oracle without this form."""
    _, clip, time_dim = NETWORKS[name]
    form, x = made(name)
    x = x[:1].narrow(time_dim, 0, min(x.shape[time_dim], 2 * form.receptive_field))
    weigh = torch.randn_like(form(x))
    parameters = list(form.network.parameters())
    torch.manual_seed(2)
    way = [torch.randn_like(p) for p in parameters]
    given = torch.autograd.grad((form(x) * weigh).sum(), parameters)
    along = sum(float((g * w).sum()) for g, w in zip(given, way, strict=True))

    def at(distance: float) -> float:
        net = copy.deepcopy(form.network)
        with torch.no_grad():
            for p, w in zip(net.parameters(), way, strict=True):
                p += distance * w
        program = edgeco.convert(net, torch.zeros(1, *clip, dtype=torch.float64), time_dim=time_dim)
        return float((program.forward_steps(x) * weigh).sum())

    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    assert abs(slope - along) <= 1e-5 * max(1.0, abs(along))


def test_a_long_recording_is_what_the_clip_network_sees_in_its_middle() -> None:
    """Where no padding is in reach, stream and clip network agree; the strongest oracle, here for the form."""
    net = randomise_norms(
        nn.Sequential(nn.Conv1d(3, 4, 5, padding=2), nn.BatchNorm1d(4), nn.Conv1d(4, 4, 3, padding=1))
    )
    net = net.double().eval()
    form = StreamForm(net, torch.zeros(1, 3, 16, dtype=torch.float64))
    x = torch.randn(2, 3, 40, dtype=torch.float64)
    given, expected = form(x), net(x)
    assert relative(given[:, :, :37], expected[:, :, :37]) <= 1e-12
    assert relative(given[:, :, :10], expected[:, :, :10]) <= 1e-12, "the left border included"


def test_adapters_learn_in_the_stream_and_the_base_stays() -> None:
    torch.manual_seed(0)
    net = randomise_norms(X3DLike()).eval()
    base = copy.deepcopy(net.state_dict())
    task = attach(net, head="head")
    learned = task.freeze(net)
    form = StreamForm(net, torch.zeros(1, *NETWORKS["x3d"][1]))
    optimiser = torch.optim.Adam(learned, lr=0.05)
    x, labels = torch.randn(8, 3, 14, 10, 10), torch.arange(8) % 4
    losses = []
    for _ in range(40):
        answers = form(x)
        loss = nn.functional.cross_entropy(answers.flatten(0, 1), labels.repeat_interleave(answers.shape[1]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert torch.equal(net.space.parametrizations.weight.original, base["space.weight"])
    assert all(p.grad is not None for p in learned) and any(isinstance(m, Delta) for m in net.modules())
    program = edgeco.convert(net, torch.zeros(1, *NETWORKS["x3d"][1]))
    assert relative(form(x), program.forward_steps(x)) <= 1e-5, "what was trained is what a conversion streams"


def test_what_depends_on_trained_numbers_is_refused() -> None:
    class Starting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.start = nn.GRU(3, 4, batch_first=True), nn.Parameter(torch.zeros(1, 1, 4))

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.gru(x, self.start.expand(1, len(x), 4).contiguous())[0]
            return made

    net = Starting()
    with pytest.raises(ConversionError, match="depends on its numbers"):
        StreamForm(net, torch.zeros(1, 5, 3), time_dim=1)
    net.start.requires_grad_(False)
    StreamForm(net, torch.zeros(1, 5, 3), time_dim=1)
    with pytest.raises(SpecError, match="start"):
        StreamForm(net, torch.zeros(1, 5, 3), time_dim=1, start="ones")
