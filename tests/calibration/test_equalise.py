"""Channels of unequal range: made more equal without changing what the network computes, for less error in INT8."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
import torch
from quant_nets import calibrated, recording_of
from torch import Tensor, nn

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Ranges
from edgeco.calibration.drift import drift_stream
from edgeco.calibration.equalise import MOST, equalise
from edgeco.calibration.forms import measured, prepare, quantised_form
from edgeco.calibration.network import folded_weights
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.export.check import rollout
from edgeco.export.exported import Exported

Calibrated = tuple[Exported, Manifest, Ranges]


class Readings(nn.Module):
    """Readings (B, 8, T): dense layers of one position, which stay in float, with histories between them."""

    clip = (8, 10)

    def __init__(self, dense: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(8, dense, 3), nn.BatchNorm1d(dense), nn.ReLU())
        self.more = nn.Sequential(nn.Conv1d(dense, 32, 3), nn.BatchNorm1d(32), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.more(self.body(x)).mean(2))


class Pictures(nn.Module):
    """Clips (B, 16, T, 6, 6): a dense layer that computes in INT8 reads the history."""

    clip = (16, 6, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(16, 32, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(32), nn.ReLU())
        self.more = nn.Sequential(nn.Conv3d(32, 32, (3, 3, 3), padding=(0, 1, 1)), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.more(self.body(x)).mean((2, 3, 4)))


def unequal(net: nn.Module) -> Calibrated:
    """A network one of whose layers makes channels of very different size, calibrated on that."""
    torch.manual_seed(3)
    with torch.no_grad():
        norm = net.body[1]  # type: ignore[index]
        exported, manifest, _ = calibrated(net)
        channels = len(norm.weight)
    factors = np.geomspace(0.02, 1, channels).astype(np.float32)
    weights = dict(exported.weights)
    first = next(name for name, array in weights.items() if array.ndim > 1 and array.shape[0] == channels)
    bias = next(name for name, array in weights.items() if array.shape == (channels,))
    weights[first] = weights[first] * factors.reshape(-1, *[1] * (weights[first].ndim - 1))
    weights[bias] = weights[bias] * factors
    made = Exported(exported.graphs, exported.schedule, weights)
    streams = [recording_of(manifest, manifest.timeline.valid_from + 60, seed) for seed in (1, 2)]
    return made, manifest, observe(made, manifest, recorded(manifest, streams), threads=1)


@pytest.fixture(scope="module")
def readings() -> Calibrated:
    return unequal(Readings())


def test_a_dense_reader_in_float_is_turned_and_the_function_stays(readings: Calibrated) -> None:
    exported, manifest, ranges = readings
    frames = recording_of(manifest, 80, 7)
    made, own, done = equalise(folded_weights(exported), manifest, ranges, frames)
    assert len(done) == 1
    before, after = (rollout(e.phases(), manifest, frames)["output"] for e in (exported, made))
    np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-5 * float(np.abs(before).max()))
    seen = observe(made, manifest, recorded(manifest, [recording_of(manifest, 80, seed) for seed in (1, 2)]), threads=1)
    found, told = seen.histories[done[0]], own.histories[done[0]]
    assert found.high <= told.high * 1.1 and told.amax == ranges.histories[done[0]].amax
    low, high = np.array(ranges.histories[done[0]].channels).T
    peak = np.maximum(-low, high)
    half_way = np.where(peak > 0, np.minimum(np.sqrt(peak.max() / np.maximum(peak, 1e-30)), MOST), 1.0)
    np.testing.assert_allclose(np.array(told.channels), np.stack([low, high], 1) * half_way[:, None], rtol=1e-6)


def test_equal_channels_err_less_on_what_was_not_calibrated_on(readings: Calibrated) -> None:
    exported, manifest, ranges = readings
    frames = recording_of(manifest, 120, 11)
    prepared = prepare(exported, manifest, ranges, frames)
    plain = replace(prepared, exported=folded_weights(exported), ranges=ranges, equalised=())
    stream = drift_stream(frames, manifest)
    expected = rollout(exported.phases(), manifest, stream)
    errors = []
    for way in (plain, prepared):
        form, runs = quantised_form(way, "trt-weak")
        assert form.histories
        errors.append(measured(runs, manifest, form, stream, expected)[0].mean_error)
    assert errors[1] < 0.8 * errors[0]


def test_a_dense_reader_in_int8_is_left_alone() -> None:
    exported, manifest, ranges = unequal(Pictures())
    frames = recording_of(manifest, 60, 7)
    _, own, done = equalise(folded_weights(exported), manifest, ranges, frames)
    assert done == [] and own == ranges


def test_channels_are_those_of_all_recordings_not_of_the_frames_at_hand(readings: Calibrated) -> None:
    exported, manifest, ranges = readings
    quiet = 1e-3 * recording_of(manifest, 60, 7)
    loud = recording_of(manifest, 60, 8)
    made = [equalise(folded_weights(exported), manifest, ranges, frames)[0] for frames in (quiet, loud)]
    for name, array in made[0].weights.items():
        np.testing.assert_array_equal(array, made[1].weights[name])


def test_no_channel_is_widened_without_end(readings: Calibrated) -> None:
    exported, manifest, ranges = readings
    name = next(n for n, found in ranges.histories.items() if len(found.channels) == 24)
    dead = tuple((0.0, 0.0) if place < 2 else (0.0, 1e-9) for place in range(24))
    odd = msgspec.structs.replace(ranges.histories[name], channels=dead)
    changed = msgspec.structs.replace(ranges, histories={**ranges.histories, name: odd})
    folded = folded_weights(exported)
    made = equalise(folded, manifest, changed, recording_of(manifest, 60, 7))[0]
    first = next(n for n, array in folded.weights.items() if array.ndim > 1 and array.shape[0] == 24)
    ratios = made.weights[first] / folded.weights[first]
    np.testing.assert_allclose(ratios[:2], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratios[2:], MOST, rtol=1e-6)


@pytest.mark.parametrize("read_elsewhere", [False, True])
def test_a_weight_that_something_else_reads_is_left_alone(readings: Calibrated, read_elsewhere: bool) -> None:
    """Also where it is read as often as there are graphs: once here, once more beside, in the other not at all."""
    exported, manifest, ranges = readings
    graph, idle = (onnx.ModelProto.FromString(exported.graphs[0]) for _ in range(2))
    del idle.graph.node[:]
    history = equalise(exported, manifest, ranges, recording_of(manifest, 40, 1))[2][0]
    write = next(h.write for h in manifest.histories if h.name == history)
    relu = next(node for node in graph.graph.node if write in node.output)
    layer = next(node for node in graph.graph.node if relu.input[0] in node.output)
    if read_elsewhere:
        graph.graph.node.append(onnx.helper.make_node("Identity", [layer.input[1]], ["spare"]))
    both = Exported((graph.SerializeToString(), idle.SerializeToString()), (0, 1), exported.weights)
    made, _, done = equalise(both, manifest, ranges, recording_of(manifest, 40, 1))
    assert (history in done) != read_elsewhere
    same = np.array_equal(made.weights[layer.input[1]], exported.weights[layer.input[1]])
    assert same == read_elsewhere
