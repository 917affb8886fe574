"""What `fused` runs, in Triton (Tillet et al. 2019): products with what is done to their rows, and other passes.

What a kernel gives is made in tiles of BM rows and BN columns, BK of what it sums over at a time: by `values` and
`rows` one after another in each program, so that the next one's rows come in while one is finished; by the others one
in each.
Arrays of n points and W sines are (n, W), row after row, and come as descriptors, which read zeros beyond an array's
ends and write nothing there; what has d numbers a point is (n, D).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

HALF = tl.constexpr(tl.bfloat16)


@triton.jit
def _sine(v):
    """sin(2 pi v), |v| <= 1/4, as exact as float32 is."""
    s = v * v
    return v * (6.28318516 + s * (-41.34165503 + s * (81.60100406 + s * (-76.54978198 + s * 39.5367036))))


@triton.jit
def _wave(t, sine, cosine, rest, row, col, REST: tl.constexpr):
    """Stores sine and cosine of t turns, and the sine's rest; the sine."""
    t -= tl.floor(t + 0.5)
    s, c = _sine(tl.maximum(tl.minimum(t, 0.5 - t), -0.5 - t)), _sine(0.25 - tl.abs(t))
    half = s.to(HALF)
    sine.store([row, col], half)
    cosine.store([row, col], c.to(HALF))
    if REST:
        rest.store([row, col], (s - half.to(tl.float32)).to(HALF))
    return s


@triton.jit
def first(
    sine, cosine, rest, points, weight, bias, n, D: tl.constexpr, W: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):
    """The first layer, in float32."""
    blocks = tl.cdiv(W, BN)
    row, col = tl.program_id(0) // blocks * BM, tl.program_id(0) % blocks * BN
    rows, cols = row + tl.arange(0, BM), col + tl.arange(0, BN)
    t = tl.zeros((BM, BN), tl.float32) + tl.load(bias + cols, cols < W, 0.0)[None, :]
    for j in tl.static_range(D):
        x, w = tl.load(points + rows * D + j, rows < n, 0.0), tl.load(weight + cols * D + j, cols < W, 0.0)
        t += x[:, None] * w[None, :]
    _wave(t, sine, cosine, rest, row, col, True)


@triton.jit
def values(
    sine,
    cosine,
    rest,
    shares,
    before,
    before_rest,
    high,
    low,
    bias,
    out_weight,
    n,
    LAST: tl.constexpr,
    W: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A layer by the one before; of the last one each block of columns' share of the value, too."""
    blocks = tl.cdiv(W, BN)
    for tile in tl.range(tl.program_id(0), tl.cdiv(n, BM) * blocks, tl.num_programs(0), flatten=True):
        row, col = tile // blocks * BM, tile % blocks * BN
        acc = tl.zeros((BM, BN), tl.float32)
        for k in range(0, W, BK):
            a, h = before.load([row, k]), high.load([k, col])
            acc = tl.dot(a, h, acc)
            acc = tl.dot(before_rest.load([row, k]), h, acc)
            acc = tl.dot(a, low.load([k, col]), acc)
        rows, cols = row + tl.arange(0, BM), col + tl.arange(0, BN)
        s = _wave(acc + tl.load(bias + cols, cols < W, 0.0)[None, :], sine, cosine, rest, row, col, not LAST)
        if LAST:
            share = tl.sum(s * tl.load(out_weight + cols, cols < W, 0.0)[None, :], 1)
            tl.store(shares + tile % blocks * n + rows, share, rows < n)


@triton.jit
def _rows(given, row, col, TOP: tl.constexpr, W: tl.constexpr, B: tl.constexpr):
    """Of (n, W) rows a tile, of one for all (TOP) B of its numbers."""
    if TOP:
        cols = col + tl.arange(0, B)
        tile = tl.load(given + cols, cols < W, 0.0)[None, :]
    else:
        tile = given.load([row, col])
    return tile


@triton.jit
def rows(
    out,
    kept,
    given,
    cosine,
    weight,
    n,
    TOP: tl.constexpr,
    N: tl.constexpr,
    W: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """(n, N): rows (n, W), or one for all (TOP), times the cosine, which may be kept, times the weight (W, N)."""
    blocks = tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), tl.cdiv(n, BM) * blocks, tl.num_programs(0), flatten=True):
        row, col = tile // blocks * BM, tile % blocks * BN
        acc = tl.zeros((BM, BN), tl.float32)
        for k in range(0, W, BK):
            a = _rows(given, row, k, TOP, W, BK) * cosine.load([row, k])
            if kept is not None:  # noqa: SIM102, this one is known as it is compiled
                if col == 0:
                    kept.store([row, k], a)
            acc = tl.dot(a, weight.load([k, col]), acc)
        out.store([row, col], acc.to(out.dtype))


