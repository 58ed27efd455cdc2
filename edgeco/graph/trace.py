"""Trace a clip network once into a flat, functional graph of ATen operators that keeps the user's source lines.

The trace is static at the clip's own length: time is found afterwards by rules, never by a symbolic size. The batch
is traced as a large prime on fake tensors (which hold no data), so that whatever is divisible by it is the batch.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from edgeco.errors import ConversionError, EdgecoError, SpecError, UnsupportedOperator

BATCH_PRIMES = (1009, 2003, 4001, 8009)

_aten = torch.ops.aten
RECURRENT = (_aten.lstm, _aten.gru, _aten.rnn_tanh, _aten.rnn_relu)
"""Operators that stay whole: PyTorch would decompose them into as many copies as there are frames."""

Clip = Tensor | Sequence[Any] | Mapping[str, Any]
TimeDims = int | None | Sequence[int | None] | Mapping[str, int | None]


@dataclass
class ClipInput:
    """One tensor the network takes.

    Attributes:
        time_dim: the axis of time, or None.
        rate: steps from one of its frames to the next; 1 for the input that has most of them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    time_dim: int | None
    rate: int = 1


@dataclass
class ClipGraph:
    """A traced clip network.

    Attributes:
        graph: functional ATen graph; every node has ``meta["val"]`` (a fake tensor).
        tensors: parameters, buffers and constants by placeholder name.
        inputs: the network's inputs in call order.
        outputs: output nodes with their names.
        out_spec: pytree structure of what the network returns.
        batch: the traced batch size (a prime that divides no other size).
        length: frames in the clip.
        pinned: why the network takes no other length, or None if a second length was traced and agrees.
        names: of the tensors in the network itself, by placeholder name.
    """

    graph: fx.Graph
    tensors: dict[str, Tensor]
    inputs: list[ClipInput]
    outputs: dict[str, fx.Node]
    out_spec: Any
    batch: int
    length: int
    pinned: str | None = None
    resized: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of every node at the second length, by node name; empty when pinned."""
    names: dict[str, str] = field(default_factory=dict)
    by_name: bool = False
    """Whether the network takes its inputs as keywords."""


def where(node: fx.Node) -> str:
    """``file:line (code), layer 'name'`` of the user's own forward that called a node.

    PyTorch records lines of forward methods alone; which of several layers behind such a line it was, the layer's name
    tells.
    """
    trace = node.meta.get("stack_trace") or ""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', trace)
    own = [f for f in frames if "/torch/" not in f[0].replace("\\", "/")]
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    layer = f"layer {modules[-1][0]!r}" if modules and modules[-1][0] else ""
    if not own:
        return layer or f"an operator without a source line ({node.name})"
    path, line, code = own[-1]
    return f"{path}:{line} ({code.strip()})" + (f", {layer}" if layer else "")


def op_name(node: fx.Node) -> str:
    """The operator as PyTorch names it."""
    target = node.target
    return str(target.overloadpacket) if isinstance(target, torch._ops.OpOverload) else str(target)


def _flatten_inputs(
    clip: Clip, time_dim: TimeDims
) -> tuple[tuple[Any, ...], dict[str, Any], list[tuple[str, int | None]]]:
    """Arguments, keyword arguments, and (name, time axis) per input, in call order."""
    if isinstance(clip, Tensor):
        clip = (clip,)
    if isinstance(clip, Mapping):
        dims = time_dim if isinstance(time_dim, Mapping) else dict.fromkeys(clip, time_dim)
        unknown = set(dims) - set(clip)
        if unknown:
            raise SpecError(f"time_dim names {sorted(unknown)}, which the clip does not hold; it holds {sorted(clip)}.")
        return (), dict(clip), [(name, dims.get(name)) for name in clip]  # type: ignore[misc]
    args = tuple(clip)
    listed = list(time_dim) if isinstance(time_dim, Sequence) else [time_dim] * len(args)
    if len(listed) != len(args):
        raise SpecError(
            f"time_dim has {len(listed)} entries for {len(args)} inputs; give one axis (or None) per input."
        )
    names = ["frame"] if len(args) == 1 else [f"frame_{i}" for i in range(len(args))]
    return args, {}, list(zip(names, listed, strict=True))  # type: ignore[arg-type]


def _check_inputs(tensors: Sequence[Any], named: Sequence[tuple[str, int | None]]) -> tuple[list[ClipInput], int]:
    inputs = []
    lengths = set()
    for value, (name, dim) in zip(tensors, named, strict=True):
        if not isinstance(value, Tensor):
            raise SpecError(f"The clip input {name!r} is a {type(value).__name__}, not a tensor.")
        if dim is not None:
            if not -value.ndim <= dim < value.ndim or dim % value.ndim == 0:
                raise SpecError(
                    f"time_dim {dim} does not fit the clip input {name!r} of shape {tuple(value.shape)}: "
                    f"give the axis that counts frames, from 1 (axis 0 is the batch) to {value.ndim - 1}."
                )
            dim %= value.ndim
            lengths.add(value.shape[dim])
        inputs.append(ClipInput(name, tuple(value.shape), value.dtype, dim))
    if not lengths:
        raise SpecError("No clip input has a time axis; time_dim says which axis counts frames.")
    length = max(lengths)
    if not all(lengths) or any(length % n for n in lengths):
        raise SpecError(
            f"Clip inputs with a time axis must have one number of frames, or fewer by a whole factor; "
            f"given: {sorted(lengths)}. Cut them to multiples, or slice the slow one from the fast inside the network."
        )
    for item in inputs:
        item.rate = 1 if item.time_dim is None else length // item.shape[item.time_dim]
    return inputs, length


def trace(net: nn.Module, clip: Clip, time_dim: TimeDims = 2, known: Callable[[Any], bool] | None = None) -> ClipGraph:
    """Trace `net` on clips like `clip` (any batch, data ignored) into a ClipGraph.

    Args:
        net: the clip network; it is copied, never changed.
        clip: an example clip, or several as a tuple or mapping.
        time_dim: the axis that counts frames, likewise.
        known: says whether an operator may stay as it is; others are decomposed where PyTorch knows how.

    Raises:
        ConversionError: PyTorch cannot export the network; the message holds its reason and the user's line.
        SpecError: `clip` and `time_dim` do not fit together.
    """
    args, kwargs, named = _flatten_inputs(clip, time_dim)
    tensors = list(args) + list(kwargs.values())
    inputs, length = _check_inputs(tensors, named)
    net = copy.deepcopy(net).eval()
    for batch in BATCH_PRIMES:
        exported = _export(net, inputs, bool(kwargs), batch, length, known)
        found = _collect(exported, inputs, batch, length)
        if not _collides(found, batch):
            break
    found.by_name = bool(kwargs)
    longer, why = _second_trace(net, inputs, bool(kwargs), batch, length, known)
    if longer is None:
        found.pinned = why
    else:
        _confirm(found, longer)
    return found


def _export(
    net: nn.Module,
    inputs: list[ClipInput],
    by_name: bool,
    batch: int,
    length: int,
    known: Callable[[Any], bool] | None,
) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = {}
        for item in inputs:
            shape = list(item.shape)
            shape[0] = batch
            if item.time_dim is not None:
                shape[item.time_dim] = length // item.rate
            made[item.name] = torch.empty(shape, dtype=item.dtype)
    args = () if by_name else tuple(made.values())
    kwargs = made if by_name else {}
    try:
        with _quiet(), _masks_taken_as_given():
            exported = torch.export.export(net, args, kwargs, strict=False)
            # Making the graph functional costs as much as tracing it; most networks need no such thing.
            table = _decompositions(exported.graph, known)
            return exported.run_decompositions(table) if table or _writes_in_place(exported.graph) else exported
    except EdgecoError:
        raise
    except Exception as error:
        raise ConversionError(_explain(error)) from error


def _writes_in_place(graph: fx.Graph) -> bool:
    return any(getattr(getattr(n.target, "_schema", None), "is_mutable", False) for n in graph.nodes)


def _decompositions(graph: fx.Graph, known: Callable[[Any], bool] | None) -> dict[Any, Any]:
    """PyTorch's own decompositions of the operators that nobody here knows."""
    if known is None:
        return {}
    strange = {n.target for n in graph.nodes if n.op == "call_function" and not known(n.target)}
    strange = {t for t in strange if isinstance(t, torch._ops.OpOverload) and t.overloadpacket not in RECURRENT}
    table = torch.export.default_decompositions()
    if not any(target in table for target in strange):
        return {}
    # Not only the strange ones: what they decompose into may be strange as well.
    return {target: table[target] for target in table if not known(target) and target.overloadpacket not in RECURRENT}


