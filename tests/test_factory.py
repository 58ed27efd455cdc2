"""From the name of a model to a network with its weights: everything a user's files can have wrong with them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from builders import PictureNet, one_sentence, randomised, written
from safetensors.torch import save_file
from torch import nn

from edgeco.errors import ConversionError, EdgecoError, SpecError, WeightsError
from edgeco.factory import find_factory, load_weights, make_network
from edgeco.models.catalogue import NETWORKS


class TestFactory:
    def test_a_file_finds_its_neighbours_and_takes_arguments(self, tmp_path: Path) -> None:
        written(tmp_path / "neighbour.py", "WIDTH = 5\n")
        code = "from neighbour import WIDTH\nfrom torch import nn\ndef make(taps=1): return nn.Conv3d(3, WIDTH, taps)\n"
        factory = find_factory(f"{written(tmp_path / 'net.py', code)}:make")
        net = make_network(factory, {"taps": 3})
        assert isinstance(net, nn.Conv3d) and net.weight.shape == (5, 3, 3, 3, 3)
        assert str(tmp_path) not in sys.path

    def test_two_files_of_one_name_are_two_networks(self, tmp_path: Path) -> None:
        made = []
        for width in (2, 3):
            (tmp_path / str(width)).mkdir()
            code = f"from torch import nn\ndef make(): return nn.Linear(1, {width})\n"
            made.append(find_factory(f"{written(tmp_path / str(width) / 'net.py', code)}:make"))
        assert [factory().out_features for factory in made] == [2, 3]

    def test_a_module_of_a_package(self) -> None:
        assert find_factory("torch.nn:Linear") is nn.Linear

    @pytest.mark.parametrize("name", sorted(NETWORKS))
    def test_every_zoo_name_stands_for_a_factory_with_a_clip(self, name: str) -> None:
        factory = find_factory(name)
        assert len(factory.clip) in (2, 4)
        assert find_factory(name.replace("-", "_")) is factory

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            ("nowhere.py:make", "There is no file nowhere.py"),
            ("nowhere.pt2", "There is no file nowhere.pt2"),
            ("x3d_xxl", "no zoo network"),
            ("net.py", "file.py:factory"),
            ("no_such_package.net:make", "cannot be imported"),
            ("torch.nn:Lienar", "no callable named 'Lienar'"),
            ("torch.nn:__name__", "no callable named"),
        ],
    )
    def test_a_name_that_stands_for_nothing(self, model: str, said: str) -> None:
        with pytest.raises(SpecError, match=said) as caught:
            find_factory(model)
        assert caught.value.exit_code == 2
        one_sentence(caught.value)

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("def make(:\n", r"net.py failed while it was imported: SyntaxError: .*line 1"),
            ("import no_such_module\n", "No module named 'no_such_module'"),
            ("1 / 0\n", "ZeroDivisionError"),
            ("raise ValueError('first\\nsecond')\n", "ValueError: first"),
            ("import sys; sys.exit(0)\n", "SystemExit"),
        ],
    )
    def test_a_file_that_cannot_be_imported(self, tmp_path: Path, code: str, said: str) -> None:
        with pytest.raises(ConversionError, match=said) as caught:
            find_factory(f"{written(tmp_path / 'net.py', code)}:make")
        assert caught.value.exit_code == 3
        assert str(tmp_path / "net.py") in one_sentence(caught.value)

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("def make(): raise RuntimeError('no such layer.')", "The factory make raised RuntimeError: no such layer"),
            ("def make(): raise KeyError", "The factory make raised KeyError"),
            ("def make(): exit(1)", "The factory make raised SystemExit"),
            ("def make(classes): ...", "The factory make raised TypeError: .*classes"),
            ("def make(): return None", "made a NoneType; it must return a torch.nn.Module"),
            ("def make(): return {'net': 1}", "made a dict"),
            ("import torch\ndef make(): return torch.nn.Linear", "made a type"),
        ],
    )
    def test_a_factory_that_makes_no_network(self, tmp_path: Path, code: str, said: str) -> None:
        with pytest.raises(ConversionError, match=said) as caught:
            make_network(find_factory(f"{written(tmp_path / 'net.py', code)}:make"), {})
        assert caught.value.exit_code == 3
        one_sentence(caught.value)

    def test_a_file_that_is_no_program(self, tmp_path: Path) -> None:
        written(tmp_path / "net.pt2", "not a program")
        with pytest.raises(ConversionError, match="cannot be read as a saved") as caught:
            make_network(find_factory(str(tmp_path / "net.pt2")), {})
        one_sentence(caught.value)


def refusal(net: nn.Module, path: Path, key: str | None = None) -> str:
    """Why weights are refused; the network must be left as it was."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(net, str(path), key)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, EdgecoError)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    said = one_sentence(caught.value)
    assert str(path) in said
    return said


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


