"""What a rollout sees is what the clip network computes on whole recordings, and nothing of what a stream discards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from builders import one_sentence
from calibrated import network, streams
from rated_nets import NETS, conv
from streaming import randomise_norms
from torch import Tensor, nn

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.calibration.tensors import observed_tensors
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.errors import CalibrationError, SpecError
from edgeco.export.exported import Exported

Built = tuple["Tower", Exported, Manifest]


class Tower(nn.Module):
    """Padded layers at rates 1, 2 and 4; each result but the last is remembered."""

    clip = (3, 24)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3, 6), conv(6, 5, 2), conv(5, 4, 2), conv(4, 2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def values(self, x: Tensor) -> list[np.ndarray]:
        """The recording and what each layer makes of it, (channels, elements)."""
        found = [x]
        with torch.no_grad():
            for layer in self.layers:
                found.append(layer(found[-1]))
        return [value[0].numpy() for value in found]


def tower() -> Tower:
    torch.manual_seed(0)
    return randomise_norms(Tower()).eval()


@pytest.fixture(scope="module", name="built")
def built_tower() -> tuple[Tower, Exported, Manifest]:
    net = tower()
    return net, *network(net, net.clip)


def written(manifest: Manifest, name: str, steps: int) -> int:
    """Elements that a history of a stream of so many steps comes to hold."""
    history = next(h for h in manifest.histories if h.name == name)
    return sum(step % history.rate == history.phase for step in range(history.starts_at, steps))


@pytest.mark.parametrize("reset", [None, 17])
def test_histories_hold_what_the_clip_network_computes_on_the_recording(reset: int | None, built: Built) -> None:
    net, exported, manifest = built
    given = streams(manifest, 50, 34)
    ranges = observe(exported, manifest, recorded(manifest, given), reset=reset)
    parts = [part for whole in given for part in np.split(whole, range(reset or 99, len(whole), reset or 99))]
    more = np.zeros((40, 3), np.float32)  # so that the recording's end is not padded within what the stream sees
    values = [net.values(torch.from_numpy(np.concatenate([part, more]).T[None].copy())) for part in parts]
    assert len(exported.graphs) > 1 and len(manifest.histories) == 4
    for layer, history in enumerate(manifest.histories):
        seen = [v[layer][:, : written(manifest, history.name, len(p))] for v, p in zip(values, parts, strict=True)]
        numbers = np.concatenate(seen, axis=1)
        found = ranges.histories[history.name]
        assert found.count == numbers.size
        assert found.high == pytest.approx(numbers.max(), rel=1e-5)
        assert found.low == pytest.approx(min(numbers.min(), history.border), rel=1e-5, abs=1e-6)
        edges = np.linspace(0, found.limit, len(found.histogram) + 1)
        expected, _ = np.histogram(np.abs(numbers), edges)
        assert np.abs(np.cumsum(found.histogram) - np.cumsum(expected)).max() <= 3  # rounding at an edge
        for read in history.reads:
            assert ranges.of(read.name) == found
        assert ranges.histories[history.name].border == history.border == 0
    assert (ranges.frames, ranges.streams, ranges.reset) == (84, 2, reset)


def test_a_stream_starts_with_its_first_frame_where_the_network_does() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 5), nn.ReLU(), nn.Conv1d(4, 3, 3))
    exported, manifest = network(net, (2, 9), start="replicate")
    given = streams(manifest, 12)[0]
    ranges = observe(exported, manifest, recorded(manifest, [given]))
    led = np.concatenate([np.repeat(given[:1], manifest.timeline.lead, 0), given])
    first = net[1](net[0](torch.from_numpy(led.T[None].copy()))).detach().numpy()
    assert manifest.timeline.lead > 0
    assert ranges.histories["h001"].count == first.size
    assert ranges.histories["h001"].high == pytest.approx(first.max(), rel=1e-5)


def reference(exported: Exported, manifest: Manifest, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Answers by the product's own session."""
    engine = open_engine(exported.phases())
    session = Session(engine, manifest)
    made: dict[str, list[np.ndarray]] = {name: [] for name in session.outputs}
    for frame in frames:
        engine.memory.write(session.inputs[manifest.inputs[0].name], frame)
        session.run()
        for output in manifest.outputs:
            step, used = session.steps - 1, first_used(exported, manifest, output.name)
            if step >= used and (step - output.valid_from) % output.rate == 0:
                made[output.name].append(engine.memory.read(session.outputs[output.name]))
    return {name: np.stack(values) for name, values in made.items()}


def first_used(exported: Exported, manifest: Manifest, name: str) -> int:
    """The step of the first valid answer, or an earlier one where a state is computed from answers."""
    starts = [s for item in observed_tensors(exported, manifest) for (_, own), s in item.starts.items() if own == name]
    assert min(starts) <= next(output.valid_from for output in manifest.outputs if output.name == name)
    return min(starts)


ALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {name: entry[:2] for name, entry in NETS.items()}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ALL)
def test_answers_are_those_of_a_session(name: str) -> None:
    """Every storage, rates above one, several rows a stream: the rollout steps as the product does."""
    torch.manual_seed(1)
    make, clip = ALL[name]
    exported, manifest = network(randomise_norms(make()), clip)
    given = streams(manifest, 70)[0]
    ranges = observe(exported, manifest, recorded(manifest, [given]))
    for output, answers in reference(exported, manifest, given).items():
        found = [ranges.of(output, i) for i in range(len(exported.graphs)) if output in outputs(exported, i)]
        assert found.count(found[0]) == len(found), "an answer is one tensor, whichever graph gives it"
        found = found[0]
        assert found.count == answers.size
        assert (found.low, found.high) == pytest.approx((answers.min(), answers.max()), rel=1e-4, abs=1e-6)


def outputs(exported: Exported, graph: int) -> set[str]:
    return {value.name for value in onnx.ModelProto.FromString(exported.graphs[graph]).graph.output}


def test_what_two_graphs_compute_alike_has_one_range(built: Built) -> None:
    """The first layer runs in every step, under other names in each phase's graph."""
    _, exported, manifest = built
    ranges = observe(exported, manifest, recorded(manifest, streams(manifest, 60)))
    first = manifest.histories[1]  # what the first layer computes
    keys = [key for key, found in ranges.tensors.items() if found == ranges.histories[first.name]]
    graphs = {key.partition("@")[2] for key in keys if key.partition("@")[0] not in {r.name for r in first.reads}}
    assert graphs == {"", *(str(number) for number in range(1, len(exported.graphs)))}
    names = [{v for node in onnx.ModelProto.FromString(g).graph.node for v in node.output} for g in exported.graphs]
    assert set.intersection(*names), "the graphs share names, which is why keys have numbers"


def test_only_what_is_asked_for_is_observed_and_every_history(built: Built) -> None:
    _, exported, manifest = built
    given = recorded(manifest, streams(manifest, 40))
    everything = observe(exported, manifest, given)
    asked = manifest.histories[2].write
    some = observe(exported, manifest, given, tensors=[manifest.outputs[0].name] if len(exported.graphs) == 1 else [])
    assert some.histories == everything.histories and set(some.tensors) < set(everything.tensors)
    with pytest.raises(CalibrationError, match=r"no tensor 'nothing' of float numbers"):
        observe(exported, manifest, given, tensors=[asked, "nothing"])


@pytest.mark.parametrize("method", ["max", "entropy", "percentile", "mse"])
def test_every_method_sees_the_same_numbers(method: str, built: Built) -> None:
    _, exported, manifest = built
    given = recorded(manifest, streams(manifest, 40, 40))
    plain, ranges = (observe(exported, manifest, given, method=m) for m in ("max", method))
    assert ranges.data == plain.data and ranges.method == method
    for key, found in ranges.tensors.items():
        assert found.amax <= plain.tensors[key].amax == plain.tensors[key].peak
        assert (found.low, found.high, found.histogram) == (plain.of(*_split(key)).low, plain.of(*_split(key)).high,
                                                            plain.of(*_split(key)).histogram)  # fmt: skip


def _split(key: str) -> tuple[str, int]:
    name, _, graph = key.partition("@")
    return name, int(graph or 0)


class Masked(nn.Module):
    """Attention over the past with a mask of minus infinity, and a padded maximum."""

    clip = (4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(8))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool1d(x - 5, 3, 1, 1)
        return self.layer(x.transpose(1, 2), src_mask=self.mask).transpose(1, 2)


def test_minus_infinity_that_stands_for_nothing_is_no_range() -> None:
    torch.manual_seed(0)
    exported, manifest = network(Masked(), Masked.clip)
    ranges = observe(exported, manifest, recorded(manifest, streams(manifest, 40)))
    assert all(found.peak < 1e4 for found in ranges.tensors.values())
    bordered = [ranges.histories[h.name] for h in manifest.histories if h.border < -1e30]
    assert bordered and all(found.border < -1e30 and found.peak < 50 for found in bordered)


class Wild(nn.Module):
    """An operator that some numbers break, with what follows as if nothing had happened."""

    clip = (2, 6)

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.operator = nn.Conv1d(2, 2, 3, bias=False), operator

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.sigmoid(self.operator(x)))