_NOISY = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch logs a traceback when a network does not accept a shape, which is an answer here and not a fault."""
    loggers = [logging.getLogger(name) for name in ("torch", *_NOISY)]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _masks_taken_as_given() -> Iterator[None]:
    """PyTorch's encoders look into a mask, to leave it out where it is the causal one; a trace has no numbers to see.

    The answers are the same with the mask put in, so that is what is traced.
    """
    layers = torch.nn.modules.transformer
    before = getattr(layers, "_detect_is_causal_mask", None)
    if before is None:
        yield
        return
    layers._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        layers._detect_is_causal_mask = before


def _explain(error: Exception) -> str:
    """One sentence from an export failure: its first line and the user's own line."""
    text = str(error).strip()
    first = text.split("\n", 1)[0][:300] or type(error).__name__
    frames = [(f.co_filename, line) for f, line in _frames(error)]
    own = [
        (path, line)
        for path, line in frames
        if "/torch/" not in path.replace("\\", "/") and "/edgeco/graph/" not in path
    ]
    line = f" at {own[-1][0]}:{own[-1][1]}" if own else ""
    said = f"The network cannot be traced{line}: {type(error).__name__}: {first.rstrip('.')}."
    if "data-dependent" in text.lower() or "DataDependent" in type(error).__name__:
        return f"{said} Its forward must not branch on tensor values; write such choices with torch.where."
    return f"{said} Call it on such a clip: what fails there fails here; what does not, PyTorch's own export refuses."


