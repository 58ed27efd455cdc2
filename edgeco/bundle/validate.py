"""Whether the fields of a manifest fit each other. Single fields are checked before, by ``decode_manifest``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from edgeco.bundle.archive import MANIFEST
from edgeco.bundle.limits import (
    MAX_ELEMENTS,
    MAX_LEAD,
    MAX_NAME,
    MAX_PERIOD,
    MAX_RANK,
    MAX_STATE,
    MAX_STRIDE,
)
from edgeco.bundle.manifest import (
    History,
    Input,
    Manifest,
    Output,
    Preference,
    Preprocessing,
    Stored,
    Timeline,
    Variant,
)
from edgeco.bundle.text import shown
from edgeco.errors import BundleError

ITEM_SIZES = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1}
"""Bytes of one element, by type."""
RANGES = {
    "float32": (-3.4028234663852886e38, 3.4028234663852886e38),
    "float16": (-65504.0, 65504.0),
    "int8": (-128.0, 127.0),
    "uint8": (0.0, 255.0),
}
"""Least and greatest value, by type."""
_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASH = re.compile(r"[0-9a-f]{64}")


def validate(manifest: Manifest) -> None:
    """Check all relations between the fields of a manifest.

    Raises:
        BundleError: with the first relation that does not hold, as one sentence.
    """
    _require(_plain(manifest.name), "the network's name is empty, too long or has control characters")
    _check_names(manifest)
    for frame in manifest.inputs:
        _check_input(frame)
    for answer in manifest.outputs:
        _check_output(answer, manifest.timeline)
    _check_timeline(manifest.timeline, manifest.outputs)
    for history in manifest.histories:
        _check_history(history, manifest.timeline)
    state = sum(state_bytes(history) for history in manifest.histories)
    _require(state <= MAX_STATE, f"the histories take {state} bytes for one stream; the limit is {MAX_STATE}")
    _check_images(manifest)
    _check_labels(manifest)
    _require(bool(manifest.variants), "it has no variant of the network")
    for name, variant in manifest.variants.items():
        _check_variant(name, variant, manifest)
    for target, preference in manifest.preferred.items():
        _check_preference(target, preference, manifest)
    _check_golden(manifest)
    _check_layers(manifest)
    for name, member in manifest.members.items():
        _require(bool(_HASH.fullmatch(member.sha256)), f"the hash of member {shown(name)} is not a sha256")


def state_bytes(history: History) -> int:
    """Bytes of all buffers of one history, for one stream."""
    return history.buffers * history.rows_per_stream * math.prod(history.shape) * ITEM_SIZES[history.dtype]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BundleError(f"{MANIFEST} does not hold together: {otherwise}.")


def _plain(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def _check_names(manifest: Manifest) -> None:
    _require(bool(manifest.inputs), "it has no input")
    _require(bool(manifest.outputs), "it has no output")
    tensors = [entry.name for entry in manifest.inputs]
    tensors += [entry.name for entry in manifest.outputs]
    for history in manifest.histories:
        tensors += [read.name for read in history.reads]
        tensors.append(history.write)
    _check_distinct(tensors, "tensor")
    _check_distinct([history.name for history in manifest.histories], "history")


def _check_distinct(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        _require(_plain(name), f"{what} name {shown(name)} is empty, too long or has control characters")
        _require(name not in seen, f"{what} name {shown(name)} is given to two things")
        seen.add(name)


def _check_shape(shape: Sequence[int], what: str) -> None:
    _require(len(shape) <= MAX_RANK, f"{what} has more than {MAX_RANK} axes")
    _require(math.prod(shape) <= MAX_ELEMENTS, f"{what} has more than {MAX_ELEMENTS} elements")


def _check_input(frame: Input) -> None:
    what = f"input {shown(frame.name)}"
    _check_shape(frame.shape, what)
    if frame.kind == "image":
        _require(frame.dtype == "uint8", f"{what} is an image of {frame.dtype}; an image is uint8")
        fits = len(frame.shape) == 3 and frame.shape[2] in (1, 3)
        _require(fits, f"{what} is an image of shape {frame.shape}; an image is (height, width, 1 or 3)")
    else:
        _require(frame.dtype == "float32", f"{what} is an array of {frame.dtype}; an array is float32")


def _check_output(answer: Output, timeline: Timeline) -> None:
    what = f"output {shown(answer.name)}"
    _check_shape(answer.shape, what)
    late = answer.valid_from >= answer.delay
    _require(late, f"{what} is valid from step {answer.valid_from}, before its delay of {answer.delay} has passed")
    _require(answer.valid_from <= timeline.valid_from, f"{what} is valid later than the timeline's valid_from")
    whole = timeline.stride % answer.rate == 0
    _require(whole, f"{what} has rate {answer.rate}, which does not divide the stride {timeline.stride}")


def _check_timeline(timeline: Timeline, outputs: Sequence[Output]) -> None:
    last, delay = max(answer.valid_from for answer in outputs), max(answer.delay for answer in outputs)
    _require(timeline.valid_from == last, f"the timeline is valid from {timeline.valid_from}, its outputs from {last}")
    _require(timeline.delay == delay, f"the timeline has delay {timeline.delay}, its outputs {delay}")
    warm = timeline.receptive_field - 1
    _require(timeline.warm_from >= warm, f"warm_from is {timeline.warm_from}, before receptive_field - 1 = {warm}")
    _require(timeline.stride <= MAX_STRIDE, f"the stride is {timeline.stride}; the limit is {MAX_STRIDE}")
    lead = timeline.lead
    _require(lead <= MAX_LEAD, f"a stream starts with {lead} steps of its first frame; the limit is {MAX_LEAD}")
    _require(timeline.period <= MAX_PERIOD, f"the period is {timeline.period}; the limit is {MAX_PERIOD}")
    whole = timeline.period % timeline.stride == 0
    _require(whole, f"the period {timeline.period} is not a multiple of the stride {timeline.stride}")
    _require(timeline.fps is None or timeline.fps > 0, f"fps is {timeline.fps}, not above 0")


def _check_history(history: History, timeline: Timeline) -> None:
    what = f"history {shown(history.name)}"
    _require(bool(history.reads), f"{what} is read by nothing")
    _require(len(history.shape) <= MAX_RANK - 2, f"{what} has more than {MAX_RANK - 2} axes of its own")
    low, high = RANGES[history.dtype]
    held = low <= history.border <= high and (history.dtype.startswith("float") or history.border.is_integer())
    _require(held, f"{what} has border {history.border}, which {history.dtype} cannot hold")
    begins = history.storage != "carry" and history.starts_at % history.rate == history.phase
    _require(history.before == "border" or begins, f"{what} has no first element to put before its own")
    fits = timeline.stride % history.rate == 0 and history.phase < history.rate
    _require(fits, f"{what} has rate {history.rate} and phase {history.phase}, in a stride of {timeline.stride}")
    if history.storage in ("slots", "carry"):
        turns = timeline.period // history.rate
        text = f"the period {timeline.period}" + (f" at rate {history.rate}" if history.rate > 1 else "")
        divides = turns % history.buffers == 0
        _require(divides, f"{what} has {history.buffers} buffers, which does not divide {text}")
    if history.storage == "slots":
        _check_slots(history, what)
        return
    kind = f"{what} is a {history.storage}"
    whole = len(history.reads) == 1 and history.reads[0].age is None
    _require(whole, f"{kind} and must have one read without an age")
    if history.storage == "carry":
        _require(history.depth == 1, f"{kind} of depth {history.depth}; it must be 1")
    buffers = {"ring": history.depth, "mirror": 2 * history.depth, "carry": 2}[history.storage]
    _require(history.buffers == buffers, f"{kind} of {history.buffers} buffers; it must have {buffers}")


def _check_stored(stored: Stored, what: str) -> None:
    low, high = RANGES[stored.dtype]
    coded = stored.dtype in ("int8", "uint8")
    held = low <= stored.border <= high and (not coded or stored.border.is_integer())
    _require(held, f"{what} has border {stored.border}, which {stored.dtype} cannot hold")
    _require(coded == (stored.scale is not None), f"{what} has a scale if and only if it is stored in codes")
    inside = low <= stored.zero_point <= high if coded else stored.zero_point == 0
    _require(inside, f"{what} has zero point {stored.zero_point}, which is no code of {stored.dtype}")


def _check_slots(history: History, what: str) -> None:
    ages = [read.age for read in history.reads if read.age is not None]
    _require(len(ages) == len(history.reads), f"{what} is kept in slots and has a read without an age")
    _require(len(set(ages)) == len(ages), f"{what} has two reads of one age")
    depth, oldest = history.depth, max(ages)
    _require(oldest <= depth, f"{what} keeps {depth} elements and is read at age {oldest}")
    _require(oldest == depth, f"{what} keeps {depth} elements and is read at age {oldest} at most")
    enough = history.buffers >= depth + 1
    _require(enough, f"{what} has {history.buffers} buffers; {depth} elements and the new one need {depth + 1}")


def _check_images(manifest: Manifest) -> None:
    images = [frame for frame in manifest.inputs if frame.kind == "image"]
    spec = manifest.preprocessing
    _require(spec is not None or not images, "it has an image input and no preprocessing")
    _require(spec is None or bool(images), "it has preprocessing and no image input")
    if spec is None:
        return
    channels = 1 if spec.colour == "gray" else 3
    shape = (*spec.size, channels)
    for frame in images:
        fits = frame.shape == shape
        _require(fits, f"input {shown(frame.name)} has shape {frame.shape}; preprocessing gives {shape}")
    _check_preprocessing(spec, channels)


def _check_preprocessing(spec: Preprocessing, channels: int) -> None:
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        count = len(values)
        _require(count in (1, channels), f"preprocessing has {count} values of {name} for {channels} channels")
    _require(all(value > 0 for value in spec.std), "preprocessing has a std that is not above 0")
    if spec.roi is not None:
        left, top, right, bottom = spec.roi
        inside = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        _require(inside, f"the region of interest {spec.roi} is not (left, top, right, bottom) within 0 to 1")


def _check_labels(manifest: Manifest) -> None:
    if manifest.labels is None:
        return
    count = len(manifest.labels)
    fits = any(answer.shape and answer.shape[-1] == count for answer in manifest.outputs)
    _require(fits, f"it has {count} labels and no output whose last axis has {count} elements")


def _check_variant(name: str, variant: Variant, manifest: Manifest) -> None:
    what = f"variant {shown(name)}"
    _require(bool(_VARIANT.fullmatch(name)) and len(name) <= MAX_NAME, f"{what} has a name that is not plain")
    graphs, stride = len(variant.graphs), manifest.timeline.stride
    _require(graphs == stride, f"{what} has {graphs} graphs for a stride of {stride}; it must name one for each phase")
    _require(any(variant.graphs), f"{what} names no graph")
    known = {history.name: history for history in manifest.histories}
    for history, stored in variant.histories.items():
        _require(history in known, f"{what} stores a history {shown(history)}, which there is not")
        _check_stored(stored, f"history {shown(history)} of {what}")
    state = sum(state_bytes(history) for history in manifest.of_variant(name).histories)
    _require(state <= MAX_STATE, f"the histories of {what} take {state} bytes; the limit is {MAX_STATE}")
    for member in (*filter(None, variant.graphs), variant.weights):
        _require(member in manifest.members, f"{what} names member {shown(member)}, which the bundle does not hold")


def _check_preference(target: str, preference: Preference, manifest: Manifest) -> None:
    what = f"the preference for {shown(target)}"
    _require(_plain(target), f"{what} has a name that is empty, too long or has control characters")
    _require(_plain(preference.machine), f"{what} names no machine")
    timed = preference.milliseconds
    for name in (preference.variant, *timed):
        _require(name in manifest.variants, f"{what} names a variant {shown(name)}, which there is not")
    _require(preference.variant in timed, f"{what} is a variant that was not timed")


def _check_golden(manifest: Manifest) -> None:
    golden, needed = manifest.golden, manifest.timeline.valid_from + 1
    held = golden.member in manifest.members
    _require(held, f"the golden frames are in member {shown(golden.member)}, which the bundle does not hold")
    enough = golden.steps >= needed
    _require(enough, f"the golden frames have {golden.steps} steps; the first valid answer needs {needed}")


def _check_layers(manifest: Manifest) -> None:
    layers, stride = manifest.costs.layers, manifest.timeline.stride
    for layer in layers:
        _require(_plain(layer.op), "a layer's operator is empty, too long or has control characters")
        steps = layer.steps
        rising = bool(steps) and all(a < b for a, b in pairwise(steps)) and steps[-1] < stride
        _require(rising, f"layer {shown(layer.op)} runs in steps {steps} of a stride of {stride}")
    total = sum(layer.macs * len(layer.steps) for layer in layers) // stride
    counted = manifest.costs.step_macs
    fits = not layers or total == counted
    _require(fits, f"its layers have {total} multiply-accumulates a step, its costs {counted}")
