"""The oracle of a pruning: channels zeroed and channels removed must give the same answers, in double precision."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeco.errors import EdgecoError
from edgeco.graph.trace import ClipGraph, ClipInput
from edgeco.prune.cuts import Cut, Repair, cut_network, silence

TOLERANCE = 1e-12
"""Greatest difference relative to the greatest answer."""


class Mismatch(EdgecoError):
    """Removing channels is not the same as zeroing them, or the network no longer runs."""


def difference(net: nn.Module, clip: ClipGraph, cuts: Sequence[Cut], repairs: Sequence[Repair]) -> float:
    """How far a cut network is from the network with the same channels zeroed, on random clips of two sizes.

    The network is copied into double precision and evaluation; its norms' statistics, scales and shifts, and all
    tensors that hold one number over and over, are randomised first, for behind them mistakes hide.

    Returns:
        The greatest difference relative to the greatest answer, of all answers and sizes.

    Raises:
        Mismatch: the cut network does not run, or gives another shape, or something not finite.
    """
    generator = torch.Generator().manual_seed(0)
    zeroed = randomised(net, generator)
    removed = copy.deepcopy(zeroed)
    silence(zeroed, cuts)
    try:
        cut_network(removed, cuts, repairs)
    except (RuntimeError, IndexError) as error:
        raise Mismatch(f"a tensor cannot be cut ({_first_line(error)})") from error
    worst = 0.0
    with _double():
        for number, clips in enumerate(_clips(clip, generator)):
            try:
                expected = _answers(zeroed, clip, clips)
            except Exception as error:
                if number:
                    continue  # the network takes no such size
                raise Mismatch(f"the network does not run in double precision ({_first_line(error)})") from error
            try:
                given = _answers(removed, clip, clips)
            except Exception as error:
                raise Mismatch(f"without them the network does not run ({_first_line(error)})") from error
            worst = max(worst, _compared(given, expected))
    return worst


def verify(net: nn.Module, clip: ClipGraph, cuts: Sequence[Cut], repairs: Sequence[Repair]) -> float:
    """`difference`, or Mismatch if it is above `TOLERANCE`."""
    found = difference(net, clip, cuts, repairs)
    if not found <= TOLERANCE:
        raise Mismatch(f"with them removed the answers differ by {found:.1e} from those with them zeroed")
    return found


def randomised(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in double precision and evaluation in which no tensor is trivial."""
    made = copy.deepcopy(net).to(device="cpu", dtype=torch.float64).eval()
    names = {id(t): n for n, t in [*made.named_parameters(), *made.named_buffers()]}
    normed = _of_norms(made)
    for tensor in [*made.parameters(), *made.buffers()]:
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        name, kind = names[id(tensor)], normed.get(id(tensor))
        if kind is None and (isinstance(tensor, nn.Parameter) and bool((tensor == tensor.flatten()[0]).all())):
            kind = "scale"
        if kind is None and not name.endswith(("running_mean", "running_var")):
            continue
        low, high = {"scale": (0.5, 1.5), "shift": (-0.5, 0.5), None: (0.5, 2.0)}[kind]
        if name.endswith("running_mean"):
            low, high = -0.5, 0.5
        tensor.data = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * (high - low) + low
    return made


def _of_norms(net: nn.Module) -> dict[int, str]:
    """Scales and shifts of norms, by the tensor's id."""
    kinds: dict[int, str] = {}
    for module in net.modules():
        if isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
            for name, kind in (("weight", "scale"), ("bias", "shift")):
                tensor = getattr(module, name, None)
                if isinstance(tensor, Tensor):
                    kinds[id(tensor)] = kind
    return kinds


def _clips(clip: ClipGraph, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """Random clips of the network's own size with two rows, then longer ones with three."""
    yield [_random(item, item.shape, 2, generator) for item in clip.inputs]
    longer = []
    for item in clip.inputs:
        shape = list(item.shape)
        if item.time_dim is not None and clip.pinned is None:
            shape[item.time_dim] += 3 * max(i.rate for i in clip.inputs) // item.rate
        longer.append(_random(item, tuple(shape), 3, generator))
    yield longer


def _random(item: ClipInput, shape: tuple[int, ...], rows: int, generator: torch.Generator) -> Tensor:
    if not item.dtype.is_floating_point:
        return torch.randint(0, 2, (rows, *shape[1:]), generator=generator).to(item.dtype)
    return torch.randn((rows, *shape[1:]), generator=generator, dtype=torch.float64)


def _answers(net: nn.Module, clip: ClipGraph, clips: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        if clip.by_name:
            made = net(**{item.name: given.clone() for item, given in zip(clip.inputs, clips, strict=True)})
        else:
            made = net(*(given.clone() for given in clips))
    return [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor)]


def _compared(given: list[Tensor], expected: list[Tensor]) -> float:
    worst = 0.0
    for a, b in zip(given, expected, strict=True):
        if a.shape != b.shape:
            raise Mismatch(f"without them an answer has the shape {tuple(a.shape)} instead of {tuple(b.shape)}")
        if not bool(torch.isfinite(a).all()) or not bool(torch.isfinite(b).all()):
            raise Mismatch("an answer is not finite on random clips, which proves nothing")
        worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)) if b.numel() else 0.0)
    return worst


@contextlib.contextmanager
def _double() -> Iterator[None]:
    """Constants that the network makes as it runs are double, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:160].rstrip(".")