def _frames(error: BaseException) -> list[tuple[Any, int]]:
    found = []
    step = error.__traceback__
    while step is not None:
        found.append((step.tb_frame.f_code, step.tb_lineno))
        step = step.tb_next
    return found


def _collect(exported: Any, inputs: list[ClipInput], batch: int, length: int) -> ClipGraph:
    signature = exported.graph_signature
    sources = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    lifted = signature.inputs_to_lifted_tensor_constants
    tensors: dict[str, Tensor] = {}
    for placeholder, target in sources.items():
        found = exported.state_dict.get(target)
        tensors[placeholder] = (found if found is not None else exported.constants[target]).detach()
    for placeholder, target in lifted.items():
        tensors[placeholder] = exported.constants[target].detach()
    graph = exported.graph
    for node in reversed(list(graph.nodes)):  # checks of shapes and types that hold by construction
        if node.op == "call_function" and "assert" in str(node.target) and not node.users:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    user = [n for n in graph.nodes if n.op == "placeholder" and n.name not in tensors]
    for node, item in zip(user, inputs, strict=True):
        node.meta["input"] = item
    returned = next(n for n in graph.nodes if n.op == "output").args[0]
    mutations = len(signature.buffers_to_mutate)
    outputs = _named_outputs(list(returned)[mutations:], exported.call_spec.out_spec)
    made = ClipGraph(graph, tensors, inputs, outputs, exported.call_spec.out_spec, batch, length)
    made.names = {**sources, **lifted}
    return made


def _named_outputs(nodes: list[Any], spec: Any) -> dict[str, fx.Node]:
    """Output nodes by name: dictionary keys where the network returns a dictionary, else by position."""
    if not nodes or not all(isinstance(n, fx.Node) for n in nodes):
        raise ConversionError("The network returns something that is not a tensor; return tensors only.")
    keys = pytree.tree_unflatten(list(range(len(nodes))), spec)
    if isinstance(keys, dict) and all(isinstance(v, int) for v in keys.values()):
        return {re.sub(r"\W", "_", str(k)): nodes[v] for k, v in keys.items()}
    if len(nodes) == 1:
        return {"output": nodes[0]}
    return {f"output_{i}": node for i, node in enumerate(nodes)}


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Clip shape of a node's value; None when it is not a tensor."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    if any(isinstance(size, torch.SymInt) for size in value.shape):
        raise UnsupportedOperator(
            op_name(node),
            "how many elements it gives depends on their values",
            where(node),
            "Keep all elements and weigh them, with torch.where for instance.",
        )
    return tuple(int(size) for size in value.shape)


def _collides(found: ClipGraph, batch: int) -> bool:
    """Whether a parameter has an axis that could be taken for the batch."""
    return any(size and size % batch == 0 for t in found.tensors.values() for size in t.shape)


def _second_trace(
    net: nn.Module,
    inputs: list[ClipInput],
    by_name: bool,
    batch: int,
    length: int,
    known: Callable[[Any], bool] | None,
) -> tuple[ClipGraph | None, str]:
    longer = length + 3 * math.lcm(*(item.rate for item in inputs))
    try:
        exported = _export(net, inputs, by_name, batch, longer, known)
    except ConversionError as error:
        reason = str(error).split(": ", 2)[-1].split(". Call it", 1)[0].split(". Its forward", 1)[0]
        return None, f"the network does not accept {longer} frames ({reason[:120]})"
    return _collect(exported, inputs, batch, longer), ""


def _confirm(found: ClipGraph, longer: ClipGraph) -> None:
    """Keep the shapes at the second length if both graphs match node by node; else pin the length."""
    first, second = list(found.graph.nodes), list(longer.graph.nodes)
    same = len(first) == len(second) and all(
        a.op == b.op and a.target == b.target for a, b in zip(first, second, strict=True) if a.op == "call_function"
    )
    if not same:
        found.pinned = "the network computes something else for another number of frames"
        return
    for a, b in zip(first, second, strict=True):
        shape = shape_of(b)
        if shape is not None:
            found.resized[a.name] = shape


def getitem_source(node: fx.Node) -> tuple[fx.Node, int] | None:
    """The multi-output node and index behind a getitem node."""
    if node.target is operator.getitem:
        source, index = node.args
        if isinstance(source, fx.Node) and isinstance(index, int):
            return source, index
    return None
