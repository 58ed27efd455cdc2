"""Every relation between the fields of a manifest, broken one at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from toy_bundle import toy_manifest

from edgeco.bundle.manifest import Input, Layer, Member, Output, Preference, Preprocessing, Read
from edgeco.bundle.validate import state_bytes, validate
from edgeco.errors import BundleError

MEMBER = Member(size=1, sha256="0" * 64)
MEMBERS = dict.fromkeys(("graphs/fp32.onnx", "weights/fp32.safetensors", "golden.safetensors"), MEMBER)
SCORE = Output(name="score", shape=(3,), dtype="float32", valid_from=2, delay=2)
IMAGE = Input(name="frame", shape=(4, 5, 3), dtype="uint8", kind="image")
PREPROCESSING = Preprocessing(size=(4, 5))
WHOLE = (Read(name="h000_1"),)


def changed(**changes: Any) -> Any:
    return toy_manifest(members=MEMBERS, **changes)


def history(**changes: Any) -> Any:
    return changed(histories=(msgspec.structs.replace(toy_manifest().histories[0], **changes),))


def timeline(**changes: Any) -> Any:
    return changed(timeline=msgspec.structs.replace(toy_manifest().timeline, **changes))


def output(**changes: Any) -> Any:
    return changed(outputs=(msgspec.structs.replace(SCORE, **changes),))


def image(frame: dict[str, Any] | None = None, **changes: Any) -> Any:
    spec = msgspec.structs.replace(PREPROCESSING, **changes)
    return changed(inputs=(msgspec.structs.replace(IMAGE, **(frame or {})),), preprocessing=spec)


def variant(name: str = "fp32", **changes: Any) -> Any:
    return changed(variants={name: msgspec.structs.replace(toy_manifest().variants["fp32"], **changes)})


def prefers(target: str = "cpu", **changes: Any) -> Any:
    told = Preference(variant="fp32", machine="x86_64", milliseconds={"fp32": 1.0})
    return changed(preferred={target: msgspec.structs.replace(told, **changes)})


LAYER = Layer(op="conv2d", macs=3, reads=6, writes=3, weights=3)


def layered(*layers: Layer, **costs: Any) -> Any:
    return changed(costs=msgspec.structs.replace(toy_manifest().costs, layers=layers, **costs))


def even(**changes: Any) -> Any:
    """A history of another storage than slots, under an even period."""
    kept = msgspec.structs.replace(toy_manifest().histories[0], reads=WHOLE, **changes)
    return changed(histories=(kept,), timeline=msgspec.structs.replace(toy_manifest().timeline, period=2))


GOOD = {
    "slots": changed(),
    "slots with spare buffers": changed(
        histories=(msgspec.structs.replace(toy_manifest().histories[0], buffers=6),),
        timeline=msgspec.structs.replace(toy_manifest().timeline, period=6),
    ),
    "ring": even(storage="ring", depth=5, buffers=5),
    "mirror": even(storage="mirror", depth=5, buffers=10),
    "carry": even(storage="carry", depth=1, buffers=2),
    "no history": changed(histories=()),
    "no labels": changed(labels=None),
    "image": image(),
    "gray image": image({"shape": (4, 5, 1)}, colour="gray", mean=(1.0,), std=(1.0,)),
    "region": image(roi=(0.0, 0.25, 1.0, 0.75)),
    "lowest border": history(border=-3.4028234663852886e38),
    "copies of the first element": history(before="first", starts_at=2),
    "integer border": history(dtype="uint8", border=128.0),
    "layers": layered(msgspec.structs.replace(LAYER, macs=2), msgspec.structs.replace(LAYER, op="mul", macs=1)),
    "layers of some steps": changed(
        timeline=msgspec.structs.replace(toy_manifest().timeline, stride=3),
        variants={"fp32": msgspec.structs.replace(toy_manifest().variants["fp32"], graphs=("graphs/fp32.onnx",) * 3)},
        costs=msgspec.structs.replace(
            toy_manifest().costs, layers=(msgspec.structs.replace(LAYER, macs=5, steps=(0, 2)),)
        ),
    ),
    "scalar answer": changed(
        outputs=(SCORE, msgspec.structs.replace(SCORE, name="energy", shape=(), valid_from=0, delay=0))
    ),
}

BAD = {
    "empty name": (changed(name=""), "network's name is empty"),
    "terminal codes in the name": (changed(name="\x1b[31mtoy"), "control characters"),
    "no input": (changed(inputs=()), "no input"),
    "no output": (changed(outputs=()), "no output"),
    "one name twice": (history(write="h000_1"), "tensor name 'h000_1' is given to two things"),
    "history named as input": (history(reads=(Read(name="frame", age=1),)), "'frame' is given to two things"),
    "two histories of one name": (
        changed(
            histories=(
                toy_manifest().histories[0],
                msgspec.structs.replace(toy_manifest().histories[0], reads=(Read(name="r", age=2),), write="v"),
            )
        ),
        "history name 'h000' is given to two things",
    ),
    "empty tensor name": (output(name=""), "tensor name '' is empty"),
    "image of floats": (image({"dtype": "float32"}), "an image is uint8"),
    "image of two channels": (image({"shape": (4, 5, 2)}), r"\(height, width, 1 or 3\)"),
    "array of bytes": (changed(inputs=(msgspec.structs.replace(IMAGE, kind="array"),)), "an array is float32"),
    "endless frame": (
        changed(inputs=(Input(name="frame", shape=(2**20, 2**20), dtype="float32", kind="array"),)),
        "more than 268435456 elements",
    ),
    "too many axes": (output(shape=(1,) * 9), "more than 8 axes"),
    "valid before its delay": (output(valid_from=1), "valid from step 1, before its delay of 2"),
    "timeline valid too early": (timeline(valid_from=1), "valid later than the timeline"),
    "timeline valid too late": (timeline(valid_from=3), "valid from 3, its outputs from 2"),
    "delay of no output": (timeline(delay=1), "has delay 1, its outputs 2"),
    "endless start": (
        timeline(start="replicate", warm_from=65537),
        "a stream starts with 65537 steps of its first frame; the limit is 65536",
    ),
    "warm too early": (timeline(warm_from=1), "warm_from is 1, before receptive_field - 1 = 2"),
    "stride": (timeline(stride=17, period=51), "stride is 17; the limit is 16"),
    "period": (timeline(period=3000), "period is 3000; the limit is 1024"),
    "period and stride": (timeline(stride=2), "period 3 is not a multiple of the stride 2"),
    "frame rate": (timeline(fps=0.0), "fps is 0.0"),
    "read by nothing": (history(reads=()), "read by nothing"),
    "first element of a carry": (
        even(storage="carry", depth=1, buffers=2, before="first"),
        "no first element to put before its own",
    ),
    "first element in a step that writes none": (
        changed(
            histories=(msgspec.structs.replace(toy_manifest().histories[0], rate=2, before="first", starts_at=1),),
            timeline=msgspec.structs.replace(toy_manifest().timeline, stride=2, period=6),
        ),
        "no first element to put before its own",
    ),
    "border beyond half": (history(dtype="float16", border=1e5), "float16 cannot hold"),
    "border between integers": (history(dtype="int8", border=0.5), "int8 cannot hold"),
    "slot without age": (history(reads=(Read(name="r"),)), "kept in slots and has a read without an age"),
    "one age twice": (history(reads=(Read(name="a", age=2), Read(name="b", age=2))), "two reads of one age"),
    "age beyond depth": (history(reads=(Read(name="r", age=3),)), r"keeps 2 elements and is read at age 3\.$"),
    "depth beyond age": (history(reads=(Read(name="r", age=1),)), "read at age 1 at most"),
    "too few buffers": (
        changed(
            histories=(msgspec.structs.replace(toy_manifest().histories[0], buffers=2),),
            timeline=msgspec.structs.replace(toy_manifest().timeline, period=2),
        ),
        "has 2 buffers; 2 elements and the new one need 3",
    ),
    "buffers beside the period": (history(buffers=4), "4 buffers, which does not divide the period 3"),
    "ring read at an age": (history(storage="ring", buffers=2), "one read without an age"),
    "ring of wrong size": (even(storage="ring", depth=5, buffers=6), "ring of 6 buffers; it must have 5"),
    "mirror of wrong size": (even(storage="mirror", depth=5, buffers=5), "mirror of 5 buffers; it must have 10"),
    "deep carry": (even(storage="carry", depth=2, buffers=2), "carry of depth 2"),
    "carry in one buffer": (even(storage="carry", depth=1, buffers=1), "carry of 1 buffers; it must have 2"),
    "carry of odd period": (
        history(storage="carry", depth=1, buffers=2, reads=WHOLE),
        "2 buffers, which does not divide the period 3",
    ),
    "state beyond memory": (history(shape=(2**20, 2**12)), "the limit is 4294967296"),
    "state of many axes": (history(shape=(1,) * 7), "more than 6 axes"),
    "image without preprocessing": (changed(inputs=(IMAGE,)), "an image input and no preprocessing"),
    "preprocessing without image": (changed(preprocessing=PREPROCESSING), "preprocessing and no image input"),
    "size": (image(size=(5, 4)), r"preprocessing gives \(5, 4, 3\)"),
    "colour": (image(colour="gray"), r"preprocessing gives \(4, 5, 1\)"),
    "mean": (image(mean=(0.0, 0.0)), "2 values of mean for 3 channels"),
    "std": (image(std=(1.0, 0.0, 1.0)), "a std that is not above 0"),
    "empty region": (image(roi=(0.5, 0.0, 0.5, 1.0)), "region of interest"),
    "region outside": (image(roi=(0.0, 0.0, 1.0, 1.5)), "region of interest"),
    "labels": (changed(labels=("one",)), "1 labels and no output whose last axis has 1"),
    "no variant": (changed(variants={}), "no variant"),
    "variant name": (variant("../fp32"), "a name that is not plain"),
    "preferred": (prefers(variant="int8"), "names a variant 'int8', which there is not"),
    "preferred, timed": (prefers(milliseconds={"fp32": 1.0, "int8": 2.0}), "names a variant 'int8', which there is"),
    "preferred, not timed": (prefers(milliseconds={}), "a variant that was not timed"),
    "preferred, of no machine": (prefers(machine=""), "names no machine"),
    "preferred, for what": (prefers(""), "a name that is empty"),
    "graphs": (variant(graphs=()), "has 0 graphs for a stride of 1"),
    "graph not there": (variant(graphs=("graphs/x.onnx",)), "names member 'graphs/x.onnx', which the bundle does not"),
    "weights not there": (variant(weights="w"), "names member 'w', which the bundle does not"),
    "golden not there": (
        changed(golden=msgspec.structs.replace(toy_manifest().golden, member="g")),
        "golden frames are in member 'g', which the bundle does not hold",
    ),
    "golden too short": (
        changed(golden=msgspec.structs.replace(toy_manifest().golden, steps=2)),
        "have 2 steps; the first valid answer needs 3",
    ),
    "layers beside the costs": (layered(LAYER, LAYER), "have 6 multiply-accumulates a step, its costs 3"),
    "layer beyond the stride": (layered(msgspec.structs.replace(LAYER, steps=(1,))), r"in steps \(1,\) of a stride"),
    "layer of no step": (layered(msgspec.structs.replace(LAYER, steps=())), "of a stride of 1"),
    "layer twice in a step": (layered(msgspec.structs.replace(LAYER, steps=(0, 0))), "of a stride of 1"),
    "layer without a name": (layered(msgspec.structs.replace(LAYER, op="\x1b")), "a layer's operator"),
    "hash": (toy_manifest(members=MEMBERS | {"a": Member(size=1, sha256="0" * 63)}), "member 'a' is not a sha256"),
}


@pytest.mark.parametrize("manifest", GOOD.values(), ids=GOOD.keys())
def test_accepted(manifest: Any) -> None:
    validate(manifest)


@pytest.mark.parametrize(("manifest", "sentence"), BAD.values(), ids=BAD.keys())
def test_refused(manifest: Any, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence) as caught:
        validate(manifest)
    message = str(caught.value)
    assert message.startswith("manifest.json does not hold together: ") and message.endswith(".")
    assert message.isprintable()


def test_state_bytes_count_every_buffer() -> None:
    kept = msgspec.structs.replace(toy_manifest().histories[0], rows_per_stream=2, dtype="float16")
    assert state_bytes(kept) == 3 * 2 * 3 * 2
