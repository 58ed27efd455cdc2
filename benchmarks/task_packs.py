"""What does a task pack cost? Accuracy against bytes per task, for several ways to adapt one shared base.

One clip network learns MNIST's digits, drifting; from it three tasks are learned on 200 cases each: USPS's digits,
scikit-learn's digits, and the way a digit moves. Each way to adapt trains the whole network first, then loses channels
step by step: gate-Taylor importance, physical removal held against the oracle, norms recalibrated, training again. At
equal density all ways have networks of like size, whose steps are timed. Learning rates are chosen on validation, per
way, on the first task. Every pack is read back from its file, put on the base, fused and converted: it must answer as
the network that was trained, and the steps as the clip network.

    python benchmarks/task_packs.py --data DATA --out build/task_packs [--fast] [--jobs 2]
    python benchmarks/task_packs.py --out build/task_packs --latency      # alone on the machine

Results are appended to a file of JSON lines, and what it holds is not run again. scikit-learn comes with the
extra `bench`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from task_pack_data import CLIP, TASKS, Part, TaskData, base_data, task_data
from torch import Tensor, nn

import edgeco
from edgeco.adapters import AdapterSpec, attach, base_state
from edgeco.adapters.head import resize_head
from edgeco.adapters.naming import base_name
from edgeco.adapters.pack import make_pack, read_pack
from edgeco.continual.convert import trace_network
from edgeco.graph.channels import Family
from edgeco.prune.budget import Budget
from edgeco.prune.importance import Evidence
from edgeco.prune.plan import PruningPlan
from edgeco.prune.planning import Options, Planner
from edgeco.prune.selection import Limits, Removed
from edgeco.train.loop import Options as Training
from edgeco.train.loop import train
from edgeco.train.objective import supervised
from edgeco.train.schedule import Schedule

WAYS = {
    "full fine-tuning": AdapterSpec(kind="full"),
    "norms and head": AdapterSpec(kind="none"),
    "SPLoRA, rank 8": AdapterSpec(kind="splora", rank=8),
    "full-kernel LoRA, rank 2": AdapterSpec(kind="low-rank", rank=2),
    "full-kernel LoRA, rank 8": AdapterSpec(kind="low-rank", rank=8),
}
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FAST_RATE = 1e-2
SEEDS = (0, 1, 2)
PATH = (1.0, 0.6, 0.3, 0.17, 0.1)
"""Shares of all channels that are kept, one after the other; accuracies are told of `DENSITIES`."""
DENSITIES = (1.0, 0.3, 0.1)
FAST = {"ways": ("full fine-tuning", "norms and head", "full-kernel LoRA, rank 2"), "path": (1.0, 0.5, 0.3)}


@dataclass(frozen=True)
class Run:
    """One way to adapt on one task, with one seed and learning rate."""

    task: str
    way: str
    seed: int
    rate: float

    @property
    def key(self) -> str:
        return f"{self.task} | {self.way} | {self.seed} | {self.rate:g}"


def make_base() -> nn.Module:
    """Three convolutions, two of them over time, norms, a mean over all, a linear head: 70,000 parameters."""
    return nn.Sequential(
        nn.Conv3d(1, 24, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(24),
        nn.ReLU(),
        nn.Conv3d(24, 32, 3, stride=(1, 2, 2), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(32),
        nn.ReLU(),
        nn.Conv3d(32, 48, 3, padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(48),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


HEAD = "11"


def fit(net: nn.Module, part: Part, steps: int, rate: float, seed: int) -> None:
    """Train what has gradients; batches of 50."""
    options = Training(seed=seed, weight_decay=0.0)
    objective = supervised(nn.functional.cross_entropy)
    train(net, lambda step: part.batch(step, 50, seed), objective, Schedule(steps, rate), options, report_every=0)


def accuracy(net: nn.Module, part: Part) -> float:
    """Share of clips told rightly."""
    net.eval()
    with torch.no_grad():
        return float((torch.cat([net(c) for c in part.clips.split(250)]).argmax(1) == part.labels).float().mean())


def recalibrate(net: nn.Module, part: Part) -> None:
    """Statistics of the norms over all of what is learned from, as a plain mean."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    with torch.no_grad():
        for clips in part.clips.split(50):
            net(clips)
    for norm in norms:
        norm.momentum, norm.training = 0.1, False


class Densities(Planner):
    """A planner whose budget is the share of all channels of the base; ranks of adapters are no channels."""

    channels_at_first: int

    def free(self) -> list[Family]:
        return [f for f in super().free() if any(base_name(name) is not None for name, _ in f.members)]

    def _figure(self) -> Any:
        def kept(removed: Removed) -> float:
            left = sum((f.units - len(removed.get(f.name, ()))) * f.each for f in self.free())
            return left / self.channels_at_first

        return kept


