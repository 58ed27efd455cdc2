"""Writes a placement into the graphs: histories in codes, Q and DQ around what is quantised, weights as int8.

A tensor on a grid is quantised where it is made and read from there on by its codes, so that an element of a history is
quantised once in its life: what the present step reads of it is what later steps read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgeco.bundle.manifest import Manifest, Stored
from edgeco.bundle.ranges import Ranges, TensorRange
from edgeco.calibration.grid import Grid, Kind, grid_of, joined, weight_codes
from edgeco.calibration.network import MOVES, Graph, Key, attribute, moved
from edgeco.calibration.placement import Placement
from edgeco.errors import ConversionError
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]
_TYPES = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
_BIAS_LIMIT = 2.0**31 - 2.0**24
"""Codes of a bias that int32 holds, with room for what is added to it."""


@dataclass(frozen=True)
class Quantised:
    """Graphs with a placement written into them.

    Attributes:
        exported: graphs and weights.
        histories: how each history is stored that is stored in codes.
        grids: of every tensor that lies on one.
    """

    exported: Exported
    histories: dict[str, Stored]
    grids: dict[Key, Grid]


def quantise(
    exported: Exported,
    graphs: list[Graph],
    manifest: Manifest,
    placement: Placement,
    ranges: Ranges,
    kind: Kind,
    shifts: Mapping[Key, Array] | None = None,
) -> Quantised:
    """Write a placement into the graphs.

    Args:
        exported: the FP32 graphs, as ``graphs`` were read from.
        graphs: the same, read.
        manifest: what describes them.
        placement: what is to be quantised.
        ranges: of every tensor on a grid.
        kind: typing.
        shifts: what is added to a layer's bias, per channel, by the layer's result.
    """
    grids = grids_of(graphs, manifest, placement, ranges, kind)
    stored: dict[str, Stored] = {}
    for history in manifest.histories:
        if history.name in placement.histories:
            grid = next(grids[Key(g.number, history.write)] for g in graphs if Key(g.number, history.write) in grids)
            border = history.border if abs(history.border) < 1e30 else float(np.copysign(np.inf, history.border))
            stored[history.name] = Stored(
                dtype=grid.dtype, border=float(grid.code(border)), scale=grid.scale, zero_point=grid.zero
            )
    weights = dict(exported.weights)
    written = tuple(
        _Insertion(graph, manifest, placement, grids, kind, weights, shifts or {}).write() for graph in graphs
    )
    used = {n for graph in written for node in onnx.ModelProto.FromString(graph).graph.node for n in node.input}
    kept = {name: array for name, array in weights.items() if name in used}
    return Quantised(Exported(written, exported.schedule, kept), stored, grids)


def grids_of(
    graphs: list[Graph], manifest: Manifest, placement: Placement, ranges: Ranges, kind: Kind
) -> dict[Key, Grid]:
    """The grid of every tensor on one. Tensors of which one is moved out of the other share theirs, and so does what
    writes a history with what reads it."""
    groups = _Groups()
    for history in manifest.histories:
        if history.name in placement.histories:
            names = (history.write, *(read.name for read in history.reads))
            groups.join([Key(g.number, n) for g in graphs for n in names if n in g.inputs or n in g.outputs])
    for graph in graphs:
        on_grid = {key.name for key in placement.tensors if key.graph == graph.number}
        for node in graph.body.node:
            sources = [Key(graph.number, name) for name in moved(node)] if node.op_type in MOVES else []
            together = all(key.name in on_grid for key in sources) and len({groups.root(key) for key in sources}) == 1
            if together:
                groups.join([*sources, Key(graph.number, node.output[0])])
                on_grid.add(node.output[0])
    members: dict[Key, list[Key]] = {}
    for key in placement.tensors | set(groups.parent):
        members.setdefault(groups.root(key), []).append(key)
    grids = {}
    for group in members.values():
        own = [key for key in group if key in placement.tensors]
        found: list[TensorRange] = [ranges.of(key.name, key.graph) for key in own]
        grid = grid_of(joined(found), kind)
        grids.update(dict.fromkeys(group, grid))
    return grids


def hash_of(*arrays: Array) -> str:
    """A digest that tells arrays apart."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


class _Groups:
    """Tensors that share a grid."""

    def __init__(self) -> None:
        self.parent: dict[Key, Key] = {}

    def root(self, key: Key) -> Key:
        while self.parent.get(key, key) != key:
            key = self.parent[key]
        return key

    def join(self, keys: list[Key]) -> None:
        roots = [self.root(key) for key in keys]
        for root in roots:
            self.parent[root] = roots[0]


