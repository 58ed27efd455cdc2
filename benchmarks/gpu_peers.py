"""What edgeco's step is held against on a GPU: the clip network in torch and TensorRT, and another library's step."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from typing import Any

import gpu_networks
import numpy as np
import torch
from torch import Tensor, nn

from edgeco.engines.cuda import open_cuda
from edgeco.engines.tensorrt.api import find_tensorrt
from edgeco.engines.tensorrt.build import build_plan
from edgeco.engines.tensorrt.logger import make_logger
from edgeco.engines.tensorrt.order import Order
from edgeco.models import camera_motion

BATCHES = (1, 2, 4, 8, 16, 32, 64)


def network_of(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The clip network and the shape of one clip."""
    if name == "camera-motion":
        return camera_motion.camera_motion().eval(), camera_motion.CLIP_SHAPE
    make = getattr(gpu_networks, name)
    return make(), make.clip


def timed(run: Callable[[], object], times: int = 100, warm_up: int = 20) -> float:
    """Microseconds of a call, by events of torch's own stream; the median."""
    for _ in range(warm_up):
        run()
    torch.cuda.synchronize()
    taken = []
    for _ in range(times):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        taken.append(1e3 * start.elapsed_time(end))
    return statistics.median(taken)


def empty_kernel(count: int = 500) -> float:
    """Microseconds of the smallest kernel inside a CUDA graph."""
    number = torch.zeros(1, device="cuda")
    graph = torch.cuda.CUDAGraph()
    number.add_(1)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(count):
            number.add_(1)
    return timed(graph.replay) / count


def clip_torch(net: nn.Module, clip: Tensor) -> float:
    """Eager, in FP16."""
    with torch.inference_mode():
        return timed(lambda: net(clip))


def clip_compiled(net: nn.Module, clip: Tensor) -> float:
    """torch.compile with CUDA graphs, in FP16."""
    made = torch.compile(net, mode="reduce-overhead")
    with torch.inference_mode():
        return timed(lambda: made(clip))


def clip_tensorrt(net: nn.Module, clip: Tensor) -> float:
    """The clip network exported by PyTorch and compiled as edgeco compiles its steps, on torch's stream."""
    api = find_tensorrt()
    data = io.BytesIO()
    torch.onnx.export(net, (clip,), data, opset_version=17, dynamo=False, input_names=["clip"], output_names=["answer"])
    order = Order(
        precision="fp16" if clip.dtype == torch.float16 or api.weak else "fp32", strong=api.strong, int8=False,
        shapes={"clip": tuple(clip.shape)}, half=(), workspace=2 << 30, level=3,
    )  # fmt: skip
    trt = api.trt
    with open_cuda():
        plan = build_plan(api, data.getvalue(), order, b"", lambda text: None, lambda: False).plan
        runtime = trt.Runtime(make_logger(trt))
        engine = runtime.deserialize_cuda_engine(plan)
        context = engine.create_execution_context()
        answer = torch.empty(tuple(engine.get_tensor_shape("answer")), dtype=clip.dtype, device="cuda")
        context.set_tensor_address("clip", clip.data_ptr())
        context.set_tensor_address("answer", answer.data_ptr())
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            return timed(lambda: context.execute_async_v3(stream.cuda_stream))


def step_library(name: str) -> float:
    """The continual-inference library's step of the same kind of network, where it has one."""
    import continual as co

    if name != "encoder":
        raise RuntimeError("the library has no network of this kind to convert")
    layer = co.SingleOutputTransformerEncoderLayer(
        d_model=256, nhead=8, dim_feedforward=1024, dropout=0.0, activation=nn.functional.gelu, sequence_len=64
    )
    net = layer.to("cuda").eval().half()
    frame = torch.randn(1, 256, device="cuda").half()
    with torch.inference_mode():
        for _ in range(64):
            net.forward_step(frame)
        return timed(lambda: net.forward_step(frame))


def peers_of(name: str) -> dict[str, Any]:
    """Microseconds of every peer, or why it was not measured; ``best`` per clip at the best batch."""
    net, shape = network_of(name)
    times: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}

    def measure(peer: str, run: Callable[[], float]) -> None:
        try:
            times[peer] = {"p50": run()}
        except Exception as error:  # a peer that fails is a line of the table, not the end of the proof
            missing[peer] = " ".join(f"{type(error).__name__}: {error}".split())[:160]

    half = net.to("cuda").half()
    clip = torch.from_numpy(np.random.default_rng(0).standard_normal((1, *shape))).to("cuda").half()
    measure("clip, torch eager", lambda: clip_torch(half, clip))
    measure("clip, torch.compile", lambda: clip_compiled(half, clip))
    exact = half.float()
    weak = find_tensorrt().weak and not find_tensorrt().strong
    source, seen = (exact, clip.float()) if weak else (exact.half(), clip)
    measure("clip, TensorRT", lambda: clip_tensorrt(source, seen))
    if "clip, TensorRT" in times:
        each = [times["clip, TensorRT"]["p50"]]
        for batch in BATCHES[1:]:
            try:
                many = seen.expand(batch, *seen.shape[1:]).contiguous()
                each.append(clip_tensorrt(source, many) / batch)
            except Exception as error:  # out of memory at some batch
                missing[f"clip, TensorRT, batch {batch}"] = type(error).__name__
                break
        times["clip, TensorRT"]["best"] = min(each)
    measure("step, continual-inference", lambda: step_library(name))
    return {"times": times, "missing": missing, "empty kernel": empty_kernel()}
