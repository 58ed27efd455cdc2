"""Attention over time: one query exactly, bounded sight exactly, every query in its causal form or by live windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from engine_parity import differences, exported
from streaming import clip_answers, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.export.package import step_layers

TOKENS, WIDTH = 7, 8


@pytest.fixture(autouse=True)
def plain_layers() -> Iterator[None]:
    """PyTorch's fused encoder layer takes no part in an oracle that looks inside."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


class Encoder(nn.Module):
    """An ordinary encoder over (batch, time, width), and what is made of its tokens."""

    def __init__(self, layers: int, use: str = "newest", *, first: bool = False, causal: bool = False) -> None:
        super().__init__()
        torch.manual_seed(layers)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, norm_first=first)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for parameter in self.encoder.parameters():
            nn.init.normal_(parameter, 0.1, 0.4)
        self.head, self.use, self.causal = nn.Linear(WIDTH, 3), use, causal

    def forward(self, x: Tensor) -> Tensor:
        mask = None
        if self.causal:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        y = self.encoder(x, mask=mask, is_causal=self.causal)
        if self.use == "newest":
            return self.head(y[:, -1])
        return self.head(y.mean(1) if self.use == "mean" else y)


@contextmanager
def seeing(span: int) -> Iterator[None]:
    """Every token of a whole recording attends to the `span` tokens that end at it."""
    ordinary = F.scaled_dot_product_attention

    def banded(query: Tensor, key: Tensor, value: Tensor, *args: object, **kwargs: object) -> Tensor:
        age = torch.arange(query.shape[-2])[:, None] - torch.arange(key.shape[-2])
        return ordinary(query, key, value, (age >= 0) & (age < span))

    F.scaled_dot_product_attention = banded
    try:
        yield
    finally:
        F.scaled_dot_product_attention = ordinary


def converted(net: nn.Module, exact: bool = False, tokens: int = TOKENS) -> edgeco.StepProgram:
    return edgeco.convert(net.double().eval(), torch.zeros(1, tokens, WIDTH).double(), time_dim=1, exact=exact)


