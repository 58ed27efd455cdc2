"""Rows that come and go, of networks as the build makes them: all storages, rates above one, several elements a row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeco
from edgeco.errors import FrameError
from edgeco.runtime.model import Model

sys.path.insert(0, str(Path(__file__).parent / "helpers"))
from bundles import write_network
from rated_nets import NETS
from rows_parity import Driver
from streaming import randomise_norms


def make(folder: Path, name: str) -> tuple[Model, tuple[int, ...]]:
    network, clip, stride = NETS[name]
    torch.manual_seed(0)
    net = randomise_norms(network()).eval()
    model = edgeco.load(write_network(folder / "net.edgeco", net, clip), threads=1)
    assert model.manifest.timeline.stride == stride
    return model, (clip[0], *clip[2:])


def numbers(shape: tuple[int, ...]) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NETS)
def test_every_row_answers_as_a_stream_of_its_own(name: str, tmp_path: Path) -> None:
    model, shape = make(tmp_path, name)
    counts = Driver(model, 4, numbers(shape), seed=3).run(300)
    assert min(counts[what] for what in ("joined", "left", "reset", "moved out", "moved in")) > 3, counts
    assert min(counts[what] for what in ("answered", "held")) > 20, counts


def test_together_these_networks_have_every_storage(tmp_path: Path) -> None:
    histories = [h for name in NETS for h in make(tmp_path, name)[0].manifest.histories]
    assert {h.storage for h in histories} == {"slots", "ring", "mirror"}
    assert {(h.rate, h.storage) for h in histories} >= {(2, "slots"), (4, "ring"), (4, "mirror")}
    assert any(h.phase for h in histories)
    assert any(h.rows_per_stream > 1 for h in histories)


def test_a_row_takes_frames_in_the_ticks_that_stand_where_it_stands(tmp_path: Path) -> None:
    model, shape = make(tmp_path, "rate 4")
    frame = np.zeros(shape, np.float32)
    with model.streams(3) as streams:
        first = streams.join()
        for _ in range(5):
            streams.tick({first: frame})
        late = streams.join()
        assert (streams.waits(late), streams.ready) == (3, (first,))
        with pytest.raises(FrameError, match=r"row 1 takes its next frame after 3 more ticks.*streams\.ready"):
            streams.tick({first: frame, late: frame})
        for wait in (3, 2, 1):
            assert streams.waits(late) == wait
            streams.tick({first: frame})
        assert streams.ready == (first, late)
        streams.tick({late: frame})
        assert (streams.waits(first), streams.ready) == (3, (late,)), "a held row waits for its turn to come round"
        for _ in range(3):
            streams.tick({})
        assert (streams.waits(first), streams.waits(late)) == (0, 1)
        streams.leave(first)
        streams.leave(late)
        assert streams.ready == ()
        again = streams.join()
        assert streams.waits(again) == 0, "nobody is there to wait for"


def test_a_row_that_is_moved_in_alone_need_not_wait(tmp_path: Path) -> None:
    model, shape = make(tmp_path, "rate 4")
    frame = np.ones(shape, np.float32)
    with model.stream() as stream, model.streams(2) as streams:
        for _ in range(7):
            stream.step(frame)
        row = streams.join()
        streams.restore(row, stream.snapshot())
        assert (streams.waits(row), streams.steps(row)) == (0, 7)
        assert streams.snapshot(row) == stream.snapshot()
