"""Skeleton networks, as published and in their * form: figures of the paper, every answer against the clip network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine_parity import differences
from streaming import randomise_norms, recording, relative
from torch import nn

import edgeco
from edgeco.models.agcn import AdaptiveGraphConv, agcn, agcn_star
from edgeco.models.ntu import NtuNormaliser, normalised, upright
from edgeco.models.s_tr import JointAttention, s_tr, s_tr_star
from edgeco.models.skeleton import LAYOUTS, SkeletonNet, TwoStream, adjacency, bones
from edgeco.models.stgcn import GraphConv, st_gcn, st_gcn_star

FACTORIES = {f.__name__: f for f in (st_gcn, st_gcn_star, agcn, agcn_star, s_tr, s_tr_star)}
LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "graph": lambda a, b: GraphConv(a, b, LAYOUTS["openpose"]),
    "adaptive": lambda a, b: AdaptiveGraphConv(a, b, LAYOUTS["openpose"], "frame"),
    "attention": lambda a, b: JointAttention(a, b, LAYOUTS["openpose"].joints),
}
BLOCKS = (1, 2, 2)
"""A small network has every kind of shortcut: none, another width (as published with a stride), the same."""


def small(kind: str, star: bool, persons: int = 2) -> SkeletonNet:
    torch.manual_seed(0)

    def layer(number: int, a: int, b: int) -> nn.Module:
        return LAYERS["graph" if number == 1 else kind](a, b)

    net = SkeletonNet(layer, LAYOUTS["openpose"], 5, star, persons, width=32, factors=BLOCKS)
    return randomise_norms(net).eval()  # type: ignore[return-value]


def hold(net: SkeletonNet, frames: int, tolerance: float, batch: int, more: int) -> edgeco.StepProgram:
    """Every answer is the head over a window of the clip network's features of the whole recording."""
    joints, dtype = LAYOUTS["openpose"].joints, net.fc.weight.dtype
    clip = (3, frames, joints, net.data_bn.num_features // 3 // joints)
    program = edgeco.convert(net, torch.zeros(1, *clip, dtype=dtype))
    long = recording(batch, 3, more, *clip[2:], dtype=dtype)
    given = program.forward_steps(long)
    with torch.no_grad():
        features = net.features(long)
        length = net.features(torch.zeros(1, *clip, dtype=dtype)).shape[2]
        heads = [net.fc(features[:, :, i : i + length].mean(2)) for i in range(given.shape[1])]
    assert relative(given, torch.stack(heads, 1)) <= tolerance
    return program


slow = pytest.mark.slow
FORMS = [
    pytest.param("graph", False, id="graph-published"),
    pytest.param("adaptive", True, id="adaptive-star"),
    pytest.param("graph", True, id="graph-star", marks=slow),
    pytest.param("adaptive", False, id="adaptive-published", marks=slow),
    pytest.param("attention", False, id="attention-published", marks=slow),
    pytest.param("attention", True, id="attention-star", marks=slow),
]


@pytest.mark.parametrize(("kind", "star"), FORMS)
def test_a_small_network_streams(kind: str, star: bool) -> None:
    program = hold(small(kind, star).double(), 30, 1e-12, 3, 190)
    figures = (program.receptive_field, program.delay, program.stride, program.exactness)
    # As published: three convolutions over 9 elements, of which the last's lie 2 frames apart, and a mean over 15 such
    # elements; half of the frames that the convolutions see come before the moment described.
    assert figures == ((30, 29, 1, "exact") if star else (1 + 8 + 8 + 16 + 14 * 2, 60 - 16, 2, "unpadded"))


@pytest.mark.slow
@pytest.mark.parametrize("star", [False, True], ids=["published", "star"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_small_network_streams_in_single_precision(kind: str, star: bool) -> None:
    hold(small(kind, star), 30, 1e-5, 1, 190)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("kind", "star"), [("attention", False), ("graph", True), ("adaptive", True)])
def test_the_engine_agrees(kind: str, star: bool) -> None:
    assert max(differences(small(kind, star), (3, 30, 18, 2), steps=130, rows=3).values()) < 1e-5


@pytest.mark.slow
def test_attention_over_the_clip_is_a_live_window() -> None:
    torch.manual_seed(0)

    def layer(_: int, a: int, b: int) -> nn.Module:
        return AdaptiveGraphConv(a, b, LAYOUTS["openpose"], "clip")

    net = randomise_norms(SkeletonNet(layer, LAYOUTS["openpose"], 5, True, 2, 16, (1, 2))).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 3, 20, 18, 2).double())
    long = recording(2, 3, 40, 18, 2)
    given = program.forward_steps(long)
    assert program.exactness == "exact" and any("live window" in note.form for note in program.report)
    with torch.no_grad():
        expected = [net(long[:, :, i : i + 20]) for i in range(21)]
    assert relative(given, torch.stack(expected, 1)) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("star", [False, True], ids=["published", "star"])
@pytest.mark.parametrize("name", ["st_gcn", "agcn", "s_tr"])
def test_all_ten_blocks(name: str, star: bool) -> None:
    torch.manual_seed(0)
    make = FACTORIES[f"{name}_star" if star else name]
    net = randomise_norms(make(classes=5, layout="openpose", width=32)).double().eval()
    program = hold(net, 100 if star else 60, 1e-11, 1, 350)  # type: ignore[arg-type]
    assert program.stride == (1 if star else 4)


