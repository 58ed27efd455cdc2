"""What a network is, as one typed record: readable from TOML, settable by flags, carried by a factory as attributes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgeco.bundle.limits import MAX_NAME
from edgeco.bundle.ranges import Method
from edgeco.errors import SpecError

Size = Annotated[int, msgspec.Meta(ge=1)]
Variant = Literal["fp32", "fp16", "int8"]
"""Numeric forms that can be built; FP32 always is."""


class BuildSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network and how it is to be built.

    Every field but `model` has a default; a factory may carry others as attributes (``make.clip = (3, 16, 112, 112)``),
    a TOML file may give any, and a flag of ``edgeco build`` has the last word.
    """

    model: str
    """``package.module:factory``, ``file.py:factory``, a name of ``edgeco models``, or a ``.pt2`` program."""
    name: str | None = None
    """What the bundle calls the network; the factory's name if None."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the factory."""
    clip: tuple[Size, ...] | None = None
    """Shape of one clip without the batch, as (channels, frames, height, width)."""
    time_dim: int = 2
    """Axis of the batched clip that counts frames."""
    fps: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Frames per second the network was trained at."""
    input: Literal["image", "array"] | None = None
    """Camera frames or plain numbers; told from the clip's shape if None."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Normalisation of pixels scaled to 0 … 1, one number or one per channel."""
    colour: Literal["rgb", "bgr", "gray"] | None = None
    resize: Literal["crop", "letterbox", "stretch"] | None = None
    interpolation: Literal["area", "linear", "cubic", "nearest"] | None = None
    roi: tuple[float, float, float, float] | None = None
    labels: tuple[str, ...] | str | None = None
    """Class names, or a file with one per line."""
    activation: Literal["none", "softmax", "sigmoid"] | None = None
    """What turns the answer into scores; softmax where there are labels."""
    weights: str | None = None
    """A safetensors file, or a checkpoint (read as weights only)."""
    weights_key: str | None = None
    """Where in a nested checkpoint the weights lie; found by itself if None."""
    plan: str | None = None
    """A pruning plan of the factory's network (``edgeco prune``); the weights are then those of the pruned one."""
    pack: str | None = None
    """A task pack ('edgeco adapt'), folded into the weights of the base that it was made for."""
    window: Size | None = None
    """Elements the final pooling over time takes; the clip's own number if None."""
    exact: Literal["interior", "clip"] | bool = False
    """Recompute over a live window what streams differently: true or "interior", or "clip" for its padding too."""
    start: Literal["zeros", "replicate"] = "zeros"
    """What lies before a stream's first frame: nothing, as the clip network pads it, or that frame, for ever."""
    gated: bool = False
    """Put the start-up into the graph, for hosts other than edgeco's own that only feed states back."""
    precision: tuple[Variant, ...] = ("fp32",)
    """FP16 is for TensorRT and implies its forms; INT8 needs something to calibrate on."""
    calibrate: tuple[str, ...] = ()
    """Recordings to calibrate on: all that ``edgeco calibrate --source`` takes."""
    calibration_method: Method = "percentile"
    calibration_streams: Size | None = None
    calibration_frames: Size | None = None
    """At most so many recordings, and frames of each; all if None."""
    calibration_reset: Size | None = None
    """Frames after which the device resets a stream; never if None."""
    float_budget: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Mean relative error of INT8 to stay within: the layers that cost most, found one by one, are kept in float."""
    least_cosine: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Cosine that every answer of INT8 must have with FP32's; 0.97 if None."""
    keep_float: tuple[str, ...] = ()
    """Layers, tensors or histories that INT8 leaves alone, by name."""
    device: str | None = None
    """The device it is for, by a name of ``edgeco devices``; what that cannot do is refused."""
    tensorrt: bool = False
    """Also write the forms that TensorRT takes: FP32 at opset 17, and FP16 written into the graph."""
    golden: Size = 16
    """Steps kept as golden frames after the first valid answer."""
    seed: int = 0
    """Seed of the golden frames."""


_OWN = ("model", "arguments", "device", "golden", "seed")
CARRIED = tuple(f for f in BuildSpec.__struct_fields__ if f not in _OWN)
"""Fields a factory may carry as attributes: not its device, which to PyTorch is where its tensors lie."""