@triton.jit
def _beside(known, rows, js, n, D: tl.constexpr):
    """(rows, BM): what (n, D) numbers say of them, from the second column on."""
    at = rows[:, None] * D + js[None, :] - 1
    return tl.load(known + at, (rows < n)[:, None] & ((js > 0) & (js <= D))[None, :], 0.0)


@triton.jit
def errors(
    part,
    unwound,
    upper,
    sine,
    cosine,
    before,
    through,
    error,
    points,
    slope,
    n,
    CHUNK: tl.constexpr,
    TOP: tl.constexpr,
    BOTTOM: tl.constexpr,
    D: tl.constexpr,
    W: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A layer's errors before its sine (n, W), `unwound`, and sums over a chunk of the points (BM, W).

    The first is of these errors: what the bias gets. Those after it are the last weights' at the top, and at the bottom
    the first weights'.
    """
    blocks = tl.cdiv(W, BN)
    share, col = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BN
    cols, js = col + tl.arange(0, BN), tl.arange(0, BM)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, CHUNK, BK):
        row = share * CHUNK + start
        rows = row + tl.arange(0, BK)
        s, c = sine.load([row, col]).to(tl.float32), cosine.load([row, col]).to(tl.float32)
        u, b = through.load([row, col]).to(tl.float32), _rows(before, row, col, TOP, W, BN).to(tl.float32)
        weigh = tl.zeros((BK, BM), tl.float32) + (js == 0)[None, :]
        if TOP:
            e = tl.load(error + rows, rows < n, 0.0)[:, None]
            above = e * b
            other, weigh_other = u * c + e * s, tl.zeros((BK, BM), tl.float32) + (js == 1)[None, :]
        else:
            above = upper.load([row, col]).to(tl.float32)
        z = (above * c - b * u * s).to(HALF)
        if BOTTOM:
            weigh += _beside(points, rows, js, n, D)
            other, weigh_other = b * c, _beside(slope, rows, js, n, D)
        else:
            unwound.store([row, col], z)
        acc = tl.dot(tl.trans(weigh.to(HALF)), z, acc)
        if TOP or BOTTOM:
            acc = tl.dot(tl.trans(weigh_other.to(HALF)), other.to(HALF), acc)
    tl.store(part + (share * BM + js[:, None]) * W + cols[None, :], acc, (cols < W)[None, :])


@triton.jit
def products(
    part,
    after,
    unwound,
    below,
    sine,
    n,
    CHUNK: tl.constexpr,
    W: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A layer's weights' (W, W) by a chunk of the points: after times below, and unwound times the sine below."""
    blocks, tiles = tl.cdiv(W, BN), tl.cdiv(W, BN) * tl.cdiv(W, BM)
    share, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    left, right = tile // blocks * BM, tile % blocks * BN
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, CHUNK, BK):
        row = share * CHUNK + start
        acc = tl.dot(tl.trans(after.load([row, left])), below.load([row, right]), acc)
        acc = tl.dot(tl.trans(unwound.load([row, left])), sine.load([row, right]), acc)
    ms, ns = left + tl.arange(0, BM), right + tl.arange(0, BN)
    tl.store(part + (share * W + ms[:, None]) * W + ns[None, :], acc, (ms < W)[:, None] & (ns < W)[None, :])
