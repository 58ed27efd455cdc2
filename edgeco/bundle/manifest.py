"""The manifest: everything a reader needs to know of a bundle, as typed, frozen records.

``docs/bundle.md`` is the specification; these records are its executable form. Unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

SCHEMA_VERSION = 1

DType = Literal["float32", "float16", "int8", "uint8"]
Storage = Literal["slots", "ring", "mirror", "carry"]
Size = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all manifest records: immutable, keyword-only, strict."""


class Input(Record, frozen=True):
    """One graph input that receives a frame.

    ``shape`` is that of one stream's frame, without the leading row axis, as the graph takes it: an image is
    (height, width, channels) in uint8, an array is in float32 in the network's own axis order.
    """

    name: str
    shape: tuple[Size, ...]
    dtype: DType
    kind: Literal["image", "array"]


class Output(Record, frozen=True):
    """One answer of the network; ``shape`` is one stream's, without the leading row axis."""

    name: str
    shape: tuple[Size, ...]
    dtype: DType
    valid_from: Count
    """Step (from reset, counted from 0) of the first valid answer."""
    delay: Count
    """Steps between a frame and the answer that describes it."""
    rate: Size = 1
    """Steps from one answer to the next: those at which ``step - valid_from`` is a multiple of it give one."""


class Read(Record, frozen=True):
    """A graph input that a history feeds: ``age`` steps old for ``slots``; the whole past (age None) otherwise."""

    name: str
    age: Size | None = None


class History(Record, frozen=True):
    """A value the network reads again in later steps.

    A graph tensor of ``slots`` and ``carry`` is (rows * rows_per_stream, *shape); of ``ring`` and ``mirror``
    (depth, rows * rows_per_stream, *shape): time outermost, so that an ordered window is one contiguous block
    whatever the number of rows. ``write`` is always (rows * rows_per_stream, *shape): the newest element.
    """

    name: str
    storage: Storage
    shape: tuple[Size, ...]
    dtype: DType
    depth: Size
    """Elements kept: the greatest age read."""
    reads: tuple[Read, ...]
    write: str
    border: float = 0.0
    """What lies before the first element, as stored: finite, the type's lowest number standing for -infinity."""
    starts_at: Count = 0
    """What is written before this step (from reset) is replaced by ``border``."""
    before: Literal["border", "first"] = "border"
    """``first``: what is written in step ``starts_at`` becomes the whole past, so that copies of it lie before it."""
    rows_per_stream: Size = 1
    buffers: Size = 1
    """slots: buffers in rotation, at least depth + 1, which make whole turns in a period. ring: depth.
    mirror: 2 * depth. carry: 2."""
    rate: Size = 1
    """Steps from one element to the next: those congruent to ``phase`` modulo ``rate`` write. Ages count elements."""
    phase: Count = 0


