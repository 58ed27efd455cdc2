"""The coverage table of ``docs/operators.md``, made from the rules that are registered.

``python -m edgeco.continual.coverage`` prints it; a test holds the page against it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

_WINDOW = ("live window of the clip's elements", "exact", "mirror")
_FREE = ("the same, per element", "exact", "none; slots where branches of unequal delay meet")
_RENUMBERED = ("elements renumbered, nothing computed", "exact", "none")
_CARRIED = ("one cell a step", "unpadded: of the whole recording so far", "slots of age 1")
_RUNNING = ("one state a step", "unpadded: of the whole recording so far", "slots of age 1")
_SUMMARY = ("the newest of a window, by a ring", "exact; causal where it meets elements again", "ring")
_REPEATED = (
    "every element read back in the steps between, as often as was strided before; every n-th element",
    "exact",
    "slots of age 1",
)
_REFUSED = ("refused", "", "")

OVER_TIME: dict[str, tuple[str, str, str]] = {
    "convolution.convolution": (
        "a convolution per tap, or one over concatenated taps; any stride (to 16 in all), dilation, padding",
        "exact; unpadded where it pads",
        "slots; mirror where many elements are kept",
    ),
    "pooling.average": (
        "mean over the newest elements; any stride and padding, counted or not; ceil_mode unless padding is counted; "
        "no divisor_override",
        "exact; unpadded where it pads",
        "slots; ring from 5 elements on",
    ),
    "pooling.maximum": (
        "maximum over the newest elements; any stride, dilation, padding, rounding up",
        "exact; unpadded where it pads",
        "slots; ring from 5 elements on",
    ),
    "pooling.maximum_with_indices": ("as max pooling; indices are refused", "as max pooling", "as max pooling"),
    "pooling.adaptive_average": _SUMMARY,
    "pooling.adaptive_maximum": _SUMMARY,
    "reduction.separable": _SUMMARY,
    "reduction.other": _WINDOW,
    "attention.attention": (
        "the newest query over the keys and values kept; softmax(Q K^T) V written by hand likewise",
        "exact where one query is used; unpadded where a mask bounds what each sees; causal where each of a clip's "
        "queries sees all of it (exact=True: a live window)",
        "mirror",
    ),
    "axiswise.softmax": _WINDOW,
    "axiswise.ordered": ("refused; under exact=True a live window", "exact", "mirror"),
    "axiswise.ranked": _WINDOW,
    **{f"cumulative.running_{kind}": _RUNNING for kind in ("sum", "product", "maximum", "minimum", "logarithm")},
    "axiswise.picked": ("a slice, if the positions lie evenly apart", "exact", "none"),
    "axiswise.selected": ("a slice, if the positions lie evenly apart", "exact", "none"),
    "axiswise.gated": _WINDOW,
    "framewise.only_framewise": _REFUSED,
    "framewise.shuffled": _REFUSED,
    "framewise.channel_shuffle": _FREE,
    "creation.like": _FREE,
    "normalisation.functional_batch_norm": _FREE,
    "normalisation.batch_norm": _FREE,
    "normalisation.batch_norm_in_training": _REFUSED,
    "normalisation.layer_norm": _WINDOW,
    "normalisation.group_norm": _WINDOW,
    "pointwise.pointwise": _FREE,
    "pointwise.identity": _FREE,
    "pointwise.dropout": _FREE,
    "pointwise.cast": _FREE,
    "positions.recycle": ("the next row of the table", "unpadded: of the whole recording so far", "slots of age 1"),
    "products.linear": _WINDOW,
    "products.matmul": _WINDOW,
    "products.einsum": _WINDOW,
    "products.addmm": _WINDOW,
    "recurrent.rnn_tanh": _CARRIED,
    "recurrent.rnn_relu": _CARRIED,
    "recurrent.gru": _CARRIED,
    "recurrent.lstm": _CARRIED,
    "recurrent.packed": _REFUSED,
    "shape.reshape": (
        "time split from and merged with other axes; cut into groups of k, a stride",
        "exact",
        "none; mirror",
    ),
    "shape.unfold": ("groups of elements, as often as the stride says", "exact", "mirror"),
    "resizing.nearest": _REPEATED,
    "resizing.repeat_interleave": _REPEATED,
    "resizing.interpolated": (
        "linear by a whole factor, up to what was strided before: between an element and the next",
        "unpadded",
        "slots",
    ),
    "transposed.transposed_convolution": (
        "another part of the kernel for every remainder, in turn; a stride up to what was strided before",
        "exact; unpadded where its places overlap the ends",
        "slots",
    ),
    "shape.permute": _FREE,
    "shape.squeeze": _FREE,
    "shape.unsqueeze": _FREE,
    "shape.expand": ("a summary of the clip beside its elements", "causal", "none"),
    "shape.repeat": ("a summary of the clip beside its elements, as by expand", "causal", "none"),
    "slicing.slice_": ("elements renumbered; a step is a stride", "exact", "none"),
    "slicing.narrow": ("as slicing", "exact", "none"),
    "slicing.select": ("one element of the past", "exact", "slots"),
    "slicing.split": _RENUMBERED,
    "slicing.pad": ("what lies before the first element, a constant or copies of it", "unpadded", "none"),
    "slicing.cat": ("padding by constants; of several streams a live window", "unpadded; exact", "none; mirror"),
    "slicing.stack": ("of several streams a live window", "exact", "mirror"),
    "writing.slice_scatter": ("the parts around, joined with what is written", "as concatenation", "as concatenation"),
    "writing.select_scatter": ("the parts around, joined with what is written", "as concatenation", "as concatenation"),
    "writing.copy": _FREE,
}
"""What a rule makes of its operators where they run over the axis of time: form, exactness, storage."""


def name_of(rule: Callable[..., Any]) -> str:
    """``family.rule``, as in ``OVER_TIME``."""
    return f"{rule.__module__.rsplit('.', 1)[-1]}.{rule.__name__}"


def table() -> str:
    """The table in Markdown: a row per rule, its operators by name."""
    from edgeco.continual import rules
    from edgeco.continual.registry import registered

    found: dict[str, set[str]] = defaultdict(set)
    found[name_of(rules.pointwise.pointwise)] = {"every operator that PyTorch tags as pointwise"}
    for operator, rule in registered().items():
        if rule.__module__.startswith(rules.__name__):
            found[name_of(rule)].add(f"`{str(operator).removeprefix('aten.').removesuffix('.input')}`")
    lines = ["| operators | over time | answers | kept in |", "|---|---|---|---|"]
    for name in sorted(found):
        form, exactness, storage = OVER_TIME[name]
        lines.append(f"| {', '.join(sorted(found[name]))} | {form} | {exactness} | {storage} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201
