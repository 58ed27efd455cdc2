"""Transformers over tokens: a window is numbered from where the stream has come to, else it is the clip network's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from streaming import recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.continual.positions import recycle
from edgeco.models.transformer import TokenNet, audio_transformer, oad_b1, oad_b2, oad_deep

TOKENS, WIDTH = 6, 16


def small(layers: int, span: int | None = None, learned: bool = False) -> TokenNet:
    torch.manual_seed(0)
    net = TokenNet(5, WIDTH, 4, 24, 3, layers, span, 2 * TOKENS - 1, learned)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    return net.eval()


def numbered_from(net: TokenNet, window: Tensor, first: int) -> Tensor:
    """The clip network's answer where its first token has the number `first`."""
    x = recycle(net.embed(window), net.positions.table.to(window.dtype), 1, first)
    for layer in net.layers:
        x = layer(x)
    return net.head(net.norm(x[:, -1]))  # type: ignore[no-any-return]


def hold(net: TokenNet, exact: str | bool, tokens: int, batch: int, tolerance: float) -> edgeco.StepProgram:
    """Every answer is the clip network's to its window."""
    dtype = net.head.weight.dtype
    clip = torch.zeros(1, tokens, net.embed.in_features, dtype=dtype)
    program = edgeco.convert(net, clip, time_dim=1, exact=exact)
    long = recording(batch, 6 * tokens, net.embed.in_features, dtype=dtype)
    given = program.forward_steps(long)
    with torch.no_grad():
        expected = [numbered_from(net, long[:, i : i + tokens], i) for i in range(5 * tokens + 1)]
    assert relative(given, torch.stack(expected, 1)) <= tolerance
    figures = (program.receptive_field, program.delay, program.stride, program.exactness)
    assert figures == (tokens, tokens - 1, 1, "unpadded")
    return program


@pytest.mark.parametrize("learned", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_one_layer_streams(learned: bool) -> None:
    net = small(1, learned=learned)
    hold(net.double(), False, TOKENS, 3, 1e-12)
    hold(net.float(), False, TOKENS, 1, 1e-5)


def test_of_two_layers_the_second_sees_its_window_again() -> None:
    net = small(2)
    hold(net.double(), "interior", TOKENS, 3, 1e-12)
    hold(net.float(), "interior", TOKENS, 1, 1e-5)


@pytest.mark.parametrize("layers", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_the_deep_form_computes_the_newest_token_of_every_layer(layers: int) -> None:
    """Equal to the clip network on the whole recording, of which each token sees the ones in its span."""
    net = small(layers, span=TOKENS).double()
    program = edgeco.convert(net, torch.zeros(1, TOKENS, 5).double(), time_dim=1)
    assert program.receptive_field == layers * (TOKENS - 1) + 1
    long = recording(3, 40, 5)
    given = program.forward_steps(long)
    with torch.no_grad():
        expected = net.head(net.norm(net.tokens(long)))[:, TOKENS - 1 :]
        assert relative(given[:, 0], net(long[:, :TOKENS])) <= 1e-12
    assert relative(given, expected) <= 1e-12


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("layers", "span", "exact"), [(2, None, "interior"), (1, None, None), (3, TOKENS, None)])
def test_the_engine_agrees(layers: int, span: int | None, exact: str | None) -> None:
    assert max(differences(small(layers, span), (TOKENS, 5), 1, steps=110, rows=3, exact=exact).values()) < 1e-5


@pytest.mark.parametrize(
    ("factory", "features", "count"),
    [
        (oad_b1, 3072, 9_469_974),
        (oad_b1, 4096, 10_518_550),
        (oad_b2, 3072, 15_768_598),
        (oad_b2, 4096, 16_817_174),
    ],
)
def test_parameters_as_published(factory: Callable[..., nn.Module], features: int, count: int) -> None:
    """9.47 M and 10.52 M with one layer, 15.77 M and 16.82 M with two."""
    assert sum(p.numel() for p in factory(features=features).parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize("factory", [oad_b1, oad_b2, audio_transformer])
def test_at_full_length(factory: Callable[..., TokenNet]) -> None:
    torch.manual_seed(0)
    net = factory(features=24, width=64).double().eval()
    hold(net, getattr(factory, "exact", False), factory.clip[0], 1, 1e-11)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_deep_form_at_full_length() -> None:
    torch.manual_seed(0)
    net = oad_deep(features=24, width=64).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 64, 24).double(), time_dim=1)
    assert program.receptive_field == 4 * 63 + 1
    long = recording(1, 400, 24)
    with torch.no_grad():
        expected = net.head(net.norm(net.tokens(long)))[:, 63:]
    assert relative(program.forward_steps(long), expected) <= 1e-11
