"""The training loop: it learns, stops when told, and a resumed run equals an uninterrupted one bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeco.errors import CheckFailed, SpecError, WriteError
from edgeco.train import checkpoint as checkpoints
from edgeco.train.loop import Options, Outcome, Training, train
from edgeco.train.objective import distilled, supervised
from edgeco.train.progress import progress
from edgeco.train.schedule import Schedule

SCHEDULE = Schedule(steps=30, peak=1e-2)
OBJECTIVE = supervised(nn.functional.cross_entropy)


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Points in the plane (16, 2), labelled by the side of a line they lie on."""
    points = torch.randn(16, 2, generator=torch.Generator().manual_seed(step))
    return points, (points.sum(1) > 0).long()


def fresh() -> nn.Module:
    """The same small network every time; a norm has state that is not trained, and dropout draws."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def score(net: nn.Module) -> float:
    points, labels = batch(10_000)
    return float((net(points).argmax(1) == labels).float().mean())


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def every_option(**changed: object) -> Options:
    return Options(**{"average": 0.9, "validate": score, "validate_every": 4, "clip_norm": 1.0, **changed})  # type: ignore[arg-type]


def test_loss_falls() -> None:
    reports: list[tuple[int, float]] = []
    outcome = train(
        fresh(), batch, OBJECTIVE, SCHEDULE, report_every=10, report=lambda d, v, r, s: reports.append((d, v))
    )
    assert [done for done, _ in reports] == [10, 20, 30]
    assert outcome.loss == reports[-1][1] < 0.8 * reports[0][1]
    assert (outcome.steps, outcome.ended) == (30, "done")


@pytest.mark.parametrize("options", [Options, every_option], ids=["plain", "average and validation"])
@pytest.mark.parametrize("until", [1, 7, 29])
def test_resume_equals_uninterrupted_run(tmp_path: Path, until: int, options: type[Options]) -> None:
    whole, parts, file = fresh(), fresh(), tmp_path / "run.checkpoint"
    first = train(whole, batch, OBJECTIVE, SCHEDULE, options())
    assert train(parts, batch, OBJECTIVE, SCHEDULE, options(), checkpoint=file, until=until).ended == "stopped"
    resumed = fresh()
    torch.manual_seed(99)  # whatever else draws in between
    second = train(resumed, batch, OBJECTIVE, SCHEDULE, options(), checkpoint=file, resume=True)
    assert same(whole, resumed)
    assert (first.best, first.best_step) == (second.best, second.best_step)


def test_a_run_goes_on_where_it_was_stopped_without_a_file() -> None:
    whole, parts = fresh(), fresh()
    train(whole, batch, OBJECTIVE, SCHEDULE, every_option())
    training = Training(parts, OBJECTIVE, SCHEDULE, every_option())
    for until in (5, 6, 19, 30):
        training.run(batch, until=until)
    assert same(whole, parts)


def test_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    net, file = fresh(), tmp_path / "run.checkpoint"
    train(net, batch, OBJECTIVE, SCHEDULE, every_option(), checkpoint=file)
    again = fresh()
    train(again, batch, OBJECTIVE, SCHEDULE, every_option(), checkpoint=file, resume=True)
    assert same(net, again)


def test_training_leaves_the_callers_chance_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    net = fresh()
    torch.manual_seed(5)
    train(net, batch, OBJECTIVE, Schedule(2))
    assert torch.equal(torch.rand(3), expected)


def test_a_stop_from_outside_loses_nothing(tmp_path: Path) -> None:
    file, asked = tmp_path / "run.checkpoint", iter([False] * 4 + [True])
    stopped = train(fresh(), batch, OBJECTIVE, SCHEDULE, checkpoint=file, stop=lambda: next(asked))
    assert (stopped.steps, stopped.ended) == (4, "stopped")
    net, whole = fresh(), fresh()
    train(net, batch, OBJECTIVE, SCHEDULE, checkpoint=file, resume=True)
    train(whole, batch, OBJECTIVE, SCHEDULE)
    assert same(net, whole)


def test_an_interrupt_in_mid_step_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "run.checkpoint"

    def interrupted(step: int) -> tuple[Tensor, Tensor]:
        if step == 9:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), interrupted, OBJECTIVE, SCHEDULE, checkpoint=file, save_every=5)
    net, whole = fresh(), fresh()
    training = Training(net, OBJECTIVE, SCHEDULE)
    assert training.resume(file) and training.done == 5
    training.run(batch)
    train(whole, batch, OBJECTIVE, SCHEDULE)
    assert same(net, whole)


def test_without_resume_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "run.checkpoint"
    file.write_bytes(b"not a checkpoint")
    train(fresh(), batch, OBJECTIVE, SCHEDULE, checkpoint=file, until=2)
    assert checkpoints.read_checkpoint(file)["step"] == 2


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.checkpoint"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(SpecError, match="cannot be read"):
        train(fresh(), batch, OBJECTIVE, SCHEDULE, checkpoint=file, resume=True)
    torch.save({"net": {}}, file)
    with pytest.raises(SpecError, match="is no checkpoint"):
        train(fresh(), batch, OBJECTIVE, SCHEDULE, checkpoint=file, resume=True)
    train(fresh(), batch, OBJECTIVE, SCHEDULE, checkpoint=file, until=2)
    with pytest.raises(SpecError, match="without an average"):
        train(fresh(), batch, OBJECTIVE, SCHEDULE, every_option(), checkpoint=file, resume=True)
    with pytest.raises(SpecError, match="is not of this network"):
        train(nn.Linear(2, 2), batch, OBJECTIVE, SCHEDULE, checkpoint=file, resume=True)


def test_failed_write_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.checkpoint"
    training = Training(fresh(), OBJECTIVE, SCHEDULE)
    training.run(batch, checkpoint=file, until=5)

    def full(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match="the disk is full"):
        training.run(batch, checkpoint=file, until=6)
    assert checkpoints.read_checkpoint(file)["step"] == 5 and [p.name for p in tmp_path.iterdir()] == [file.name]


def test_it_ends_early_with_the_best_weights() -> None:
    net, scores, seen = fresh(), iter([0.5, 0.7, 0.6, 0.7, 0.2, 0.9]), []

    def validate(net: nn.Module) -> float:
        assert not net.training and not torch.is_grad_enabled()
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
        return next(scores)

    outcome = train(net, batch, OBJECTIVE, SCHEDULE, Options(validate=validate, validate_every=3, patience=3))
    assert outcome == Outcome(15, outcome.loss, 0.7, 12, "early")
    assert all(torch.equal(value, seen[3][name]) for name, value in net.state_dict().items())


def test_the_average_is_that_of_the_steps() -> None:
    net, seen = nn.Linear(2, 2), []

    def watched(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(net.weight.detach().clone())  # type: ignore[union-attr]
        return nn.functional.cross_entropy(net(x), y)

    training = Training(net, watched, SCHEDULE, Options(average=0.5))
    training.run(batch, until=6)
    assert training._raw is not None
    expected = seen[0]
    for n, weight in enumerate([*seen[1:], training._raw["weight"]]):
        stays = min(0.5, (1 + n) / (10 + n))
        expected = stays * expected + (1 - stays) * weight
    torch.testing.assert_close(net.weight.detach(), expected)


def test_only_what_is_chosen_learns_and_has_optimiser_state() -> None:
    net = fresh()
    before = {name: value.clone() for name, value in net.named_parameters()}
    training = Training(net, OBJECTIVE, SCHEDULE, Options(trainable=lambda name, _: name.startswith("4.")))
    training.run(batch, until=3)
    assert {n for n, p in net.named_parameters() if not torch.equal(p, before[n])} == {"4.weight", "4.bias"}
    assert sum(len(group["params"]) for group in training.optimiser.param_groups) == 2
    assert len(training.optimiser.state) == 2
    with pytest.raises(SpecError, match="no parameter that learns"):
        Training(net, OBJECTIVE, SCHEDULE, Options(trainable=lambda name, _: False))


def test_another_mode_keeps_statistics() -> None:
    net = fresh()
    train(net, batch, OBJECTIVE, Schedule(2), Options(mode=nn.Module.eval))
    assert torch.equal(net.state_dict()["1.running_mean"], torch.zeros(8))


def test_a_teacher_is_followed() -> None:
    """A network that gets no labels of its own learns what the teacher answers."""
    torch.manual_seed(1)
    teacher, pupil = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        teacher.weight.copy_(torch.tensor([[-2.0, 1.0], [2.0, -1.0]]))
    before = [p.clone() for p in teacher.parameters()]
    objective = distilled(nn.functional.cross_entropy, teacher, share=1.0)
    train(pupil, batch, objective, Schedule(300, peak=0.05))
    points, _ = batch(999)
    assert (pupil(points).argmax(1) == teacher(points).argmax(1)).float().mean() > 0.9
    assert all(torch.equal(p, q) for p, q in zip(teacher.parameters(), before, strict=True))


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(CheckFailed, match="loss of step 1 is nan"):
        train(fresh(), lambda step: (torch.full((4, 2), torch.nan), torch.zeros(4).long()), OBJECTIVE, SCHEDULE)


def test_half_precision_where_it_is_asked_for() -> None:
    net, types = fresh(), set()

    def watched(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        answers = net(x)
        types.add(answers.dtype)
        return nn.functional.cross_entropy(answers.float(), y)

    train(net, batch, watched, Schedule(2), Options(precision="bf16"))
    assert types == {torch.bfloat16} and all(p.dtype == torch.float32 for p in net.parameters())
    types.clear()
    train(net, batch, watched, Schedule(2))
    assert types == {torch.float32}


def test_schedule_rises_then_falls() -> None:
    schedule = Schedule(steps=100, peak=1.0, warmup=0.1, floor=0.01)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[9] == max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[9:] == sorted(rates[9:], reverse=True)
    assert 0.01 <= rates[-1] < 0.012


def test_progress_writes_plain_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(10) as report:
        report(5, 0.25, 1e-3, None)
        report(10, 0.125, 1e-3, 0.75)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "step 5/10 loss 0.2500 rate 1.00e-03" and "best 0.7500" in second
