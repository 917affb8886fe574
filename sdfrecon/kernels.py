"""What `fused` runs, in Triton (Tillet et al. 2019): products with what is done to their rows, and other passes.

Each program makes a tile of BM rows and BN columns of what a kernel gives, BK of what it sums over at a time. Arrays of
n points and W sines are (n, W), row after row; those of d numbers a point (n, D).
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
def _read(pointer, at, seen):
    return tl.load(pointer + at, seen, 0.0).to(tl.float32)


@triton.jit
def _place(N: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Of an array of N columns the number of this program's block of columns, its rows, and its columns."""
    blocks = tl.cdiv(N, BN)
    row, col = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    return col, row * BM + tl.arange(0, BM), col * BN + tl.arange(0, BN)


@triton.jit
def _tile(rows, cols, n, N: tl.constexpr):
    """Where they lie in an (n, N) array, and which of them do."""
    return rows[:, None] * N + cols[None, :], (rows < n)[:, None] & (cols < N)[None, :]


@triton.jit
def _wave(t, sine, cosine, rest, at, seen, REST: tl.constexpr):
    """Stores sine and cosine of t turns, and the sine's rest; the sine."""
    t -= tl.floor(t + 0.5)
    s, c = _sine(tl.maximum(tl.minimum(t, 0.5 - t), -0.5 - t)), _sine(0.25 - tl.abs(t))
    half = s.to(HALF)
    tl.store(sine + at, half, seen)
    tl.store(cosine + at, c.to(HALF), seen)
    if REST:
        tl.store(rest + at, (s - half.to(tl.float32)).to(HALF), seen)
    return s


@triton.jit
def first(
    sine, cosine, rest, points, weight, bias, n, D: tl.constexpr, W: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):
    """The first layer, in float32."""
    _, rows, cols = _place(W, BM, BN)
    t = tl.zeros((BM, BN), tl.float32) + tl.load(bias + cols, cols < W, 0.0)[None, :]
    for j in tl.static_range(D):
        x, w = tl.load(points + rows * D + j, rows < n, 0.0), tl.load(weight + cols * D + j, cols < W, 0.0)
        t += x[:, None] * w[None, :]
    at, seen = _tile(rows, cols, n, W)
    _wave(t, sine, cosine, rest, at, seen, True)


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
    col, rows, cols = _place(W, BM, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, W, BK):
        ks = k + tl.arange(0, BK)
        at, seen = _tile(rows, ks, n, W)
        a, r = tl.load(before + at, seen, 0.0), tl.load(before_rest + at, seen, 0.0)
        at, seen = _tile(ks, cols, W, W)
        h = tl.load(high + at, seen, 0.0)
        acc = tl.dot(a, h, acc)
        acc = tl.dot(r, h, acc)
        acc = tl.dot(a, tl.load(low + at, seen, 0.0), acc)
    at, seen = _tile(rows, cols, n, W)
    s = _wave(acc + tl.load(bias + cols, cols < W, 0.0)[None, :], sine, cosine, rest, at, seen, not LAST)
    if LAST:
        share = tl.sum(s * tl.load(out_weight + cols, cols < W, 0.0)[None, :], 1)
        tl.store(shares + col * n + rows, share, rows < n)


@triton.jit
def rows(
    out,
    kept,
    given,
    cosine,
    weight,
    n,
    STRIDE: tl.constexpr,
    N: tl.constexpr,
    W: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """(n, N): rows (n, W), or one for all (STRIDE 0), times the cosine, which may be kept, times the weight (W, N)."""
    col, rows, cols = _place(N, BM, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in range(0, W, BK):
        ks = k + tl.arange(0, BK)
        at, seen = _tile(rows, ks, n, W)
        a = (_read(given, rows[:, None] * STRIDE + ks[None, :], seen) * _read(cosine, at, seen)).to(HALF)
        if kept is not None:
            tl.store(kept + at, a, seen & (col == 0))
        at, seen = _tile(ks, cols, W, N)
        acc = tl.dot(a, tl.load(weight + at, seen, 0.0), acc)
    at, seen = _tile(rows, cols, n, N)
    tl.store(out + at, acc.to(out.dtype.element_ty), seen)


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
    STRIDE: tl.constexpr,
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
    share, cols, js = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BN + tl.arange(0, BN), tl.arange(0, BM)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, CHUNK, BK):
        rows = share * CHUNK + start + tl.arange(0, BK)
        at, seen = _tile(rows, cols, n, W)
        s, c, u = _read(sine, at, seen), _read(cosine, at, seen), _read(through, at, seen)
        b = _read(before, rows[:, None] * STRIDE + cols[None, :], seen)
        weigh = tl.zeros((BK, BM), tl.float32) + (js == 0)[None, :]
        if TOP:
            e = tl.load(error + rows, rows < n, 0.0)[:, None]
            above = e * b
            other, weigh_other = u * c + e * s, tl.zeros((BK, BM), tl.float32) + (js == 1)[None, :]
        else:
            above = _read(upper, at, seen)
        z = (above * c - b * u * s).to(HALF)
        if BOTTOM:
            weigh += _beside(points, rows, js, n, D)
            other, weigh_other = b * c, _beside(slope, rows, js, n, D)
        else:
            tl.store(unwound + at, z, seen)
        acc = tl.dot(tl.trans(weigh.to(HALF)), z, acc)
        if TOP or BOTTOM:
            acc = tl.dot(tl.trans(weigh_other.to(HALF)), other.to(HALF), acc)
    tl.store(part + (share * BM + js[:, None]) * W + cols[None, :], acc, (cols < W)[None, :])


@triton.jit
def products(
    part,
    after,
    below,
    unwound,
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
    ms, ns = tile // blocks * BM + tl.arange(0, BM), tile % blocks * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, CHUNK, BK):
        rows = share * CHUNK + start + tl.arange(0, BK)
        left, there = _tile(rows, ms, n, W)
        right, here = _tile(rows, ns, n, W)
        acc = tl.dot(tl.trans(tl.load(after + left, there, 0.0)), tl.load(below + right, here, 0.0), acc)
        acc = tl.dot(tl.trans(tl.load(unwound + left, there, 0.0)), tl.load(sine + right, here, 0.0), acc)
    at, seen = _tile(ms, ns, W, W)
    tl.store(part + share * W * W + at, acc, seen)
