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


def clip_torch(net: nn.Module, clip: Tensor) -> float:
    """Eager, in FP16."""
    with torch.inference_mode():
        return timed(lambda: net(clip))


def clip_compiled(net: nn.Module, clip: Tensor) -> float:
    """torch.compile with CUDA graphs, in FP16."""
    made = torch.compile(net, mode="reduce-overhead")
    with torch.inference_mode():
        return timed(lambda: made(clip))


def clip_tensorrt(net: nn.Module, clip: Tensor, tactics: tuple[str, ...] | None = None) -> float:
    """The clip network exported by PyTorch and compiled as edgeco compiles its steps, on torch's stream."""
    api = find_tensorrt()
    data = io.BytesIO()
    torch.onnx.export(net, (clip,), data, opset_version=17, dynamo=False, input_names=["clip"], output_names=["answer"])
    order = Order(
        precision="fp16" if clip.dtype == torch.float16 or api.weak else "fp32", strong=api.strong, int8=False,
        shapes={"clip": tuple(clip.shape)}, half=(), workspace=2 << 30, level=3, tactics=tactics,
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


def step_library(net: nn.Module, clip: Tensor) -> tuple[str, float]:
    """The continual-inference library's step, where it can take the network's layers, and what of it was timed.

    It converts sequences of layers and not whole networks: of convolutional networks only the convolutions over time
    are stepped, each on the frames that it sees in the network, and everything else is let off.
    """
    import continual as co

    if isinstance(net, gpu_networks.Encoder):
        layer = co.SingleOutputTransformerEncoderLayer(
            d_model=256, nhead=8, dim_feedforward=1024, dropout=0.0, activation=nn.functional.gelu, sequence_len=64
        )
        steps = [(layer.to(clip).eval(), clip[:, 0].contiguous())]
        what = "the layer"
    else:
        steps = [(co.Conv3d.build_from(conv).to(clip).eval(), frame) for conv, frame in _temporal(net, clip)]
        what = "its convolutions over time alone"
    if not steps:
        raise RuntimeError("the library has no step of this network's layers")

    def run() -> None:
        for module, frame in steps:
            module.forward_step(frame)

    with torch.inference_mode():
        for _ in range(64):
            run()
        return what, timed(run)


def _temporal(net: nn.Module, clip: Tensor) -> list[tuple[nn.Conv3d, Tensor]]:
    """Every convolution over more than one frame, and a frame of what it reads."""
    seen: list[tuple[nn.Conv3d, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda m, given, _: seen.append((m, given[0][:, :, 0].clone())))
        for module in net.modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1
    ]
    with torch.inference_mode():
        net(clip)
    for hook in hooks:
        hook.remove()
    return seen


def peers_of(
    name: str, found: dict[str, Any], written: Callable[[], None], tactics: tuple[str, ...] | None = None
) -> None:
    """Microseconds of every peer, or why it was not measured; ``best`` per clip at the best batch.

    Args:
        name: of the network.
        found: ``times`` and ``missing``, filled.
        written: called whenever there is more.
        tactics: allowed to TensorRT.
    """
    net, shape = network_of(name)
    times: dict[str, dict[str, float]] = found["times"]
    missing: dict[str, str] = found["missing"]

    def measure(peer: str, run: Callable[[], float]) -> None:
        try:
            times[peer] = {"p50": run()}
        except Exception as error:  # a peer that fails is a line of the table, not the end of the proof
            missing[peer] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        written()

    half = net.to("cuda").half()
    clip = torch.from_numpy(np.random.default_rng(0).standard_normal((1, *shape))).to("cuda").half()
    measure("clip, torch eager", lambda: clip_torch(half, clip))
    measure("clip, torch.compile", lambda: clip_compiled(half, clip))
    try:
        what, taken = step_library(half, clip)
        times[f"step, continual-inference, {what}"] = {"p50": taken}
    except Exception as error:
        missing["step, continual-inference"] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    exact = half.float()
    weak = not find_tensorrt().strong
    source, seen = (exact, clip.float()) if weak else (exact.half(), clip)
    measure("clip, TensorRT", lambda: clip_tensorrt(source, seen, tactics))
    if "clip, TensorRT" in times:
        each = [times["clip, TensorRT"]["p50"]]
        for batch in BATCHES[1:]:
            try:
                many = seen.expand(batch, *seen.shape[1:]).contiguous()
                each.append(clip_tensorrt(source, many, tactics) / batch)
            except Exception as error:  # out of memory at some batch
                missing[f"clip, TensorRT, batch {batch}"] = type(error).__name__
                break
        times["clip, TensorRT"]["best"] = min(each)