@pytest.mark.parametrize("use", ["newest", "mean", "every"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_stack_streams_in_its_causal_form(layers: int, use: str) -> None:
    """Exact against the same weights over the whole recording, each token of it seeing the tokens before it."""
    net = Encoder(layers, use).double().eval()
    program = converted(net)
    grade = "exact" if layers == 1 and use == "newest" else "causal"
    assert program.exactness == grade
    depth = layers * (TOKENS - 1) + (TOKENS if use == "mean" else 1)
    assert (program.receptive_field, program.valid_from) == (depth, depth - 1)
    for rows in (1, 4):
        long = recording(rows, 5 * depth, WIDTH)
        program.clean_state()
        given = program.forward_steps(long)
        with torch.no_grad(), seeing(TOKENS):
            tokens = net.encoder(long)
        if use == "mean":
            tokens = tokens.unfold(1, TOKENS, 1).mean(-1)
        expected = net.head(tokens)[:, -given.shape[1] :]
        assert given.shape[1] == 5 * depth - program.valid_from and relative(given, expected) < 1e-12


@pytest.mark.parametrize("first", [True, False], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("use", ["newest", "mean", "every"])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_stack_by_live_windows_is_the_clip_network(layers: int, use: str, first: bool) -> None:
    net = Encoder(layers, use, first=first).double().eval()
    program = converted(net, exact=True)
    assert (program.exactness, program.receptive_field) == ("exact", TOKENS)
    long = recording(4, 6 * TOKENS, WIDTH)
    given = program.forward_steps(long)
    expected = clip_answers(net, long, TOKENS, 1)
    assert relative(given, expected) < 1e-12


@pytest.mark.parametrize("use", ["newest", "every"])
def test_a_causal_mask_equals_the_clip_network_while_it_sees_all(use: str) -> None:
    """As far back as the clip reaches a stream has seen the same tokens; from then on it forgets the oldest."""
    net = Encoder(2, use, causal=True).double().eval()
    program = converted(net)
    long = recording(2, 5 * TOKENS, WIDTH)
    given = program.forward_steps(long)
    with torch.no_grad(), seeing(TOKENS):
        expected = net.head(net.encoder(long))
    first = 0 if use == "every" else TOKENS - 1
    assert (program.valid_from, program.exactness) == (first, "causal")
    assert relative(given, expected[:, first:]) < 1e-12
    with torch.no_grad():
        clip = net(long[:, :TOKENS])
    assert relative(given[:, :TOKENS] if use == "every" else given[:, 0], clip) < 1e-12


class Written(nn.Module):
    """softmax(Q K^T) V by hand, in one of its usual spellings."""

    def __init__(self, spelling: str, use: str = "newest") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 5)
        self.spelling, self.use = spelling, use
        self.register_buffer("later", torch.triu(torch.ones(64, 64, dtype=torch.bool), 1))
        self.register_buffer("slope", -0.3 * (torch.arange(64)[:, None] - torch.arange(64)).abs())

    def forward(self, x: Tensor) -> Tensor:
        length, heads = x.shape[1], 2
        shape = (x.shape[0], length, heads, WIDTH // heads)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in self.project(x).chunk(3, -1))
        scores = self.scores(q, k, length)
        weights = F.dropout(scores.softmax(-1), 0.1, self.training)
        mixed = torch.einsum("bhij,bhjd->bihd", weights, v) if self.spelling == "einsum" else weights @ v
        if self.spelling != "einsum":
            mixed = mixed.transpose(1, 2)
        y = self.out(mixed.reshape(x.shape[0], length, WIDTH))
        return y[:, -1] if self.use == "newest" else y

    def scores(self, q: Tensor, k: Tensor, length: int) -> Tensor:
        scale = math.sqrt(q.shape[-1])
        if self.spelling == "einsum":
            return torch.einsum("bhid,bhjd->bhij", q, k) / scale
        scores = q @ k.transpose(-2, -1) / scale
        later = self.later[:length, :length]
        if self.spelling == "filled":
            return scores.masked_fill(later, float("-inf"))
        if self.spelling == "where":
            return torch.where(later, torch.full_like(scores, -1e9), scores)
        if self.spelling == "banded":
            return scores.masked_fill(later | self.later[:length, :length].T.tril(-3), -torch.inf)
        return scores + self.slope[:length, :length] if self.spelling == "sloped" else scores


@pytest.mark.parametrize("spelling", ["plain", "einsum", "filled", "where", "sloped", "banded"])
def test_attention_written_by_hand_asks_the_newest_query(spelling: str) -> None:
    net = Written(spelling).double().eval()
    program = converted(net)
    assert (program.exactness, program.receptive_field) == ("exact", TOKENS)
    long = recording(2, 6 * TOKENS, WIDTH)
    given = program.forward_steps(long)
    expected = clip_answers(net, long, TOKENS, 1)
    assert relative(given, expected) < 1e-12
    projected, asked, out = 3 * WIDTH * WIDTH, 2 * program.receptive_field * WIDTH, 5 * WIDTH
    assert counted(net) == projected + asked + out


def counted(net: nn.Module, exact: str | None = None) -> int:
    """Multiply-accumulates of a step of one row."""
    step, _ = exported(net.float().eval(), (TOKENS, WIDTH), 1, exact)
    return sum(layer["macs"] for layer in step_layers(step))


def test_a_bounded_past_is_exact_for_every_query() -> None:
    """A mask shows each token the three that end at it: streamed it is the network on the whole recording."""
    net = Written("banded", "every").double().eval()
    program = converted(net)
    assert (program.exactness, program.receptive_field, program.valid_from) == ("unpadded", 3, 0)
    long = recording(3, 40, WIDTH)
    with torch.no_grad():
        assert relative(program.forward_steps(long), net(long)) < 1e-12


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_one_query_costs_what_one_token_costs(layers: int) -> None:
    """By live windows all layers but the last work on all tokens, and of the last the keys and values alone."""
    token = 4 * WIDTH * WIDTH + 2 * 16 * WIDTH  # projections and feed-forward
    asked = 2 * TOKENS * WIDTH
    net = Encoder(layers)
    assert counted(net) == layers * (token + asked) + 3 * WIDTH
    if layers == 2:
        first = 3 * WIDTH * WIDTH + TOKENS * (asked + token - 3 * WIDTH * WIDTH)  # projections are kept
        last = TOKENS * 3 * WIDTH * WIDTH + asked + token - 3 * WIDTH * WIDTH
        assert counted(net, exact="interior") == first + last + 3 * WIDTH


class Sequence(nn.Module):
    """Multi-head attention as its own module, time first, weights asked for and thrown away."""

    def __init__(self, batch_first: bool, weights: bool) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=batch_first)
        self.batch_first, self.weights = batch_first, weights

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        y, _ = self.attention(x, x, x, need_weights=self.weights)
        return y[:, -1] if self.batch_first else y[-1]


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention_in_both_layouts(batch_first: bool, weights: bool) -> None:
    net = Sequence(batch_first, weights).double().eval()
    program = converted(net)
    long = recording(2, 6 * TOKENS, WIDTH)
    expected = clip_answers(net, long, TOKENS, 1)
    assert program.exactness == "exact" and relative(program.forward_steps(long), expected) < 1e-12


class Pooled(nn.Module):
    """A learned query sums up the clip, and two streams attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.query = nn.Parameter(torch.randn(1, 2, WIDTH))
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query.expand(x.shape[0], -1, -1)
        return F.scaled_dot_product_attention(query, self.key(x), self.value(x)).flatten(1)


def test_a_learned_query_is_exact() -> None:
    net = Pooled().double().eval()
    program = converted(net)
    long = recording(2, 6 * TOKENS, WIDTH)
    expected = clip_answers(net, long, TOKENS, 1)
    assert program.exactness == "exact" and relative(program.forward_steps(long), expected) < 1e-12


class Padded(nn.Module):
    """A second input says which frames are to be ignored."""

    def __init__(self, use: str) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.attention, self.use = nn.MultiheadAttention(WIDTH, 2, batch_first=True), use

    def forward(self, x: Tensor, ignored: Tensor) -> Tensor:
        y = self.attention(x, x, x, key_padding_mask=ignored > 0.5, need_weights=False)[0]
        return y[:, -1] if self.use == "newest" else y.mean(1)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("use", ["newest", "mean"])
def test_frames_to_be_ignored(use: str, exact: bool) -> None:
    net = Padded(use).double().eval()
    clip = (torch.zeros(1, TOKENS, WIDTH).double(), torch.zeros(1, TOKENS).double())
    program = edgeco.convert(net, clip, time_dim=(1, 1), exact=exact)
    long, ignored = recording(2, 6 * TOKENS, WIDTH), (recording(2, 6 * TOKENS) > 0.6).double()
    with torch.no_grad():
        expected = torch.stack(
            [net(long[:, i : i + TOKENS], ignored[:, i : i + TOKENS]) for i in range(5 * TOKENS + 1)], 1
        )
    assert program.exactness == "exact" and relative(program.forward_steps(long, ignored), expected) < 1e-12


@pytest.mark.sampled(2)
@pytest.mark.parametrize("use", ["newest", "every"])
@pytest.mark.parametrize("causal", [True, False])
def test_the_engine_agrees(causal: bool, use: str) -> None:
    found = differences(Encoder(2, use, causal=causal), (TOKENS, WIDTH), 1, steps=110, rows=2)
    assert max(found.values()) < 1e-4
    assert max(differences(Written("banded", "every"), (TOKENS, WIDTH), 1, steps=110).values()) < 1e-4


@pytest.mark.parametrize("causal", [True, False])
def test_logits_of_three_hundred_in_the_causal_form(causal: bool) -> None:
    net = Encoder(2, "every", causal=causal)
    with torch.no_grad():
        for layer in net.encoder.layers:
            layer.self_attn.in_proj_weight.mul_(8)
    program = edgeco.convert(net.eval(), torch.zeros(1, TOKENS, WIDTH), time_dim=1)
    long = recording(1, 200, WIDTH, dtype=torch.float32)
    given = program.forward_steps(long)
    with torch.no_grad(), seeing(TOKENS):
        query, key, _ = F.linear(long, net.encoder.layers[0].self_attn.in_proj_weight).chunk(3, -1)
        expected = net.head(net.encoder(long))
    assert (query @ key.transpose(1, 2)).abs().max() > 300
    assert given.isfinite().all() and relative(given, expected[:, -given.shape[1] :]) < 1e-4


@pytest.mark.parametrize("hint", [{}, {"is_causal": True}, {"is_causal": False}])
def test_a_causal_mask_with_or_without_its_hint(hint: dict[str, bool]) -> None:
    """Without it PyTorch's encoder looks into the mask, which a trace cannot."""

    class Masked(Encoder):
        def __init__(self) -> None:
            super().__init__(2)
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(TOKENS))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(x, mask=self.mask, **hint)[:, -1])

    net = Masked().double().eval()
    program = converted(net, exact=True)
    long = recording(2, 6 * TOKENS, WIDTH)
    expected = clip_answers(net, long, TOKENS, 1)
    assert program.exactness == "exact" and relative(program.forward_steps(long), expected) < 1e-12
    assert torch.nn.modules.transformer._detect_is_causal_mask.__module__ == "torch.nn.modules.transformer"


