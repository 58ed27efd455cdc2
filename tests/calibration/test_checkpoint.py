"""A calibration that was interrupted goes on to the same bits, and never from where another one stood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import one_sentence
from calibrated import network, streams
from rated_nets import NETS, Copies
from torch import nn

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.checkpoint import Checkpoint
from edgeco.calibration.recordings import ArrayRecording, recorded
from edgeco.calibration.rollout import CalibrationStopped, Progress, observe
from edgeco.calibration.sources import Reading, open_recordings
from edgeco.errors import CalibrationError, WriteError
from edgeco.export.exported import Exported


@pytest.fixture(scope="module")
def built() -> tuple[Exported, Manifest]:
    """Slots, a ring and a mirror at rate 2, begun with copies of the first element."""
    return network(Copies(2), (2, 24))


def stops_after(frames: int) -> tuple[Callable[[Progress], None], Callable[[], bool]]:
    taken = [0]

    def note(done: Progress) -> None:
        taken[0] += 1

    return note, lambda: taken[0] >= frames


@pytest.mark.parametrize("chunk", [11, 60])
def test_an_interrupted_calibration_goes_on_to_the_same_bits(
    built: tuple[Exported, Manifest], tmp_path: Path, chunk: int
) -> None:
    exported, manifest = built
    given = recorded(manifest, streams(manifest, 70, 61, 5))
    through = observe(exported, manifest, given, method="entropy", reset=63)
    checkpoint, interrupted = Checkpoint(tmp_path / "kept"), 0
    while True:
        progress, stop = stops_after(chunk)
        try:
            resumed = observe(
                exported, manifest, given, method="entropy", reset=63, checkpoint=checkpoint, progress=progress,
                stop=stop,
            )  # fmt: skip
            break
        except CalibrationStopped as stopped:
            interrupted += 1
            assert "goes on from there" in one_sentence(stopped) and checkpoint.path.exists()
    assert interrupted == 136 // chunk and resumed == through
    assert resumed.to_json() == through.to_json()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]  # removed by who writes the result
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_what_is_kept_now_and_then_survives_a_crash(built: tuple[Exported, Manifest], tmp_path: Path) -> None:
    exported, manifest = built
    given = recorded(manifest, streams(manifest, 70))

    def crash(done: Progress) -> None:
        if done.frames == 66:
            raise KeyboardInterrupt

    kept = Checkpoint(tmp_path / "kept", seconds=0)
    with pytest.raises(KeyboardInterrupt):
        observe(exported, manifest, given, progress=crash, checkpoint=kept)
    seen: list[int] = []
    resumed = observe(exported, manifest, given, checkpoint=kept, progress=lambda done: seen.append(done.frames))
    assert seen[0] == 66, "the frame whose progress crashed had been taken, and the one before was kept"
    assert resumed == observe(exported, manifest, given)


def test_it_goes_on_only_with_the_same_work(built: tuple[Exported, Manifest], tmp_path: Path) -> None:
    exported, manifest = built
    arrays = streams(manifest, 70)
    kept = Checkpoint(tmp_path / "kept")
    progress, stop = stops_after(5)
    with pytest.raises(CalibrationStopped):
        observe(exported, manifest, recorded(manifest, arrays), progress=progress, stop=stop, checkpoint=kept)
    other = [arrays[0] + np.float32(1)]
    make, clip, _ = NETS["every step"]
    network_of_another = network(make(), clip)
    for one, two, given, options in (
        (exported, manifest, other, {}),
        (exported, manifest, arrays, {"reset": 50}),
        (exported, manifest, arrays, {"frames": 50}),
        (exported, manifest, arrays, {"tensors": []}),
        (*network_of_another, arrays, {}),
    ):
        with pytest.raises(CalibrationError, match="another network, other recordings or other options") as error:
            observe(one, two, recorded(manifest, given), checkpoint=kept, **options)
        one_sentence(error.value)


class Changing(ArrayRecording):
    """Claims to be what it was, and gives other frames."""

    fingerprint = "same"

    def __init__(self, frames: np.ndarray) -> None:
        super().__init__({"frame": frames}, "tape")


def test_a_recording_that_has_changed_meanwhile_is_noticed(built: tuple[Exported, Manifest], tmp_path: Path) -> None:
    exported, manifest = built
    tape = streams(manifest, 70)[0]
    kept = Checkpoint(tmp_path / "kept")
    for changed in (np.roll(tape, 1), tape[:4]):
        progress, stop = stops_after(9)
        with pytest.raises(CalibrationStopped):
            observe(exported, manifest, [Changing(tape)], progress=progress, stop=stop, checkpoint=kept)
        with pytest.raises(CalibrationError, match="tape gives other frames than when the calibration was interrupted"):
            observe(exported, manifest, [Changing(changed)], checkpoint=kept)
        assert not kept.path.exists(), "it is begun anew when it is called again"


class Camera(ArrayRecording):
    live = True


def test_of_a_live_stream_that_was_interrupted_nothing_is_kept_but_the_streams_before(
    built: tuple[Exported, Manifest], tmp_path: Path
) -> None:
    exported, manifest = built
    tape, seen = streams(manifest, 70, 70)
    given = [ArrayRecording({"frame": tape}, "tape"), Camera({"frame": seen}, "camera")]
    kept = Checkpoint(tmp_path / "kept")
    progress, stop = stops_after(90)
    with pytest.raises(CalibrationStopped, match="nothing of this stream was kept"):
        observe(exported, manifest, given, progress=progress, stop=stop, checkpoint=kept)
    frames: list[int] = []
    resumed = observe(exported, manifest, given, checkpoint=kept, progress=lambda done: frames.append(done.frames))
    assert frames[0] == 71 and resumed == observe(exported, manifest, given)


@pytest.mark.parametrize("damage", [b"", b"not this", b"\x10\0\0\0\0\0\0\0{}", None])
def test_a_damaged_checkpoint_is_told(built: tuple[Exported, Manifest], tmp_path: Path, damage: bytes | None) -> None:
    exported, manifest = built
    given = recorded(manifest, streams(manifest, 70))
    kept = Checkpoint(tmp_path / "kept")
    progress, stop = stops_after(5)
    with pytest.raises(CalibrationStopped):
        observe(exported, manifest, given, progress=progress, stop=stop, checkpoint=kept)
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(CalibrationError, match=r"kept is no interrupted calibration .*; remove it to begin anew\."):
        observe(exported, manifest, given, checkpoint=kept)


def test_a_network_without_a_past_is_calibrated_too(tmp_path: Path) -> None:
    exported, manifest = network(nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU()), (2, 4))
    given = recorded(manifest, streams(manifest, 6))
    progress, stop = stops_after(3)
    kept = Checkpoint(tmp_path / "kept")
    with pytest.raises(CalibrationStopped):
        observe(exported, manifest, given, progress=progress, stop=stop, checkpoint=kept)
    assert observe(exported, manifest, given, checkpoint=kept) == observe(exported, manifest, given)


class Full(Checkpoint):
    """On a disk that has no room."""

    def write(self, *_: object) -> None:
        raise WriteError("kept cannot be written: the disk is full; free some space.")


def test_a_full_disk_does_not_end_a_calibration_and_is_told_where_it_matters(
    built: tuple[Exported, Manifest], tmp_path: Path
) -> None:
    exported, manifest = built
    given = recorded(manifest, streams(manifest, 70))
    full = Full(tmp_path / "kept", seconds=0)
    assert observe(exported, manifest, given, checkpoint=full) == observe(exported, manifest, given)
    progress, stop = stops_after(5)
    with pytest.raises(CalibrationStopped, match=r"after 5 frames; what was seen .* disk is full") as error:
        observe(exported, manifest, given, progress=progress, stop=stop, checkpoint=full)
    one_sentence(error.value)


@pytest.mark.parametrize("other", [Reading(fps=0), Reading(seconds=1.5), Reading(pre=lambda frame: frame.image)])
def test_it_goes_on_only_with_what_becomes_of_frames(tmp_path: Path, other: Reading) -> None:
    """A rollout that came to its end is kept until its result is written, and is that of its own frames."""
    exported, manifest = network(nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU()), (2, 4))
    manifest = msgspec.structs.replace(manifest, timeline=msgspec.structs.replace(manifest.timeline, fps=10.0))
    np.savez(tmp_path / "cases.npz", x=np.ones((2, 40, 2), np.float32), fps=20.0)
    (tmp_path / "rows.csv").write_text("1,2\n" * 40)
    for name in ("cases.npz", "rows.csv"):
        named, kept = [str(tmp_path / name)], Checkpoint(tmp_path / "kept")
        observe(exported, manifest, open_recordings(named, manifest), checkpoint=kept)
        found = observe(exported, manifest, open_recordings(named, manifest, other), checkpoint=kept)
        assert found == observe(exported, manifest, open_recordings(named, manifest, other))
        kept.remove()


def test_what_other_work_had_finished_with_gives_way_and_what_it_had_not_does_not(
    built: tuple[Exported, Manifest], tmp_path: Path
) -> None:
    """A form that is refused leaves its rollout behind; to calibrate on more must not be refused for that."""
    exported, manifest = built
    given, more = recorded(manifest, streams(manifest, 60)), recorded(manifest, streams(manifest, 60, 61))
    checkpoint = Checkpoint(tmp_path / "kept")
    first = observe(exported, manifest, given, checkpoint=checkpoint)
    assert checkpoint.path.exists()
    assert observe(exported, manifest, given, checkpoint=checkpoint, method="mse").data == first.data
    assert observe(exported, manifest, more, checkpoint=checkpoint) == observe(exported, manifest, more)
    checkpoint.remove()
    progress, stop = stops_after(20)
    with pytest.raises(CalibrationStopped):
        observe(exported, manifest, more, checkpoint=checkpoint, progress=progress, stop=stop)
    with pytest.raises(CalibrationError, match="other recordings or other options"):
        observe(exported, manifest, given, checkpoint=checkpoint)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.999])
def test_a_checkpoint_that_a_disk_has_changed_is_not_gone_on_from(
    built: tuple[Exported, Manifest], tmp_path: Path, place: float
) -> None:
    exported, manifest = built
    given, checkpoint = recorded(manifest, streams(manifest, 60)), Checkpoint(tmp_path / "kept")
    progress, stop = stops_after(20)
    with pytest.raises(CalibrationStopped):
        observe(exported, manifest, given, checkpoint=checkpoint, progress=progress, stop=stop)
    data = bytearray(checkpoint.path.read_bytes())
    data[int(place * len(data))] ^= 1
    checkpoint.path.write_bytes(data)
    with pytest.raises(CalibrationError, match="is no interrupted calibration"):
        observe(exported, manifest, given, checkpoint=checkpoint)
