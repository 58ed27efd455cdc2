"""The reader of 05_plain_reader, which knows docs/bundle.md and not edgeco, passes the golden frames."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from running import EXAMPLES, NETWORK, environment
from stepnets import mixed, write_stepnet
from toy_bundle import toy_manifest, toy_members

from edgeco.bundle import open_bundle, write_bundle

READER = EXAMPLES / "05_plain_reader" / "reader.py"


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_reader", READER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_needs_numpy_and_onnxruntime_alone() -> None:
    tree = ast.parse(READER.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_it_runs_where_edgeco_is_not_installed() -> None:
    code = "import runpy, sys; sys.modules['edgeco'] = None; sys.argv[:] = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(READER), str(NETWORK)]
    ran = subprocess.run(command, env=environment(PYTHONPATH=""), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("output: ")


def passes(reader: ModuleType, path: Path) -> None:
    network = reader.Network(path)
    worst = reader.check(network)
    assert worst.keys() == {output.name for output in open_bundle(path).manifest.outputs}
    assert max(worst.values()) <= network.tolerance


def test_the_shipped_network_and_the_toy(reader: ModuleType, tmp_path: Path) -> None:
    passes(reader, NETWORK)
    write_bundle(tmp_path / "toy.edgeco", toy_manifest(), toy_members())
    passes(reader, tmp_path / "toy.edgeco")


def test_it_would_notice_a_wrong_past(reader: ModuleType) -> None:
    for wrong in ({"buffers": 3}, {"starts_at": 9}, {"storage": "carry"}):
        network = reader.Network(NETWORK)
        network.histories[0] |= wrong
        assert max(reader.check(network).values()) > network.tolerance, wrong


def test_all_four_storages_in_one_network(reader: ModuleType, tmp_path: Path) -> None:
    path = write_stepnet(tmp_path / "net.edgeco", mixed())
    storages = {history.storage for history in open_bundle(path).manifest.histories}
    assert storages == {"slots", "ring", "mirror", "carry"}
    passes(reader, path)


def test_rates_starts_and_padding_by_copies(reader: ModuleType, tmp_path: Path) -> None:
    """Of networks as the build makes them; answers after the golden frames equal those of edgeco's own runtime."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from bundles import write_network
    from rated_nets import NETS
    from streaming import randomise_norms

    import edgeco

    seen = set()
    for name, start in (
        ("pooled at rate 4", "zeros"),
        ("unequal answers", "zeros"),
        ("copies at rate 2", "zeros"),
        ("rate 2", "replicate"),
    ):
        torch.manual_seed(0)
        make, clip, _ = NETS[name]
        path = write_network(tmp_path / "net.edgeco", randomise_norms(make()).eval(), clip, start=start)
        passes(reader, path)
        model = edgeco.load(path, threads=1)
        manifest = model.manifest
        seen |= {("storage", history.storage) for history in manifest.histories}
        seen |= {("before", history.before) for history in manifest.histories}
        seen |= {("rate", history.rate) for history in manifest.histories} | {("start", manifest.timeline.start)}
        frames = np.random.default_rng(1).standard_normal((50, *manifest.inputs[0].shape)).astype(np.float32)
        network, input_name = reader.Network(path), manifest.inputs[0].name
        with model.stream() as stream:
            for _ in range(network.lead):
                network.run({input_name: frames[0]})
            for frame in frames:
                due, want = network.run({input_name: frame}), stream.step(frame)
                if want.valid:
                    for output, answer in due.items():
                        np.testing.assert_allclose(answer, want.outputs[output], rtol=1e-5, atol=1e-5)
    assert {what for kind, what in seen if kind == "storage"} == {"slots", "ring", "mirror"}
    assert {("before", "first"), ("rate", 2), ("rate", 4), ("start", "replicate")} <= seen