class Merged(nn.Module):
    """Heads merged into the rows, with a constant that is the same for all heads or another for each."""

    def __init__(self, slopes: bool) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.project, self.slopes = nn.Linear(WIDTH, 3 * WIDTH), slopes

    def forward(self, x: Tensor) -> Tensor:
        rows, length, heads = x.shape[0], x.shape[1], 2
        q, k, v = (
            part.reshape(rows, length, heads, -1).transpose(1, 2).reshape(rows * heads, length, -1)
            for part in self.project(x).chunk(3, -1)
        )
        age = (torch.arange(length)[:, None] - torch.arange(length)).abs()
        slope = torch.tensor([0.5, -0.25 if self.slopes else 0.5], dtype=x.dtype)
        bias = (slope[:, None, None] * age).expand(rows, heads, length, length).reshape(rows * heads, length, length)
        mixed = torch.softmax(q @ k.transpose(1, 2) + bias, -1) @ v
        return mixed.reshape(rows, heads, length, -1).transpose(1, 2).reshape(rows, length, -1)[:, -1]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("slopes", [True, False])
def test_constants_of_heads_that_are_merged_into_the_rows(slopes: bool) -> None:
    net = Merged(slopes).double().eval()
    program = converted(net)
    for rows in (1, 4):
        long = recording(rows, 6 * TOKENS, WIDTH)
        program.clean_state()
        expected = clip_answers(net, long, TOKENS, 1)
        assert program.exactness == "exact" and relative(program.forward_steps(long), expected) < 1e-12
    assert max(differences(net.float(), (TOKENS, WIDTH), 1, steps=100, rows=3).values()) < 1e-4