class TestWeights:
    @pytest.fixture
    def trained(self) -> nn.Module:
        return randomised(PictureNet(), seed=7)

    @pytest.mark.parametrize(
        ("nest", "key"),
        [
            (lambda state: state, None),
            (lambda state: {"state_dict": state, "epoch": 3}, None),
            (lambda state: {"model_state": state, "optimizer_state": {"step": 1}, "cfg": "x"}, None),
            (lambda state: {"model_state_dict": state, "best": 0.9}, None),
            (lambda state: {f"module.{name}": tensor for name, tensor in state.items()}, None),
            (lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, None),
            (lambda state: {"ema": {"shadow": state}, "state_dict": {"other": torch.zeros(1)}}, "ema.shadow"),
            (lambda state: {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}, None),
        ],
    )
    def test_checkpoints_as_they_are_saved(
        self, tmp_path: Path, trained: nn.Module, nest: Any, key: str | None
    ) -> None:
        torch.save(nest(trained.state_dict()), tmp_path / "w.pt")
        net = PictureNet()
        load_weights(net, str(tmp_path / "w.pt"), key)
        for name, tensor in trained.state_dict().items():
            assert torch.equal(net.state_dict()[name], tensor) or name.endswith("num_batches_tracked")

    def test_safetensors_in_half_precision(self, tmp_path: Path, trained: nn.Module) -> None:
        save_file({name: tensor.half() for name, tensor in trained.state_dict().items()}, tmp_path / "w.safetensors")
        net = PictureNet()
        load_weights(net, str(tmp_path / "w.safetensors"))
        assert net.conv.weight.dtype == torch.float32
        assert torch.allclose(net.conv.weight, trained.get_parameter("conv.weight"), atol=1e-3)

    def test_weights_that_do_not_fit(self, tmp_path: Path, trained: nn.Module) -> None:
        path = tmp_path / "w.safetensors"
        state = trained.state_dict()
        save_file({name: tensor for name, tensor in state.items() if name != "head.bias"}, path)
        assert "lacks 'head.bias' (1 missing, 0 left over)" in refusal(PictureNet(), path)
        save_file({**state, "head.scale": torch.ones(1)}, path)
        assert "has 'head.scale', which the network has not (0 missing, 1 left over)" in refusal(PictureNet(), path)
        save_file({**state, "head.weight": torch.zeros(7, 6)}, path)
        assert "'head.weight' is (7, 6) in the file and (4, 6) in the network" in refusal(PictureNet(), path)
        save_file({}, path)
        assert "lacks 'conv.weight'" in refusal(PictureNet(), path)

    @pytest.mark.parametrize("nest", [lambda bad, state: {**state, "extra": bad}, lambda bad, state: bad])
    def test_a_pickle_that_wants_to_run_code_does_not(self, tmp_path: Path, trained: nn.Module, nest: Any) -> None:
        target = tmp_path / "ran"
        for old in (False, True):
            torch.save(
                nest(RunsCode(target), trained.state_dict()), tmp_path / "w.pt", _use_new_zipfile_serialization=not old
            )
            said = refusal(PictureNet(), tmp_path / "w.pt")
            assert "was not loaded" in said and "state_dict() alone" in said
            assert not target.exists()

    def test_a_whole_network_in_a_pickle_is_not_loaded(self, tmp_path: Path, trained: nn.Module) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
        assert "save the network's state_dict() alone" in refusal(trained, tmp_path / "w.pt")

    def test_damaged_files(self, tmp_path: Path, trained: nn.Module) -> None:
        path = tmp_path / "w.safetensors"
        save_file(trained.state_dict(), path)
        whole = path.read_bytes()
        for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:5], b"", b"\xff" * 64, b"text\n"):
            path.write_bytes(damaged)
            assert "not a safetensors file" in refusal(PictureNet(), path)
        torch.save(trained.state_dict(), tmp_path / "w.pt")
        whole = (tmp_path / "w.pt").read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", b"text\n"):
            (tmp_path / "w.pt").write_bytes(damaged)
            refusal(PictureNet(), tmp_path / "w.pt")

    def test_files_that_hold_no_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "w.pt"
        for saved in ([torch.zeros(1)], torch.zeros(1), {"epoch": 3}, {"state_dict": {"lr": 0.1}}):
            torch.save(saved, path)
            assert "no mapping from names to tensors" in refusal(PictureNet(), path)
        torch.save({"state_dict": {}}, path)
        assert "nothing under 'ema'" in refusal(PictureNet(), path, "ema")
        assert "There is no weights file" in refusal(PictureNet(), tmp_path / "nowhere.pt")
        assert "There is no weights file" in refusal(PictureNet(), tmp_path)

    def test_nothing_is_nested_in_safetensors(self, tmp_path: Path, trained: nn.Module) -> None:
        save_file(trained.state_dict(), tmp_path / "w.safetensors")
        assert "leave weights_key out" in refusal(PictureNet(), tmp_path / "w.safetensors", "ema")