@pytest.mark.parametrize(
    ("operator", "number", "said"),
    [
        (torch.exp, 100.0, r"'exp_\d+' of Exp n\d+_Exp is infinite"),
        (torch.log, -1.0, r"'log_\d+' of Log n\d+_Log is NaN"),
    ],
)
def test_a_tensor_that_is_no_number_is_named_with_its_layer_and_frame(
    operator: Callable[[Tensor], Tensor], number: float, said: str
) -> None:
    exported, manifest = network(Wild(operator), Wild.clip)
    calm, wild = (np.abs(stream) + 0.1 for stream in streams(manifest, 20, 20))
    wild[7] = number
    with pytest.raises(CalibrationError, match=rf"tensor {said} at frame 7 of array 1") as error:
        observe(exported, manifest, recorded(manifest, [calm, wild]))
    one_sentence(error.value)


def test_a_frame_that_is_no_number_is_told_at_the_input(built: Built) -> None:
    _, exported, manifest = built
    given = streams(manifest, 20)
    given[0][3, 1] = np.nan
    with pytest.raises(CalibrationError, match=r"is NaN at frame 3 of array 0"):
        observe(exported, manifest, recorded(manifest, given))


class Dead(nn.Module):
    clip = (2, 6)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 3, 3), nn.Conv1d(3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x) - 1e4))


def test_a_layer_that_never_answers_is_dead_and_not_divided_by() -> None:
    exported, manifest = network(Dead(), Dead.clip)
    ranges = observe(exported, manifest, recorded(manifest, streams(manifest, 20)), method="entropy")
    dead = ranges.histories["h001"]
    assert (dead.dead, dead.amax, dead.histogram) == (True, 0.0, ()) and dead.scale > 0


def test_streams_too_short_for_an_answer_are_refused(built: Built) -> None:
    _, exported, manifest = built
    with pytest.raises(CalibrationError, match=r"too short: the tensor .* is first used in step \d+"):
        observe(exported, manifest, recorded(manifest, streams(manifest, 4)))
    with pytest.raises(CalibrationError, match="too short"):
        observe(exported, manifest, recorded(manifest, streams(manifest, 60)), reset=4)


def test_nothing_to_calibrate_with_is_refused(built: Built) -> None:
    _, exported, manifest = built
    with pytest.raises(CalibrationError, match="no stream was given"):
        observe(exported, manifest, [])
    with pytest.raises(CalibrationError, match=r"array 1 has no frames"):
        observe(exported, manifest, recorded(manifest, streams(manifest, 30, 0)))
    with pytest.raises(
        CalibrationError, match=r"array 0 is float32\(5, 7\); the network takes frames of float32\(3,\)"
    ):
        recorded(manifest, [np.zeros((5, 7), np.float32)])
    with pytest.raises(SpecError, match="reset is 0"):
        observe(exported, manifest, recorded(manifest, streams(manifest, 30)), reset=0)
    with pytest.raises(SpecError, match="frames is -1"):
        observe(exported, manifest, recorded(manifest, streams(manifest, 30)), frames=-1)


def test_the_data_hash_tells_frames_order_and_borders_of_streams_apart(built: Built) -> None:
    _, exported, manifest = built
    first, second = streams(manifest, 30, 30)
    other = first.copy()
    other[4, 0] += 1e-3

    def hashed(*given: np.ndarray) -> str:
        return observe(exported, manifest, recorded(manifest, given)).data

    assert hashed(first, second) == hashed(first.copy(), second)
    told = [
        hashed(first, second),
        hashed(second, first),
        hashed(np.concatenate([first, second])),
        hashed(other, second),
    ]
    assert len(set(told)) == len(told)


class UpAndOn(nn.Module):
    """Down and up again in time, then a layer whose past is computed in another way in every other step."""

    clip = (2, 16)

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(2, 4, 2, stride=2), nn.ConvTranspose1d(4, 2, 2, 2)
        self.last = nn.Conv1d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.down(x)))


def test_a_history_that_steps_write_in_different_ways_has_one_range() -> None:
    torch.manual_seed(0)
    net = UpAndOn()
    exported, manifest = network(net, net.clip)
    given = streams(manifest, 41)[0]
    ranges = observe(exported, manifest, recorded(manifest, [given]))
    with torch.no_grad():
        raised = net.up(net.down(torch.from_numpy(given.T[None].copy()))).numpy()
    history = next(h for h in manifest.histories if h.shape == (2,) and h.name != "h000")
    writers = [graph for graph in range(len(exported.graphs)) if history.write in outputs(exported, graph)]
    assert len(writers) > 1
    found = ranges.histories[history.name]
    assert found.count == 2 * written(manifest, history.name, len(given))
    assert found.high == pytest.approx(raised[0, :, : found.count // 2].max(), rel=1e-5)
    assert all(ranges.of(history.write, graph) == found for graph in writers)