class PartlyHidden(nn.Module):
    """The same two tokens of every clip are padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tensor([True] * 2 + [False] * (TOKENS - 2)).expand(x.shape[0], TOKENS)
        return self.attention(x, x, x, key_padding_mask=hidden)[0][:, -1]


@pytest.mark.parametrize("index", [0, 3, -1])
def test_one_token_of_layers_without_projections(index: int) -> None:
    """Queries, keys and values are one tensor: of the queries alone one is enough."""

    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = x + F.scaled_dot_product_attention(x, x, x)
            return F.scaled_dot_product_attention(x, 0.7 * x, x)[:, index]

    program = converted(Bare(), exact=True)
    long = recording(2, 6 * TOKENS, WIDTH)
    assert program.exactness == "exact"
    assert relative(program.forward_steps(long), clip_answers(Bare(), long, TOKENS, 1)) < 1e-12


@pytest.mark.parametrize("exact", [False, True, "clip"])
def test_a_bounded_mask_at_the_beginning_of_a_clip(exact: bool | str) -> None:
    """Every token sees three: of the whole recording, or under exact="clip" of its own clip alone."""

    class Banded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril().triu(-2)
            return F.scaled_dot_product_attention(x, x, x, attn_mask=seen).mean(1)

    program = converted(Banded(), exact=exact)
    long = recording(2, 6 * TOKENS, WIDTH)
    expected = clip_answers(Banded(), long, TOKENS, 1)
    given = program.forward_steps(long)
    assert program.exactness == ("exact" if exact == "clip" else "unpadded")
    assert given.shape == expected.shape and (relative(given, expected) < 1e-12) is (exact == "clip")


def test_a_constant_padding_mask() -> None:
    net = PartlyHidden().double().eval()
    program = converted(net)
    long = recording(3, 6 * TOKENS, WIDTH)
    expected = clip_answers(net, long, TOKENS, 1)
    assert relative(program.forward_steps(long), expected) < 1e-12