class _Insertion:
    """One graph on its way: nodes in order, codes of the tensors that have them, and float numbers read of those."""

    def __init__(
        self,
        graph: Graph,
        manifest: Manifest,
        placement: Placement,
        grids: Mapping[Key, Grid],
        kind: Kind,
        weights: dict[str, Array],
        shifts: Mapping[Key, Array],
    ) -> None:
        self.graph, self.kind, self.weights, self.shifts = graph, kind, weights, shifts
        self.placement = placement
        self.grids = {key.name: grid for key, grid in grids.items() if key.graph == graph.number}
        self.asked = {key.name for key in placement.tensors if key.graph == graph.number}
        stored = [history for history in manifest.histories if history.name in placement.histories]
        self.stored_reads = {read.name for history in stored for read in history.reads} & graph.inputs
        self.stored_writes = {history.write for history in stored} & graph.outputs
        self.nodes: list[NodeProto] = []
        self.codes: dict[str, str] = {}
        self.real: dict[str, str] = {}
        self.small: dict[str, onnx.TensorProto] = {}
        self.uses: dict[str, int] = {}
        self.absorbed: dict[str, str] = {}

    def write(self) -> bytes:
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        for value in model.graph.input:
            if value.name in self.stored_reads:
                value.type.tensor_type.elem_type = _TYPES[self.grids[value.name].dtype]
                self.codes[value.name] = value.name
        for name in sorted(self.graph.inputs & self.asked - self.stored_reads):
            self._quantise(name, name)
        for node in model.graph.node:
            self._node(node)
        for value in model.graph.output:
            if value.name in self.stored_writes:
                value.type.tensor_type.elem_type = _TYPES[self.grids[value.name].dtype]
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        constants = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*constants, *self.small.values()])
        return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]

    def _node(self, node: NodeProto) -> None:
        if self.kind == "cpu" and node.op_type in MOVES and self._move_codes(node):
            return
        if self._absorb(node):
            return
        if Key(self.graph.number, node.output[0]) in self.placement.layers:
            self._layer(node)
        else:
            node.input[:] = [self._read(name) for name in node.input]
        self.nodes.append(node)
        for place, name in enumerate(node.output):
            if name in self.stored_writes or name in self.asked:
                source = name
                if name in self.stored_writes:  # the output's name is that of the codes
                    source = node.output[place] = f"{name}_made"
                self._quantise(name, source)

    def _move_codes(self, node: NodeProto) -> bool:
        """Move codes instead of numbers; False where the numbers do not lie on one grid."""
        sources, name = moved(node), node.output[0]
        if name not in self.grids or any(source not in self.codes for source in sources):
            return False
        if len({self.grids[source] for source in (*sources, name)}) > 1:
            return False
        if name in self.graph.outputs and name not in self.stored_writes:
            return False
        count = len(sources)
        node.input[:] = [*(self.codes[source] for source in sources), *node.input[count:]]
        made = node.output[0] = name if name in self.stored_writes else f"{name}_codes"
        self.nodes.append(node)
        self.codes[name] = made
        return True

    def _absorb(self, node: NodeProto) -> bool:
        """Leave out a ReLU that the lowest code does: quantising clips to it."""
        if self.kind != "cpu" or node.op_type != "Relu" or node.output[0] not in self.asked:
            return False
        source, name = node.input[0], node.output[0]
        if source in self.codes or self.grids[name].zero != 0 or self.graph.only_reader(source) is None:
            return False
        if name in self.graph.outputs and name not in self.stored_writes:
            return False
        self._quantise(name, self._read(source))
        return True

    def _layer(self, node: NodeProto) -> None:
        """A node with weights: they become codes per output channel, the bias codes of the product of both scales."""
        given = self.grids[node.input[0]]
        axis = self._axis(node)
        weight = node.input[1]
        array = self.weights[weight] if weight in self.weights else self.graph.constants[weight]
        channels = array.shape[axis]
        bias = self._bias(node, channels)
        least = None
        if self.kind == "cpu" and bias is not None:
            least = np.abs(bias) / _BIAS_LIMIT / given.scale
        codes, scales = weight_codes(array, axis, self.kind, least)
        node.input[0] = self._read(node.input[0], again=True)
        node.input[1] = self._weight(weight, codes, scales, axis)
        if bias is None:
            return
        del node.input[2:]
        if self.kind == "cpu":
            node.input.append(self._bias_codes(node.output[0], bias, scales.astype(np.float64) * given.scale))
        else:
            node.input.append(self._kept(f"{node.output[0]}_bias", bias.astype(np.float32)))

    def _axis(self, node: NodeProto) -> int:
        if node.op_type == "Conv":
            return 0
        if node.op_type == "Gemm" and attribute(node, "transB", 0):
            return 0
        return 1

    def _bias(self, node: NodeProto, channels: int) -> Array | None:
        """The bias with what is added to it; None where there is neither, or no place for one."""
        shift = self.shifts.get(Key(self.graph.number, node.output[0]))
        own = self.graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if node.op_type == "MatMul" or (own is None and shift is None):
            return None
        base = np.zeros(channels) if own is None else np.broadcast_to(own, (channels,)).astype(np.float64)
        return base + (0.0 if shift is None else shift)

    def _weight(self, weight: str, codes: Array, scales: Array, axis: int) -> str:
        """The float numbers of a weight's codes, for one layer.

        Layers of a graph that share a weight have codes of their own: ONNX Runtime, where it makes codes of weights
        unsigned, does so once for every layer that reads them, and fails at the second.
        """
        use = self.uses[weight] = self.uses.get(weight, 0) + 1
        stem = weight if use == 1 else f"{weight}_use{use}"
        if not np.array_equal(self.weights.get(f"{stem}_scales", scales), scales):
            stem = f"{stem}_{hash_of(codes, scales)}"  # on a coarser grid than in another graph
        self.weights[f"{stem}_codes"] = codes
        self.weights[f"{stem}_scales"] = scales
        zeros = self._zeros(f"{stem}_zeros", np.zeros(len(scales), np.int8))
        inputs, made = [f"{stem}_codes", f"{stem}_scales", zeros], f"{stem}_real"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [made], name=f"dq_{stem}", axis=axis))
        return made

    def _kept(self, name: str, array: Array) -> str:
        """The name under which an array is a weight; graphs that have the same one share it."""
        if not np.array_equal(self.weights.setdefault(name, array), array):
            name = f"{name}_{hash_of(array)}"
            self.weights[name] = array
        return name

    def _bias_codes(self, layer: str, bias: Array, scales: Array) -> str:
        stem = f"{layer}_bias" + (f"_{self.graph.number}" if self.graph.number else "")
        scales = scales.astype(np.float32)
        self.weights[f"{stem}_codes"] = np.rint(bias / scales.astype(np.float64)).astype(np.int32)
        self.weights[f"{stem}_scales"] = scales
        zeros = self._zeros(f"{stem}_zeros", np.zeros(len(scales), np.int32))
        made = f"{stem}_real"
        inputs = [f"{stem}_codes", f"{stem}_scales", zeros]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [made], name=f"dq_{stem}", axis=0))
        return made

    def _read(self, name: str, again: bool = False) -> str:
        """The float numbers of a tensor: of its codes, where it has any.

        For a layer's input ``again``: TensorRT wants Q and DQ right before it. Numbers on the same grid stay as they
        are when quantised once more.
        """
        if name not in self.codes and again and name in self.grids:
            self._quantise(name, name)
        if name not in self.codes:
            return name
        if name not in self.real:
            made = self.real[name] = f"{name}_real"
            inputs = [self.codes[name], *self._grid(self.grids[name])]
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [made], name=f"dq_{name}"))
        return self.real[name]

    def _quantise(self, name: str, source: str) -> None:
        if name not in self.grids:
            raise ConversionError(
                f"The tensor {name!r} is to be quantised and has no grid; please report this network."
            )
        made = name if name in self.stored_writes else f"{name}_codes"
        inputs = [source, *self._grid(self.grids[name])]
        self.nodes.append(helper.make_node("QuantizeLinear", inputs, [made], name=f"q_{name}"))
        self.codes[name] = made

    def _grid(self, grid: Grid) -> tuple[str, str]:
        scale = np.array(grid.scale, np.float32)
        stem = f"grid_{scale.view(np.uint32):08x}"
        self.small.setdefault(stem, numpy_helper.from_array(scale, stem))
        return stem, self._zeros(f"zero_{grid.dtype}_{grid.zero}", np.array(grid.zero, grid.dtype))

    def _zeros(self, name: str, array: Array) -> str:
        self.small.setdefault(name, numpy_helper.from_array(array, name))
        return name
