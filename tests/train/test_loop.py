"""The training loop: learns, and a resumed run equals an uninterrupted one bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeco.train.loop import Schedule, load_checkpoint, progress, save_checkpoint, train

SCHEDULE = Schedule(steps=30, peak=1e-2)


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Points in the plane (16, 2), labelled by the side of a line they lie on."""
    points = torch.randn(16, 2, generator=torch.Generator().manual_seed(step))
    return points, (points.sum(1) > 0).long()


def fresh() -> nn.Module:
    """The same small network every time; batch normalisation adds state that is not trained by gradient."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def test_loss_falls() -> None:
    reports: list[tuple[int, float]] = []

    def report(done: int, value: float, _: float) -> None:
        reports.append((done, value))

    last = train(fresh(), batch, nn.functional.cross_entropy, SCHEDULE, report_every=10, report=report)
    assert [done for done, _ in reports] == [10, 20, 30]
    assert last == reports[-1][1] < 0.7 * reports[0][1]


@pytest.mark.parametrize("stop", [1, 7, 29])
def test_resume_equals_uninterrupted_run(tmp_path: Path, stop: int) -> None:
    whole, parts, file = fresh(), fresh(), tmp_path / "run.checkpoint"
    train(whole, batch, nn.functional.cross_entropy, SCHEDULE)
    train(parts, batch, nn.functional.cross_entropy, SCHEDULE, checkpoint=file, stop=stop)
    resumed = fresh()
    train(resumed, batch, nn.functional.cross_entropy, SCHEDULE, checkpoint=file, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    net, file = fresh(), tmp_path / "run.checkpoint"
    train(net, batch, nn.functional.cross_entropy, SCHEDULE, checkpoint=file)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    train(net, batch, nn.functional.cross_entropy, SCHEDULE, checkpoint=file, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_without_resume_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "run.checkpoint"
    file.write_bytes(b"not a checkpoint")
    train(fresh(), batch, nn.functional.cross_entropy, SCHEDULE, checkpoint=file, stop=2)
    net = fresh()
    assert load_checkpoint(file, net, torch.optim.AdamW(net.parameters())) == 2


def test_failed_write_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, file = fresh(), tmp_path / "run.checkpoint"
    optimiser = torch.optim.AdamW(net.parameters())
    save_checkpoint(file, net, optimiser, 5)

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(file, net, optimiser, 6)
    assert load_checkpoint(file, net, optimiser) == 5


def test_schedule_rises_then_falls() -> None:
    schedule = Schedule(steps=100, peak=1.0, warmup=0.1, floor=0.01)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[9] == max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[9:] == sorted(rates[9:], reverse=True)
    assert 0.01 <= rates[-1] < 0.012


def test_progress_writes_plain_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(10) as report:
        report(5, 0.25, 1e-3)
    assert capsys.readouterr().err == "step 5/10 loss 0.2500 rate 1.00e-03\n"
