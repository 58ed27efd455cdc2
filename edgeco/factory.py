"""[build side] From the name of a model to a network with its weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeco.errors import ConversionError, SpecError, WeightsError
from edgeco.models.catalogue import NETWORKS, target_of
from edgeco.models.layouts import translate
from edgeco.named import find_callable, said
from edgeco.spec import CARRIED

_NESTED = ("model_state", "state_dict", "model_state_dict", "model", "net")


def find_factory(model: str) -> Any:
    """The factory that a model name stands for.

    Raises:
        SpecError: there is no such file, module, factory or zoo network.
    """
    target = target_of(model) or model
    if target.endswith(".pt2"):
        return _program(Path(target))
    if ":" not in target:
        raise SpecError(
            f"{model!r} is no zoo network ({', '.join(NETWORKS)}); give package.module:factory or file.py:factory."
        )
    return find_callable(target, "the function or class that makes the network", ConversionError)


def _program(path: Path) -> Any:
    def load() -> nn.Module:
        try:
            saved = torch.export.load(path)
        except Exception as error:
            raise ConversionError(f"{path} cannot be read as a saved torch.export program: {said(error)}.") from error
        _check_batch(path, saved)
        program = saved.module()
        for name in ("train", "eval"):  # they raise there; a saved program is what it is in either mode
            vars(program).pop(name, None)
        return program

    if not path.is_file():
        raise SpecError(f"There is no file {path}; save a program there with torch.export.save.")
    load.__name__ = path.stem
    return load


def _check_batch(path: Path, saved: torch.export.ExportedProgram) -> None:
    """A program saved for one batch size cannot be traced at another, which tells the batch from the other axes."""
    given = set(saved.graph_signature.user_inputs)
    for node in saved.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" and node.name in given else None
        shape = list(getattr(value, "shape", ()))
        if len(shape) and isinstance(shape[0], int):
            raise ConversionError(
                f"{path} was saved for a batch of {shape[0]} only; export it with a batch of 2 or more and a dynamic "
                f"first axis, as in dynamic_shapes={{{node.name!r}: {{0: torch.export.Dim('batch')}}}}."
            )


def carried_fields(factory: Any) -> dict[str, Any]:
    """The build fields a factory carries as attributes; a method or property of a class by such a name is no field."""
    found = {name: getattr(factory, name, None) for name in CARRIED if name != "name"}
    return {name: value for name, value in found.items() if value is not None and not _is_code(value)}


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, property)


def make_network(factory: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """Call the factory.

    Raises:
        ConversionError: it raised, or what it made is no network.
    """
    name = getattr(factory, "__name__", str(factory))
    try:
        net = factory(**arguments)
    except ConversionError:
        raise
    except (Exception, SystemExit) as error:
        raise ConversionError(f"The factory {name} raised {said(error)}.") from error
    if not isinstance(net, nn.Module):
        raise ConversionError(f"The factory {name} made a {type(net).__name__}; it must return a torch.nn.Module.")
    return net


@dataclass(frozen=True)
class Matched:
    """What of a checkpoint went into a network.

    Attributes:
        tensors: how many of the file's tensors were taken.
        layout: whose names they had; None if the network's own.
        unused: names in the file that the network is known to have no use for.
        filled: names of what the file is known to leave out, because it changes nothing.
    """

    tensors: int
    layout: str | None
    unused: list[str]
    filled: list[str]


def load_weights(net: nn.Module, path: str, key: str | None = None) -> Matched:
    """Load weights strictly: every parameter must be there, nothing may be left over, every shape must fit.

    The names may be the network's own or, for a network of the zoo, those of the libraries that its checkpoints are
    made with (`edgeco.models.layouts`).

    Raises:
        WeightsError: the file cannot be read without running code from it, or does not fit.
    """
    state = _read_weights(Path(path), key)
    expected = net.state_dict()
    prefix = "module."
    if state and all(name.startswith(prefix) for name in state):
        state = {name[len(prefix) :]: value for name, value in state.items()}
    translated = translate(net, state)
    state, layout = translated.state, translated.layout
    read = f" Its names were read as those of {layout}." if layout else ""
    missing = sorted(n for n in expected if n not in state and not n.endswith("num_batches_tracked"))
    surplus = sorted(n for n in state if n not in expected)
    shapes = sorted(n for n in state if n in expected and state[n].shape != expected[n].shape)
    if missing or surplus:
        what = f"lacks {missing[0]!r}" if missing else f"has {surplus[0]!r}, which the network has not"
        raise WeightsError(
            f"The weights {path} do not fit the network: the file {what} "
            f"({len(missing)} missing, {len(surplus)} left over).{read}"
        )
    if shapes:
        name = shapes[0]
        raise WeightsError(
            f"The weights {path} do not fit the network: {name!r} is {tuple(state[name].shape)} in the file and "
            f"{tuple(expected[name].shape)} in the network.{read}"
        )
    net.load_state_dict(state, strict=False)
    taken = sum(not name.endswith("num_batches_tracked") for name in state) - len(translated.filled)
    return Matched(taken, layout, translated.unused, translated.filled)


def _read_weights(path: Path, key: str | None) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            if key is not None:
                raise WeightsError(f"{path} is a safetensors file, in which nothing is nested; leave weights_key out.")
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file ({error}).") from error
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # bytes that no pickle holds
            raise WeightsError(
                f"{path} is damaged or is no checkpoint; save the network's state_dict() again."
            ) from error
        raise WeightsError(
            f"{path} holds more than weights and was not loaded, for reading it would run its code; "
            "save the network's state_dict() alone, best as safetensors."
        ) from error
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as a checkpoint: {said(error)}.") from error
    return _unnested(loaded, path, key)


def _unnested(loaded: Any, path: Path, key: str | None) -> dict[str, Tensor]:
    if key is not None:
        for part in key.split("."):
            if not isinstance(loaded, Mapping) or part not in loaded:
                raise WeightsError(f"{path} has nothing under {key!r}; leave weights_key out to have it found.")
            loaded = loaded[part]
    elif isinstance(loaded, Mapping):
        loaded = next((loaded[k] for k in _NESTED if isinstance(loaded.get(k), Mapping)), loaded)
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path} holds no mapping from names to tensors; save the network's state_dict().")
    return dict(loaded)