class Timeline(Record, frozen=True):
    """Time figures of the whole network, in steps."""

    clip_length: Size
    receptive_field: Size
    delay: Count
    valid_from: Count
    warm_from: Count
    """Step from which a whole receptive field of real frames has been seen (receptive_field - 1 at least)."""
    stride: Size = 1
    """Steps after which the work of the steps repeats: 1 where every step does the same."""
    period: Size = 1
    """Steps after which the slot buffers stand where they began, a multiple of ``stride``."""
    fps: float | None = None
    start: Literal["zeros", "replicate"] = "zeros"
    """What lies before a stream's first frame: nothing, and histories hold their border, or itself, for ever."""

    @property
    def lead(self) -> int:
        """Times a stream's first frame is stepped before it is taken, a multiple of ``stride``; steps count them."""
        return 0 if self.start == "zeros" else -(-self.warm_from // self.stride) * self.stride

    def first_answer(self, output: Output) -> int:
        """Frames before the one with an output's first valid answer."""
        late = output.valid_from - self.lead
        return late if late >= 0 else late % output.rate


class Preprocessing(Record, frozen=True):
    """How a camera image becomes the frame of an image input; the graph holds ``mean`` and ``std`` already."""

    size: tuple[Size, Size]
    """Height and width of the frame."""
    colour: Literal["rgb", "bgr", "gray"] = "rgb"
    resize: Literal["crop", "letterbox", "stretch"] = "crop"
    """crop: short side to the frame's, then centre crop; letterbox: long side to the frame's, then padding with
    ``pad_value``; stretch: both sides."""
    interpolation: Literal["area", "linear", "cubic", "nearest"] = "linear"
    roi: tuple[float, float, float, float] | None = None
    """Region of interest (left, top, right, bottom) as fractions of the image, cut out first."""
    pad_value: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class Stored(Record, frozen=True):
    """How a variant stores a history, where that is not as the manifest has it.

    A number is (code - ``zero_point``) * ``scale`` where the type is int8 or uint8.
    """

    dtype: DType
    border: float = 0.0
    """What lies before the first element, as stored: a code where the type is int8 or uint8."""
    scale: Annotated[float, msgspec.Meta(gt=0)] | None = None
    zero_point: int = 0


class Variant(Record, frozen=True):
    """One numeric form of the step graph: a graph member per phase of work, all over the same states and weights."""

    graphs: tuple[str, ...]
    """One per phase, ``timeline.stride`` of them; "" where a phase has nothing to do."""
    weights: str
    tolerance: Annotated[float, msgspec.Meta(gt=0)]
    """Greatest difference from the golden answers, relative to their greatest magnitude."""
    histories: dict[str, Stored] = {}
    """By name, the histories that this variant stores otherwise."""


class Preference(Record, frozen=True):
    """Which variant was the fastest on a kind of device, timed side by side; all of them had passed their gates."""

    variant: str
    machine: str
    """Architecture of the processor that was timed, as ``platform.machine()`` calls it: x86_64, aarch64."""
    milliseconds: dict[str, Annotated[float, msgspec.Meta(gt=0)]]
    """Median of a step, by variant."""


class Golden(Record, frozen=True):
    """Frames and the answers the network gives to them, from reset, in one safetensors member.

    Tensors ``frame.<input>`` (frames, *shape) and ``answer.<output>`` (steps, *shape). Step s takes frame s modulo
    ``frames``, so that a few frames serve a long stream; answers before ``valid_from`` are not to be compared.
    """

    member: str
    steps: Size
    frames: Size | None = None
    """Distinct frames; one per step if None."""


class Layer(Record, frozen=True):
    """What one kernel of an engine at its best does in a step, for one stream; counted in numbers, not bytes."""

    op: str
    """The operator that leads it, as the builder names it; informative."""
    macs: Count
    reads: Count
    """Numbers read that other layers or histories hold; those of the frame are not counted."""
    writes: Count
    weights: Count
    """Numbers of weights read: once, however many streams step together."""
    steps: tuple[Count, ...] = (0,)
    """Those of the stride's steps in which it runs."""


class Costs(Record, frozen=True):
    """Multiply-accumulates and bytes, as counted by ``edgeco.graph.cost``."""

    parameters: Count
    clip_macs: Count
    step_macs: Count
    state_bytes: Count
    layers: tuple[Layer, ...] = ()
    """In the order of the graph; empty where the builder did not count them."""


class Member(Record, frozen=True):
    """Size in bytes and sha256 (hex) of one member of the archive."""

    size: Count
    sha256: str


class Manifest(Record, frozen=True):
    """The whole manifest of a bundle."""

    schema_version: Size
    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    histories: tuple[History, ...]
    timeline: Timeline
    variants: dict[str, Variant]
    golden: Golden
    costs: Costs
    members: dict[str, Member]
    preferred: dict[str, Preference] = {}
    """By kind of device, of which there is ``cpu``: the variant to run there unless another is asked for."""
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    """What turns an output into scores for ``top``; the graph's own outputs are untouched."""
    provenance: dict[str, Any] = {}
    """Versions, the build specification and hashes of what went in; informative only."""

    def of_variant(self, name: str) -> Manifest:
        """The manifest as one of its variants is to be run: its histories as that stores them."""
        stored = self.variants[name].histories if name in self.variants else {}
        if not stored:
            return self
        histories = tuple(
            msgspec.structs.replace(history, dtype=own.dtype, border=own.border)
            if (own := stored.get(history.name)) is not None
            else history
            for history in self.histories
        )
        return msgspec.structs.replace(self, histories=histories)