def prune_to(net: nn.Module, density: float, part: Part, first: int, seed: int) -> PruningPlan:
    """Remove channels until so many are left; returns the plan that was applied."""
    batches = [part.batch(step, 50, seed) for step in range(4)]
    options = Options(Budget("parameters", density, False), "taylor", limits=Limits(1, 2, 0.95), seed=seed)
    planner = Densities(
        net.eval(), trace_network(net, torch.zeros(1, *CLIP)), options, Evidence(net, batches, seed=seed), _quiet
    )
    planner.channels_at_first = first
    plan = planner.plan()
    plan.apply(net)
    return plan


def _quiet(text: str) -> None:
    pass


def channels_of(net: nn.Module) -> int:
    return sum(m.out_channels for m in net.modules() if isinstance(m, nn.Conv3d))


def follow(
    run: Run, data: TaskData, base: nn.Module, path: tuple[float, ...], steps: int, folder: Path
) -> list[dict[str, Any]]:
    """The chain of one run: a record per density."""
    net = copy.deepcopy(base)
    resize_head(net, HEAD, data.classes, run.seed)
    task = attach(net, WAYS[run.way], head=HEAD)
    task.freeze(net)
    records: list[dict[str, Any]] = []
    plan: PruningPlan | None = None
    for density in path:
        raw = None
        if density < 1:
            now = prune_to(net, density, data.train, channels_of(base), run.seed)
            plan = now if plan is None else plan.then(now)
            recalibrate(net, data.train)
            raw = accuracy(net, data.validation)
        fit(net, data.train, 3 * steps if density == 1 else steps, run.rate, run.seed)
        if density not in DENSITIES:
            continue
        pack = make_pack(net.eval(), task, base, name=run.task, plan=plan)
        file = folder / f"{run.key.replace(' | ', '_').replace(' ', '-')}_{density:g}.safetensors"
        pack.save(file)
        learned = pack.count(net)
        records.append(
            {
                "key": run.key, "density": density, "validation": accuracy(net, data.validation),
                "test": accuracy(net, data.test), "before_recovery": raw, "learned": learned.parameters,
                "bytes": learned.bytes, "channels": channels_of(net), "weights": weights_of(net) / weights_of(base),
                "pack": file.name, **verified(file, net, base, data.test.clips[:8]),
            }
        )  # fmt: skip
    return records


def weights_of(net: nn.Module) -> int:
    return sum(t.numel() for name, t in base_state(net).items() if t.ndim > 1)


def verified(file: Path, net: nn.Module, base: nn.Module, clips: Tensor) -> dict[str, float]:
    """Relative differences: the pack's network against the trained one, and its steps against its clips."""
    fused = read_pack(file).fuse(base).eval()
    with torch.no_grad():
        expected, given = net(clips), fused(clips)
        steps = edgeco.convert(fused, torch.zeros(1, *CLIP)).forward_steps(clips)[:, -1]
    scale = float(expected.abs().max())
    found = {
        "fused": float((given - expected).abs().max()) / scale,
        "stepped": float((steps - given).abs().max()) / scale,
    }
    if max(found.values()) > 1e-5:
        raise SystemExit(f"{file}: the pack's network differs: {found}")
    return found


# -- all runs --------------------------------------------------------------------------------------------------


def shared_base(data: Path, out: Path, steps: int) -> nn.Module:
    """The base, trained once."""
    torch.manual_seed(0)
    net, file = make_base(), out / "base.safetensors"
    if not file.exists():
        train_part, test_part = base_data(data)
        fit(net, train_part, steps, 3e-3, 0)
        print(f"base: {accuracy(net, test_part):.1%} of MNIST's digits", file=sys.stderr)
        save_file(net.state_dict(), file)
    net.load_state_dict(load_file(file))
    return net.eval()


def work(run: Run, data: Path, out: Path, fast: bool) -> list[dict[str, Any]]:
    """One run in a process of its own."""
    torch.set_num_threads(1)
    base = shared_base(data, out, 0)
    path = FAST["path"] if fast else PATH
    return follow(run, task_data(data, run.task, run.seed), base, path, 25 if fast else 60, out)