@pytest.mark.slow
def test_st_gcn_star_at_its_full_size() -> None:
    torch.manual_seed(0)
    net = randomise_norms(st_gcn_star()).eval()
    program = edgeco.convert(net, torch.zeros(1, *st_gcn_star.clip))  # type: ignore[attr-defined]
    assert (program.receptive_field, program.delay, program.stride) == (300, 299, 1)
    long = recording(1, 3, 310, 25, 2, dtype=torch.float32)
    given = program.forward_steps(long)
    with torch.no_grad():
        assert relative(given[:, 0], net(long[:, :, :300])) < 1e-5
        assert relative(given[:, 10], net(long[:, :, 10:])) < 1e-5


@pytest.mark.parametrize(
    ("name", "count"),
    [("st_gcn", 3_141_478), ("st_gcn_star", 3_141_478), ("agcn", 3_469_510), ("agcn_star", 3_469_510)],
)
def test_parameters_as_published(name: str, count: int) -> None:
    """3.14 M and 3.47 M."""
    assert sum(p.numel() for p in FACTORIES[name]().parameters()) == count


@pytest.mark.parametrize("name", ["s_tr", "s_tr_star"])
def test_parameters_of_s_tr_without_those_it_never_uses(name: str) -> None:
    """3.09 M are published: each of the seven attention layers there carries an adjacency that nothing reads."""
    count = sum(p.numel() for p in FACTORIES[name]().parameters())
    assert (count, count + 7 * 3 * 25 * 25) == (3_073_345, 3_086_470)


def test_attention_over_the_clip_is_an_argument() -> None:
    """One matrix of similarities for the whole clip: equal to that per frame where all frames are the same."""
    torch.manual_seed(0)
    layers = [AdaptiveGraphConv(4, 8, LAYOUTS["hand"], scope).double().eval() for scope in ("frame", "clip")]
    layers[1].load_state_dict(layers[0].state_dict())
    still = recording(2, 4, 1, 21).expand(-1, -1, 6, -1)
    assert relative(layers[1].mixed(still), layers[0].mixed(still)) < 1e-12
    moving = recording(2, 4, 6, 21)
    assert relative(layers[1].mixed(moving), layers[0].mixed(moving)) > 1e-3
    with pytest.raises(ValueError, match='give "frame" or "clip"'):
        agcn(attention="window")


@pytest.mark.parametrize(("name", "edges"), [("ntu", 24), ("openpose", 17), ("hand", 20)])
def test_layouts_are_trees_and_their_matrices_are_normalised(name: str, edges: int) -> None:
    layout = LAYOUTS[name]
    assert len(layout.inward) == edges == layout.joints - 1
    assert len({joint for joint, _ in layout.inward}) == edges  # every joint but the centre has one neighbour inward
    itself, inward, outward = adjacency(layout)
    assert torch.equal(itself, torch.eye(layout.joints))
    for part in (inward, outward):
        sums = part.sum(0)
        assert bool(((sums - 1).abs().lt(1e-6) | (sums == 0)).all())
    assert int((inward > 0).sum()) == int((outward > 0).sum()) == edges
    assert torch.equal(inward > 0, (outward > 0).T)
    nearer = dict(layout.inward)
    for joint in range(layout.joints):
        seen = {joint}
        while joint in nearer:
            joint = nearer[joint]
            assert joint not in seen
            seen.add(joint)


def test_bones_and_the_sum_of_two_streams() -> None:
    x = recording(2, 3, 30, 18, 2)
    found = bones(x, LAYOUTS["openpose"])
    assert torch.equal(found[..., 4, :], x[..., 4, :] - x[..., 3, :]) and not found[..., 1, :].any()
    joint, bone = small("graph", True).double(), small("graph", True).double()
    both = TwoStream(joint, bone, "openpose")
    with torch.no_grad():
        assert torch.equal(both(x), joint(x) + bone(found))


@pytest.mark.slow
def test_two_streams_in_one_step_network() -> None:
    both = TwoStream(small("graph", True), small("attention", True), "openpose").double().eval()
    program = edgeco.convert(both, torch.zeros(1, 3, 30, 18, 2).double())
    long = recording(2, 3, 60, 18, 2)
    given = program.forward_steps(long)
    with torch.no_grad():
        assert relative(given[:, 7], both(long[:, :, 7:37])) < 1e-12


def pose(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((25, 3))


def test_ntu_poses_are_turned_upright() -> None:
    given = pose(0)
    turn = upright(given)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    turned = given @ turn.T
    spine, shoulders = turned[1] - turned[0], turned[8] - turned[4]
    assert shoulders[0] > 0 and abs(shoulders[1:]).max() < 1e-12
    assert spine[2] > 0  # the second rotation may tilt the spine again, as it does in the published preparation


def test_a_stream_of_ntu_frames_is_prepared_as_a_recording() -> None:
    rng = np.random.default_rng(1)
    recorded = rng.standard_normal((9, 25, 3, 2))
    recorded[:2] = 0  # nobody yet
    recorded[6:] = 0  # nobody any more
    whole = normalised(recorded)
    assert whole.shape == recorded.shape and np.isfinite(whole).all()
    np.testing.assert_allclose(whole[4:8], whole[:4])  # four frames, repeated
    assert not whole[:, 1, :, 0].any()  # the spine of the first person is the origin
    normalise = NtuNormaliser()
    streamed = np.stack([normalise(frame) for frame in recorded])
    assert not streamed[:2].any() and not streamed[6:].any()
    np.testing.assert_allclose(streamed[2:6], whole[:4])
    normalise.reset()
    np.testing.assert_allclose(normalise(recorded[3])[1, :, 0], 0, atol=1e-12)
    alone = rng.standard_normal((4, 25, 3, 2))
    alone[..., 1] = 0
    assert not normalised(alone)[..., 1].any()
