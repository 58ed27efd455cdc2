"""Everything that only a GPU can prove, in one run: right answers over 300 steps, and what a step costs.

Runs from a checkout wherever there are a GPU, TensorRT and one of the CUDA packages; writes a table and a JSON. It has
two parts. The first needs torch and onnx and no GPU: bundles with golden answers, and the graphs that they are compared
with (``--prepare`` does this part alone). The second needs the GPU and edgeco's run side alone, and takes what the
first left in ``--bundles``. Where torch has the GPU too, other ways to run the same networks are measured beside.
What fails is a line of the table, and keeps nothing else from being measured: every form has a process of its own, and
so have a network's peers, for after some errors a process gets nothing more from its GPU. The JSON is written after
every form.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_bundles import NETWORKS, bundle_path, prepare, say, stacked_path
from gpu_floor import empty_kernel
from gpu_report import PRECISIONS, Precision, failures, show, write
from gpu_steps import check, layers_of, runner_time, time_stacked, time_steps, without_graphs

import edgeco
from edgeco.bundle import Bundle, open_bundle
from edgeco.engines.cuda import open_cuda
from edgeco.engines.tensorrt.api import find_tensorrt
from edgeco.engines.tensorrt.order import Options
from edgeco.errors import EdgecoError, EngineError
from edgeco.runtime.model import load_bundle

ROWS = (1, 2, 4, 8, 16, 32, 64)
PEERS = "peers"
"""The part of a network that is not edgeco's: other ways to run it."""


class Proof:
    """What is measured and how in one process, and where the results go as they come.

    Args:
        options: the command line.
        report: filled, and written after every measurement.
    """

    def __init__(self, options: argparse.Namespace, report: dict[str, Any]) -> None:
        self.folder, self.out, self.report = options.bundles, options.out, report
        self.rows = (1, *(number for number in options.rows if number != 1))
        self.tactics = tuple(options.tactic) if options.tactic else None

    def network(self, name: str, part: str) -> None:
        """One precision of a network, or its peers."""
        facts: dict[str, Any] = {"network": name, "failed": {}}
        self.report["networks"].append(facts)
        say(f"{name}, {part}")
        try:
            if part == PEERS:
                from gpu_peers import peers_of

                facts["peers"] = {"times": {}, "missing": {}}
                peers_of(name, facts["peers"], self.written, self.tactics)
            else:
                self.form(facts, open_bundle(bundle_path(self.folder, name)), part)  # type: ignore[arg-type]
        except Exception as error:
            facts["failed"][part] = self.reason(error)
        self.written()

    def form(self, facts: dict[str, Any], bundle: Bundle, precision: Precision) -> None:
        """One precision of a network: first whether its answers are right, then what it takes."""
        options = Options(precision=precision, tactics=self.tactics)
        model = load_bundle(bundle, engine="tensorrt", options=options, say=say)
        found: dict[str, Any] = {"why": model.why, "check": check(model), "missing": {}, "rows": []}
        facts["state_bytes"], facts[precision] = bundle.manifest.costs.state_bytes, found
        self.written()
        for number in self.rows:
            if not self.measured(
                found, f"{number} streams", lambda n=number: found["rows"].append(time_steps(model, n))
            ):
                break  # more would not fit either
        best = [1e6 * t["rows"] / t["step"]["p50"] for t in found["rows"]]
        found["best frames per second"] = max(best, default=0.0)

        def take(name: str, run: Callable[[], Any]) -> None:
            self.measured(found, name, lambda: found.__setitem__(name, run()))

        take("layers", lambda: layers_of(model))
        take("without graphs", lambda: time_steps(without_graphs(model), 1)["step"])
        take("runner", lambda: runner_time(model))
        compiled = "trt-fp16" if find_tensorrt().strong and precision == "fp16" else "trt-fp32"
        stacked = stacked_path(self.folder, bundle.path.stem, compiled)
        if stacked.exists() and precision != "int8":
            take("stacked", lambda: time_stacked(model, stacked.read_bytes()))

    def measured(self, found: dict[str, Any], what: str, run: Callable[[], object]) -> bool:
        """Whether a measurement could be made; if not, the reason is kept."""
        try:
            run()
        except Exception as error:
            found["missing"][what] = self.reason(error)
            return False
        finally:
            self.written()
        return True

    def written(self) -> None:
        """Keep what there is: a machine may be taken away before the end."""
        write(self.report, self.out)

    @staticmethod
    def reason(error: Exception) -> str:
        """What failed, in one line; the whole of it goes to standard error unless edgeco said it."""
        if not isinstance(error, EdgecoError):
            traceback.print_exception(error)
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        say(text)
        return text