def done(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Records of finished runs, by key."""
    found: dict[str, list[dict[str, Any]]] = {}
    file = out / "runs.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        record = json.loads(line)
        found.setdefault(record["key"], []).append(record)
    return found


def best_rate(known: dict[str, list[dict[str, Any]]], way: str) -> float:
    """The learning rate with the best validation over all densities: of the first task, seed 0."""

    def score(rate: float) -> float:
        records = known.get(Run(TASKS[0], way, 0, rate).key, ())
        return float(np.mean([r["validation"] for r in records])) if records else -1.0

    return max(RATES, key=score)


def due(out: Path, stage: str, fast: bool) -> Iterator[Run]:
    """What is still to run: first every learning rate on one task, then all tasks and seeds with the best."""
    known = done(out)
    if stage == "rates":
        ways = FAST["ways"] if fast else WAYS
        runs = [Run(TASKS[0], way, 0, rate) for rate in ((FAST_RATE,) if fast else RATES) for way in ways]
    else:
        runs = [Run(task, way, seed, best_rate(known, way)) for task in TASKS for seed in SEEDS for way in WAYS]
    yield from (run for run in runs if run.key not in known)


def run_all(data: Path, out: Path, fast: bool, jobs: int, most: int | None) -> None:
    """Run what is due; every finished run is on the disk at once."""
    shared_base(data, out, 150 if fast else 800)
    for stage in ("rates",) if fast else ("rates", "seeds"):
        runs = list(due(out, stage, fast))[:most]
        with ProcessPoolExecutor(jobs) as pool:
            waiting = {pool.submit(work, run, data, out, fast): run for run in runs}
            for number, future in enumerate(as_completed(waiting), start=1):
                with (out / "runs.jsonl").open("a") as file:
                    file.writelines(json.dumps(record) + "\n" for record in future.result())
                print(f"{stage} {number}/{len(runs)}: {waiting[future].key}", file=sys.stderr)
        if runs and most is not None:
            return


# -- what came out ---------------------------------------------------------------------------------------------


def table(out: Path) -> str:
    """Per task and density: every way's accuracy, bytes and learned numbers, mean and deviation over seeds."""
    known, lines = done(out), []
    times = json.loads((out / "latency.json").read_text()) if (out / "latency.json").exists() else {}
    for task in TASKS:
        lines += [
            f"\n{task}\n",
            "| way (rate) | density | test accuracy | learned | bytes | weights kept | step, us |",
            "|" + "---|" * 7,
        ]
        for way in WAYS:
            rate = best_rate(known, way)
            for density in sorted({r["density"] for rs in known.values() for r in rs} & set(DENSITIES), reverse=True):
                keys = [Run(task, way, seed, rate).key for seed in SEEDS]
                rows = [r for key in keys for r in known.get(key, ()) if r["density"] == density]
                if rows:
                    lines.append(_row(way, rate, density, rows, times))
    return "\n".join(lines)


def _row(way: str, rate: float, density: float, rows: list[dict[str, Any]], times: dict[str, float]) -> str:
    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    test = np.array([row["test"] for row in rows])
    own = [times[row["pack"]] for row in rows if row["pack"] in times]
    shown = f"{1e6 * float(np.median(own)):.0f}" if own else "unavailable"
    spread = test.std(ddof=min(1, len(test) - 1))
    return (
        f"| {way} ({rate:g}) | {density:.0%} | {test.mean():.1%} ± {spread:.1%} ({len(test)}) "
        f"| {mean('learned'):.0f} | {mean('bytes'):.0f} | {mean('weights'):.1%} | {shown} |"
    )


def measure_latency(out: Path) -> None:
    """Median seconds of a step in ONNX Runtime, of all reported networks in turn."""
    from edgeco.prune.figures import step_session, step_times

    known, base = done(out), shared_base(Path(), out, 0)
    keys = {Run(t, w, s, best_rate(known, w)).key for t in TASKS for w in WAYS for s in SEEDS}
    rows = [r for key in keys for r in known.get(key, ()) if r["density"] in DENSITIES]
    clip = trace_network(base, torch.zeros(1, *CLIP))
    sessions = [step_session(read_pack(out / r["pack"]).fuse(base), clip) for r in rows]
    medians = [float(np.median(own)) for own in step_times(sessions, 200)]
    (out / "latency.json").write_text(json.dumps(dict(zip((r["pack"] for r in rows), medians, strict=True))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGECO_TEST_DATA", "data")))
    parser.add_argument("--out", type=Path, default=Path("build/task_packs"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--most", type=int, help="End after so many runs; the next call goes on.")
    parser.add_argument("--fast", action="store_true", help="One task, one seed, few steps: under 3 minutes.")
    parser.add_argument("--latency", action="store_true", help="Time the steps of the networks that are there.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.latency:
        measure_latency(options.out)
    else:
        run_all(options.data, options.out, options.fast, options.jobs, options.most)
    print(table(options.out))


if __name__ == "__main__":
    main()