def read_spec(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a TOML file; paths in it are taken from the file's own folder.

    Raises:
        SpecError: the file is missing, is no TOML, or has a field that is not known.
    """
    where = Path(path)
    try:
        text = where.read_bytes()
    except OSError as error:
        raise SpecError(f"The configuration {where} cannot be read ({error.strerror}); check the path.") from error
    try:
        fields: dict[str, Any] = msgspec.toml.decode(text)
    except (msgspec.DecodeError, ValueError, UnicodeDecodeError) as error:
        raise SpecError(f"The configuration {where} is not valid TOML: {error}.") from error
    unknown = sorted(set(fields) - set(BuildSpec.__struct_fields__))
    if unknown:
        raise SpecError(
            f"The configuration {where} has the unknown field {unknown[0]!r}; "
            f"known are {', '.join(BuildSpec.__struct_fields__)}."
        )
    for key in ("weights", "labels", "plan", "pack"):
        value = fields.get(key)
        if isinstance(value, str):
            fields[key] = str(where.parent / value)
    sources = fields.get("calibrate")
    if isinstance(sources, list):
        beside = [where.parent / str(source) for source in sources]
        fields["calibrate"] = [str(p) if p.exists() else s for p, s in zip(beside, sources, strict=True)]
    model = str(fields.get("model", ""))
    if ".py:" in model or model.endswith(".pt2"):
        fields["model"] = str(where.parent / model)
    return fields


_LISTS = ("clip", "mean", "std", "roi")


def fields_from(
    config: str | os.PathLike[str] | None, flags: dict[str, Any], arguments: Sequence[str]
) -> dict[str, Any]:
    """Fields from a TOML file and from flags, which have the last word.

    Args:
        config: a TOML file, or None.
        flags: fields by name; None stands for a flag that was not given, lists are written with commas.
        arguments: ``key=value`` arguments of the factory, values as TOML reads them, else as text.

    Raises:
        SpecError: the file or a flag is not usable.
    """
    fields = read_spec(config) if config is not None else {}
    for name, value in flags.items():
        if value is not None:
            fields[name] = _numbers(name, str(value)) if name in _LISTS else value
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator or not key.isidentifier():
            raise SpecError(f"--set {argument!r} is not KEY=VALUE, as in --set classes=5.")
        fields.setdefault("arguments", {})[key] = _value(text)
    return fields


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [int(part) if name == "clip" else float(part) for part in text.split(",")]
    except ValueError as error:
        raise SpecError(f"--{name} {text!r} is not a list of numbers with commas between them.") from error


def _value(text: str) -> Any:
    try:
        return msgspec.toml.decode(f"value = {text}")["value"]
    except (msgspec.DecodeError, ValueError):
        return text


def make_spec(fields: dict[str, Any]) -> BuildSpec:
    """A checked BuildSpec from plain fields.

    Raises:
        SpecError: a field has the wrong type or value, or `model` is missing.
    """
    try:
        spec = msgspec.convert(fields, BuildSpec, strict=False)
    except msgspec.ValidationError as error:
        raise SpecError(f"The build specification is not usable: {_clear(str(error))}.") from error
    wrong = _wrong(spec)
    if wrong is not None:
        raise SpecError(f"The build specification is not usable: {wrong}.")
    return spec


def _wrong(spec: BuildSpec) -> str | None:
    """What of a well-typed specification no bundle could hold."""
    if spec.mean is not None and not all(map(math.isfinite, spec.mean)):
        return f"mean: {spec.mean} is not finite"
    if spec.std is not None and not all(math.isfinite(s) and s > 0 for s in spec.std):
        return f"std: {spec.std} has a number that is not above 0 and finite; pixels are divided by them"
    if spec.roi is not None and not (0 <= spec.roi[0] < spec.roi[2] <= 1 and 0 <= spec.roi[1] < spec.roi[3] <= 1):
        return f"roi: {spec.roi} is not (left, top, right, bottom) as fractions from 0 to 1"
    if spec.fps is not None and not math.isfinite(spec.fps):
        return f"fps: {spec.fps} is not finite"
    if spec.name is not None and not (0 < len(spec.name) <= MAX_NAME and spec.name.isprintable()):
        return "name: it is empty, too long or has control characters"
    return None


def _clear(message: str) -> str:
    text, _, place = message.partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    return f"{place}: {text[0].lower()}{text[1:]}" if place else text[0].lower() + text[1:]


def read_labels(labels: tuple[str, ...] | str | None) -> tuple[str, ...] | None:
    """Class names, read from a file if a path is given.

    Raises:
        SpecError: the file cannot be read.
    """
    if labels is None or isinstance(labels, tuple):
        return labels
    try:
        lines = Path(labels).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SpecError(f"The label file {labels} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"The label file {labels} is not UTF-8 text; save it as UTF-8, one label per line.") from error
    return tuple(line.strip() for line in lines if line.strip())