def apart(facts: dict[str, Any], part: str, options: argparse.Namespace) -> None:
    """Measure a part of a network in a process of its own, and take what it left, however it ended."""
    path = options.out.with_name(f"{options.out.stem}.{facts['network']}.{part}.json")
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--part", part, "--networks", facts["network"], "--out", path]
    command += ["--bundles", options.bundles, "--rows", *map(str, options.rows)]
    command += [word for name in options.tactic or () for word in ("--tactic", name)]
    ran = subprocess.run(list(map(str, command)), check=False)
    left = json.loads(path.read_bytes())["networks"] if path.exists() else []
    path.unlink(missing_ok=True)
    found = left[0] if left else {"failed": {}}
    failed = {**facts["failed"], **found["failed"]}
    if ran.returncode:
        killed = ran.returncode < 0
        end = signal.Signals(-ran.returncode).name if killed else f"code {ran.returncode}, see above"
        failed.setdefault(part, f"its process ended with {end}")
    facts.update({**found, "failed": failed})


def peers_here() -> str | None:
    """Why the other ways to run these networks cannot be measured; None if they can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return None if torch.cuda.is_available() else "torch does not see the GPU"


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=Path, default=Path("build/gpu_proof"), help="folder of the bundles")
    parser.add_argument("--prepare", action="store_true", help="only the part that needs torch and no GPU")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS), help="streams in lock-step, 1 first")
    parser.add_argument("--part", choices=(*PRECISIONS, PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--no-peers", action="store_true", help="time edgeco alone")
    parser.add_argument(
        "--tactic", action="append", metavar="NAME",
        help="allow these tactic sources of TensorRT's only; repeatable. A TensorRT without cuBLAS and cuDNN needs "
        "EDGE_MASK_CONVOLUTIONS and JIT_CONVOLUTIONS",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("gpu_proof.json"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Both parts, or what was asked for."""
    options = options_of(arguments)
    try:
        if options.part is not None:
            proof = Proof(options, {"empty kernel us": None, "networks": []})
            proof.network(options.networks[0], options.part)
            return 0
        not_made: dict[str, str] = {}
        if importlib.util.find_spec("torch") is not None and importlib.util.find_spec("onnx") is not None:
            not_made = prepare(options.bundles, options.networks)
        elif options.prepare:
            raise EngineError("bundles are built with torch and onnx: pip install 'edgeco[build]'")
        if options.prepare:
            return 1 if not_made else 0
        api, cuda = find_tensorrt(), open_cuda()
        report: dict[str, Any] = {
            "gpu": cuda.device.name, "capability": cuda.device.capability, "driver": cuda.device.driver,
            "tensorrt": api.text, "cuda": cuda.name, "graphs": cuda.graphs is not None, "edgeco": edgeco.__version__,
            "python": platform.python_version(), "empty kernel us": empty_kernel(cuda), "not made": not_made,
            "no peers": "as asked" if options.no_peers else peers_here(), "networks": [],
        }  # fmt: skip
        missing = [name for name in options.networks if not bundle_path(options.bundles, name).exists()]
        if len(missing) == len(options.networks):
            path = bundle_path(options.bundles, missing[0])
            raise EngineError(f"{path} is not there; make it where torch is: python benchmarks/gpu_proof.py --prepare")
        report["networks"] = [{"network": name, "failed": {}} for name in options.networks]
        for part in (*options.precision, *((PEERS,) if report["no peers"] is None else ())):
            for facts in report["networks"]:
                apart(facts, part, options)
                write(report, options.out)
    except EdgecoError as error:
        print(f"gpu_proof: {error}", file=sys.stderr)
        return error.exit_code
    show(report)
    return 1 if failures(report) or not all(verdict["met"] for verdict in report["targets"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
