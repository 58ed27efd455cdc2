"""Golden frames: what goes in from reset, and the answers the network gave when the bundle was built."""

from __future__ import annotations

from collections.abc import Mapping

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.tensors import Tensor
from edgeco.bundle.text import shown
from edgeco.errors import BundleError

FRAME, ANSWER = "frame.", "answer."


def check_golden(manifest: Manifest, tensors: Mapping[str, Tensor]) -> None:
    """Check that there is one tensor for each input and output, of its type and shape.

    Raises:
        BundleError: one is missing, one too many, or of another type or shape.
    """
    name, steps = manifest.golden.member, manifest.golden.steps
    frames = manifest.golden.frames or steps
    expected = {FRAME + entry.name: (entry.dtype, (frames, *entry.shape)) for entry in manifest.inputs}
    expected |= {ANSWER + entry.name: (entry.dtype, (steps, *entry.shape)) for entry in manifest.outputs}
    for key, (dtype, shape) in expected.items():
        tensor = tensors.get(key)
        if tensor is None:
            raise BundleError(f"{name} lacks the golden tensor {shown(key)}.")
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            found = f"{tensor.dtype} {tensor.shape}"
            raise BundleError(f"golden tensor {shown(key)} is {found}; the manifest gives {dtype} {shape}.")
    for key in tensors:
        if key not in expected:
            raise BundleError(f"{name} holds {shown(key)}, which is no input's frames and no output's answers.")
