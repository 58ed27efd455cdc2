"""The step graph of X3D as one would write it by hand: the yardstick of what the converter emits.

Norms folded, every history in separate slots that are graph inputs and change places from step to step, depthwise taps
as separate 2-D convolutions, bindings made beforehand, ONNX Runtime with its own defaults.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

Array = np.ndarray[Any, Any]


class HandWritten:
    """A running step graph of an X3D network; answers as the clip network does once its past is full.

    Args:
        net: the network, in evaluation mode, squeeze-excite over the frame.
        pixels: side of the frame.
        window: frames the head averages.
        threads: threads to compute with.
    """

    def __init__(self, net: Any, pixels: int, window: int, threads: int) -> None:
        import onnxruntime

        graph = _Graph(pixels)
        graph.network(net, window)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph.model(), options, providers=["CPUExecutionProvider"])
        self._values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
            for name, shape in (
                ("frame", (1, 3, pixels, pixels)),
                ("pooled", (window - 1, graph.pooled)),
                ("newest", (1, graph.pooled)),
                ("answer", (1, net.head.projection.out_features)),
                *((f"{name} {i}", shape) for name, (ages, shape) in graph.slots.items() for i in range(ages + 1)),
            )
        }
        self._pooled, self._newest, self.frame, self.answer = (
            self._values[name].numpy() for name in ("pooled", "newest", "frame", "answer")
        )
        self._bindings = [self._bind(graph, i) for i in range(math.lcm(*(n + 1 for n, _ in graph.slots.values())))]
        self._step = 0

    def _bind(self, graph: _Graph, phase: int) -> Any:
        binding = self._session.io_binding()
        for name in ("frame", "pooled"):
            binding.bind_ortvalue_input(name, self._values[name])
        for name in ("newest", "answer"):
            binding.bind_ortvalue_output(name, self._values[name])
        for name, (ages, _) in graph.slots.items():
            for age in range(1, ages + 1):
                binding.bind_ortvalue_input(f"{name}_{age}", self._values[f"{name} {(phase - age) % (ages + 1)}"])
            binding.bind_ortvalue_output(f"{name}_new", self._values[f"{name} {phase % (ages + 1)}"])
        return binding

    def step(self) -> Array:
        """Answer the frame that was written into ``frame`` (1, 3, H, W): the newest logits (1, classes)."""
        self._session.run_with_iobinding(self._bindings[self._step % len(self._bindings)])
        self._pooled[self._step % len(self._pooled)] = self._newest[0]
        self._step += 1
        return self.answer


class _Graph:
    """The graph as it grows; every value's channels and side are remembered by its name."""

    def __init__(self, pixels: int) -> None:
        self.pooled = 0
        self.slots: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs = [_info("frame", (1, 3, pixels, pixels))]
        self._outputs: list[onnx.ValueInfoProto] = []
        self._shapes = {"frame": (3, pixels)}
        self._renamed: dict[str, str] = {}

    def model(self) -> bytes:
        """The serialized model."""
        for node in self._nodes:
            node.input[:] = [self._renamed.get(name, name) for name in node.input]
            node.output[:] = [self._renamed.get(name, name) for name in node.output]
        graph = helper.make_graph(self._nodes, "x3d_by_hand", self._inputs, self._outputs, self._weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        return made.SerializeToString()  # type: ignore[no-any-return]

    def network(self, net: Any, window: int) -> None:
        """Every layer, in order."""
        stem = net.s1.pathway0_stem
        x = self._conv("frame", _numbers(stem.conv_xy.weight)[:, :, 0], None, 2)
        x = self._relu(self._over_time(x, *_folded(stem.conv, stem.bn), 1))
        for stage in (net.s2, net.s3, net.s4, net.s5):
            for block in stage.children():
                x = self._block(x, block)
        self._head(x, net.head, window)

    def _block(self, x: str, block: Any) -> str:
        """A residual block: its shortcut waits one step for the branch, which looks one frame ahead."""
        branch = block.branch2
        stride = int(branch.b.stride[1])
        inner = self._relu(self._conv(x, *_pointwise(branch.a, branch.a_bn)))
        inner = self._over_time(inner, *_folded(branch.b, branch.b_bn), stride)
        if not isinstance(branch.se, nn.Identity):
            gate = self._emit("GlobalAveragePool", inner)
            gate = self._relu(self._conv(gate, *_biased(branch.se.fc1)))
            gate = self._emit("Sigmoid", self._conv(gate, *_biased(branch.se.fc2)))
            inner = self._emit("Mul", inner, gate)
        inner = self._emit("Mul", inner, self._emit("Sigmoid", inner))
        made = self._conv(inner, *_pointwise(branch.c, branch.c_bn))
        shortcut = x
        if hasattr(block, "branch1"):
            shortcut = self._conv(x, *_pointwise(block.branch1, block.branch1_bn), stride)
        return self._relu(self._emit("Add", self._past(shortcut, 1)[0], made))

    def _head(self, x: str, head: Any, window: int) -> None:
        """Pool over the frame, then over the newest and the `window - 1` before it."""
        x = self._relu(self._conv(x, *_pointwise(head.conv_5, head.conv_5_bn)))
        self.pooled, hidden, classes = head.conv_5.out_channels, head.lin_5.out_channels, head.projection.out_features
        x = self._emit("Flatten", self._emit("GlobalAveragePool", x))
        self._inputs.append(_info("pooled", (window - 1, self.pooled)))
        self._output(x, "newest", (1, self.pooled))
        total = self._emit("Add", x, self._emit("ReduceSum", "pooled", self._weight(np.array([0])), keepdims=1))
        x = self._emit("Mul", total, self._weight(np.array(1 / window, np.float32)))
        first = self._weight(_numbers(head.lin_5.weight).reshape(hidden, -1))
        last = (self._weight(_numbers(head.projection.weight)), self._weight(_numbers(head.projection.bias)))
        x = self._relu(self._emit("Gemm", x, first, transB=1))
        self._output(self._emit("Gemm", x, *last, transB=1), "answer", (1, classes))

    def _over_time(self, x: str, kernel: Array, bias: Array, stride: int) -> str:
        """A depthwise convolution (C, 1, taps, k, k): one 2-D convolution a tap, the newest frame's last."""
        taps = kernel.shape[2]
        sources = [*reversed(self._past(x, taps - 1)), x]
        total = self._conv(sources[0], kernel[:, :, 0], bias, stride, groups=kernel.shape[0])
        for tap in range(1, taps):
            part = self._conv(sources[tap], kernel[:, :, tap], None, stride, groups=kernel.shape[0])
            total = self._emit("Add", total, part)
        return total

    def _past(self, x: str, steps: int) -> list[str]:
        """Remember a value; what it was 1, 2 … steps ago."""
        name = f"past{len(self.slots)}"
        channels, side = self._shapes[x]
        shape = (1, channels, side, side)
        self.slots[name] = (steps, shape)
        self._output(x, f"{name}_new", shape)
        found = [f"{name}_{age}" for age in range(1, steps + 1)]
        self._inputs += [_info(one, shape) for one in found]
        self._shapes |= dict.fromkeys(found, (channels, side))
        return found

    def _conv(self, x: str, kernel: Array, bias: Array | None, stride: int = 1, groups: int = 1) -> str:
        size = kernel.shape[2]
        names = [self._weight(array) for array in (kernel, bias) if array is not None]
        shape = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [size // 2] * 4, "group": groups}
        made = self._emit("Conv", x, *names, **shape)
        self._shapes[made] = (kernel.shape[0], -(-self._shapes[x][1] // stride))
        return made

    def _relu(self, x: str) -> str:
        return self._emit("Relu", x)

    def _emit(self, operator: str, *inputs: str, **attributes: Any) -> str:
        made = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [made], **attributes))
        channels, side = self._shapes.get(inputs[0], (0, 0))
        self._shapes[made] = (channels, 1 if operator == "GlobalAveragePool" else side)
        return made

    def _weight(self, array: Array) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _output(self, x: str, name: str, shape: tuple[int, ...]) -> None:
        assert x not in self._renamed, "every value is given out once"
        self._renamed[x] = name
        self._outputs.append(_info(name, shape))


def _info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().numpy()  # type: ignore[no-any-return]


def _folded(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Array, Array]:
    """Kernel and bias of a convolution and the norm after it."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    kernel = convolution.weight * scale.reshape(-1, 1, 1, 1, 1)
    return _numbers(kernel), _numbers(norm.bias - norm.running_mean * scale)


def _pointwise(convolution: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Array, Array]:
    """The same as a 2-D kernel, for a convolution of one frame."""
    kernel, bias = _folded(convolution, norm)
    return kernel[:, :, 0], bias


def _biased(convolution: nn.Conv3d) -> tuple[Array, Array]:
    assert convolution.bias is not None
    return _numbers(convolution.weight)[:, :, 0], _numbers(convolution.bias)
