"""The Triton kernels, which `triton_forms` launches.

A program handles some pixels of one sample and some of its channels. What it adds up it adds up in an order that
depends on the image's size alone, never on the batch or on which program comes first: the same input, the same bits.

Seen so far: in Triton's interpreter, that the results are right; compiled for an H100 without one, that every kernel
reads 16 bytes at a time and spills no register. Not seen yet: how fast they are.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["width", "source_width", "pixels", "source_pixels", "rows"])
def _combine(  # type: ignore[no-untyped-def]
    out, also, partials, s1, s2, s3, bias, r1, r2,
    pitch_out, pitch_also, pitch1, pitch2, pitch3, pitch_r1, pitch_r2,
    width, source_width, pixels, source_pixels, rows, C, slope, scale,
    SOURCES: tl.constexpr, RESIDUALS: tl.constexpr, ALSO: tl.constexpr, BIAS: tl.constexpr, MOMENTS: tl.constexpr,
    UNFOLD: tl.constexpr, FAR: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    part, sample = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    channel = c < C
    out += sample * pixels * pitch_out
    also += sample * pixels * pitch_also
    r1 += sample * pixels * pitch_r1
    r2 += sample * pixels * pitch_r2
    s1 += sample * source_pixels * pitch1
    s2 += sample * source_pixels * pitch2
    s3 += sample * source_pixels * pitch3
    added = tl.zeros([BC], tl.float32)
    if BIAS:
        added = tl.load(bias + c, mask=channel, other=0.0).to(tl.float32)
    total, squares = tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32)
    for start in range(0, rows, BR):
        p = part * rows + start + tl.arange(0, BR)
        inside = (p < pixels)[:, None] & channel[None, :]
        source, first = p, p * 0
        if UNFOLD:
            y, x = p // width, p % width
            source = (y // 2 + y % 2) * source_width + x // 2 + x % 2
            first = ((y % 2) * 2 + x % 2) * C
        if FAR:
            p, source = p.to(tl.int64), source.to(tl.int64)
        v = tl.load(s1 + (source * pitch1 + first)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
        if SOURCES > 1:
            v += tl.load(s2 + (source * pitch2)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
        if SOURCES > 2:
            v += tl.load(s3 + (source * pitch3)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
        v += added[None, :]
        v = tl.where(v >= 0, v, slope * v)
        if RESIDUALS > 0:
            v = v * scale + tl.load(r1 + (p * pitch_r1)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
        if RESIDUALS > 1:
            v = v * scale + tl.load(r2 + (p * pitch_r2)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
        v = v.to(out.dtype.element_ty)
        tl.store(out + (p * pitch_out)[:, None] + c[None, :], v, mask=inside)
        if ALSO:
            tl.store(also + (p * pitch_also)[:, None] + c[None, :], v, mask=inside)
        if MOMENTS:
            v = tl.where(inside, v.to(tl.float32), 0.0)
            total += v
            squares += v * v
    if MOMENTS:
        at = partials + (sample * tl.num_programs(0) + part) * 2 * C + c
        tl.store(at, tl.sum(total, 0), mask=channel)
        tl.store(at + C, tl.sum(squares, 0), mask=channel)


@triton.jit
def _tap(  # type: ignore[no-untyped-def]
    total, seen, x, added, weight, pitch_seen, pitch_x, p, row, col, k, n, H, W, K, N, dy, dx, slope_before,
    BEFORE: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """What a tap of `_convolve` adds to the sums, of the input channels k."""
    y, z = row + (dy - 1), col + (dx - 1)
    inside = ((p < H * W) & (y >= 0) & (y < H) & (z >= 0) & (z < W))[:, None] & (k < K)[None, :]
    a = tl.load(x + ((y * W + z) * pitch_x)[:, None] + k[None, :], mask=inside, other=0.0)
    if BEFORE:
        v = a.to(tl.float32) + added[None, :]
        v = tl.where(v >= 0, v, slope_before * v)
        a = tl.where(inside, v, 0.0).to(seen.dtype.element_ty)
        if (dy == 1) & (dx == 1):
            tl.store(seen + (p * pitch_seen)[:, None] + k[None, :], a, mask=inside)
    w = weight + (dy * 3 + dx) * K * N + k[:, None] * N + n[None, :]
    w = tl.load(w, mask=(k < K)[:, None] & (n < N)[None, :], other=0.0)
    if WIDEN:
        a, w = a.to(tl.float32), w.to(tl.float32)
    return tl.dot(a, w, total, input_precision="ieee")


@triton.jit(do_not_specialize=["H", "W"])
def _convolve(  # type: ignore[no-untyped-def]
    out, also, seen, x, before, weight, given, bias, r1, r2,
    pitch_out, pitch_also, pitch_seen, pitch_x, pitch_given, pitch_r1, pitch_r2,
    H, W, K, N, slope_before, slope, scale,
    RESIDUALS: tl.constexpr, ALSO: tl.constexpr, BEFORE: tl.constexpr, GIVEN: tl.constexpr, WIDEN: tl.constexpr,
    FAR: tl.constexpr, UNROLLED: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    pixels = H * W
    p = tl.program_id(0) * BM + tl.arange(0, BM)
    row, col = p // W, p % W
    if FAR:
        p, row = p.to(tl.int64), row.to(tl.int64)
    n = tl.arange(0, BN)
    out += sample * pixels * pitch_out
    also += sample * pixels * pitch_also
    seen += sample * pixels * pitch_seen
    x += sample * pixels * pitch_x
    given += sample * pixels * pitch_given
    r1 += sample * pixels * pitch_r1
    r2 += sample * pixels * pitch_r2
    total = tl.zeros([BM, BN], tl.float32)
    if UNROLLED:
        k = tl.arange(0, BK)
        added = tl.zeros([BK], tl.float32)
        if BEFORE:
            added = tl.load(before + k, mask=k < K, other=0.0).to(tl.float32)
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):
                total = _tap(
                    total, seen, x, added, weight, pitch_seen, pitch_x, p, row, col, k, n, H, W, K, N, dy, dx,
                    slope_before, BEFORE, WIDEN,
                )  # fmt: skip
    else:  # products of float32 are so much code that nine of them take twenty seconds to compile
        for start in range(0, K, BK):
            k = start + tl.arange(0, BK)
            added = tl.zeros([BK], tl.float32)
            if BEFORE:
                added = tl.load(before + k, mask=k < K, other=0.0).to(tl.float32)
            for tap in range(9):
                total = _tap(
                    total, seen, x, added, weight, pitch_seen, pitch_x, p, row, col, k, n, H, W, K, N, tap // 3,
                    tap % 3, slope_before, BEFORE, WIDEN,
                )  # fmt: skip
    inside = (p < pixels)[:, None] & (n < N)[None, :]
    v = total
    if GIVEN:
        v += tl.load(given + (p * pitch_given)[:, None] + n[None, :], mask=inside, other=0.0).to(tl.float32)
    v += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    v = tl.where(v >= 0, v, slope * v)
    if RESIDUALS > 0:
        v = v * scale + tl.load(r1 + (p * pitch_r1)[:, None] + n[None, :], mask=inside, other=0.0).to(tl.float32)
    if RESIDUALS > 1:
        v = v * scale + tl.load(r2 + (p * pitch_r2)[:, None] + n[None, :], mask=inside, other=0.0).to(tl.float32)
    v = v.to(out.dtype.element_ty)
    tl.store(out + (p * pitch_out)[:, None] + n[None, :], v, mask=inside)
    if ALSO:
        tl.store(also + (p * pitch_also)[:, None] + n[None, :], v, mask=inside)


@triton.jit(do_not_specialize=["H", "W", "across"])
def _depthwise(  # type: ignore[no-untyped-def]
    out, partials, h, shift, kernels, taps, r1, r2,
    H, W, across, C, stride_shift, stride_taps, slope,
    RESIDUALS: tl.constexpr, FAR: tl.constexpr, ROWS: tl.constexpr, BX: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    part, sample = tl.program_id(0), tl.program_id(2).to(tl.int64)
    top = (part // across) * ROWS
    if FAR:
        top = top.to(tl.int64)
    x = (part % across) * BX + tl.arange(0, BX)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    channel = c < C
    image = sample * H * W * C
    out += image
    h += image
    r1 += image
    r2 += image
    within, left, right = x < W, (x > 0) & (x < W), x + 1 < W
    mask = within[:, None] & channel[None, :]
    add = tl.load(shift + sample * stride_shift + c, mask=channel, other=0.0).to(tl.float32)[None, :]
    k = kernels + sample * 9 * C + c
    k00 = tl.load(k, mask=channel, other=0.0).to(tl.float32)[None, :]
    k01 = tl.load(k + C, mask=channel, other=0.0).to(tl.float32)[None, :]
    k02 = tl.load(k + 2 * C, mask=channel, other=0.0).to(tl.float32)[None, :]
    k10 = tl.load(k + 3 * C, mask=channel, other=0.0).to(tl.float32)[None, :]
    k11 = tl.load(k + 4 * C, mask=channel, other=0.0).to(tl.float32)[None, :]
    k12 = tl.load(k + 5 * C, mask=channel, other=0.0).to(tl.float32)[None, :]
    k20 = tl.load(k + 6 * C, mask=channel, other=0.0).to(tl.float32)[None, :]
    k21 = tl.load(k + 7 * C, mask=channel, other=0.0).to(tl.float32)[None, :]
    k22 = tl.load(k + 8 * C, mask=channel, other=0.0).to(tl.float32)[None, :]
    t = taps + sample * stride_taps + c
    total, squares = tl.zeros([BX, BC], tl.float32), tl.zeros([BX, BC], tl.float32)
    # Sums of the rows that lie between the first and the last of the three a result is made of: each row is read once.
    first, second = tl.zeros([BX, BC], tl.float32), tl.zeros([BX, BC], tl.float32)
    for step in range(ROWS + 2):
        y = top - 1 + step
        row = y + x * 0
        row = (row >= 0) & (row < H)
        at = (y * W + x)[:, None] * C + c[None, :]
        inside_a, inside_b, inside_d = (left & row)[:, None], (within & row)[:, None], (right & row)[:, None]
        a = tl.load(h + (at - C), mask=inside_a & channel[None, :], other=0.0).to(tl.float32)
        b = tl.load(h + at, mask=inside_b & channel[None, :], other=0.0).to(tl.float32)
        d = tl.load(h + (at + C), mask=inside_d & channel[None, :], other=0.0).to(tl.float32)
        a = tl.where(inside_a, a + add, 0.0)
        b = tl.where(inside_b, b + add, 0.0)
        d = tl.where(inside_d, d + add, 0.0)
        v = first + k20 * a + k21 * b + k22 * d
        first = second + k10 * a + k11 * b + k12 * d
        second = k00 * a + k01 * b + k02 * d
        r = y - 1
        if (r >= top) & (r < H):
            v = tl.where(v >= 0, v, slope * v)
            # What the shift adds through the second convolution: only by taps that lie inside the image.
            rows = r + c * 0
            above, below = channel & (rows > 0), channel & (rows < H - 1)
            t0 = tl.load(t + 3 * C, mask=channel, other=0.0) + tl.load(t, mask=above, other=0.0)
            t1 = tl.load(t + 4 * C, mask=channel, other=0.0) + tl.load(t + C, mask=above, other=0.0)
            t2 = tl.load(t + 5 * C, mask=channel, other=0.0) + tl.load(t + 2 * C, mask=above, other=0.0)
            t0 += tl.load(t + 6 * C, mask=below, other=0.0)
            t1 += tl.load(t + 7 * C, mask=below, other=0.0)
            t2 += tl.load(t + 8 * C, mask=below, other=0.0)
            v += tl.where(left[:, None], t0[None, :], 0.0) + t1[None, :] + tl.where(right[:, None], t2[None, :], 0.0)
            here = (r * W + x)[:, None] * C + c[None, :]
            v += tl.load(out + here, mask=mask, other=0.0).to(tl.float32)
            if RESIDUALS > 0:
                v += tl.load(r1 + here, mask=mask, other=0.0).to(tl.float32)
            if RESIDUALS > 1:
                v += tl.load(r2 + here, mask=mask, other=0.0).to(tl.float32)
            v = v.to(out.dtype.element_ty)
            tl.store(out + here, v, mask=mask)
            v = tl.where(mask, v.to(tl.float32), 0.0)
            total += v
            squares += v * v
    at = partials + (sample * tl.num_programs(0) + part) * 2 * C + c
    tl.store(at, tl.sum(total, 0), mask=channel)
    tl.store(at + C, tl.sum(squares, 0), mask=channel)


@triton.jit(do_not_specialize=["parts1", "parts2", "count"])
def _affine(  # type: ignore[no-untyped-def]
    out, p1, p2, weight, bias, parts1, parts2, C1, C2, count, eps,
    SOURCES: tl.constexpr, PER_GROUP: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    lane = tl.arange(0, BC)
    c = tl.program_id(0) * PER_GROUP + lane
    C = C1 + C2
    channel = lane < PER_GROUP
    total, squares = tl.zeros([BN, BC], tl.float32), tl.zeros([BN, BC], tl.float32)
    p1 += sample * parts1 * 2 * C1
    for start in range(0, parts1, BN):
        n = start + tl.arange(0, BN)
        mask = (n < parts1)[:, None] & (channel & (c < C1))[None, :]
        at = p1 + (n * 2 * C1)[:, None] + c[None, :]
        total += tl.load(at, mask=mask, other=0.0)
        squares += tl.load(at + C1, mask=mask, other=0.0)
    if SOURCES > 1:
        p2 += sample * parts2 * 2 * C2
        for start in range(0, parts2, BN):
            n = start + tl.arange(0, BN)
            mask = (n < parts2)[:, None] & (channel & (c >= C1))[None, :]
            at = p2 + (n * 2 * C2)[:, None] + (c - C1)[None, :]
            total += tl.load(at, mask=mask, other=0.0)
            squares += tl.load(at + C2, mask=mask, other=0.0)
    size = count * PER_GROUP
    mean = tl.sum(total) / size
    variance = tl.maximum(tl.sum(squares) / size - mean * mean, 0.0)
    a = tl.load(weight + c, mask=channel, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    b = tl.load(bias + c, mask=channel, other=0.0).to(tl.float32) - mean * a
    tl.store(out + sample * 2 * C + c, a, mask=channel)
    tl.store(out + sample * 2 * C + C + c, b, mask=channel)


@triton.jit(do_not_specialize=["pixels", "blocks1"])
def _normalise(  # type: ignore[no-untyped-def]
    out, x1, x2, affine, pixels, C1, C2, blocks1,
    SWISH: tl.constexpr, FAR: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    block, sample = tl.program_id(1), tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * BR + tl.arange(0, BR)
    if FAR:
        p = p.to(tl.int64)
    C = C1 + C2
    # A block of channels lies in one of both tensors.
    source, pitch, offset = x1, C1, C1 * 0
    if block >= blocks1:
        source, pitch, offset, block = x2, C2, C1, block - blocks1
    c = block * BC + tl.arange(0, BC)
    channel = c < pitch
    mask = (p < pixels)[:, None] & channel[None, :]
    source += sample * pixels * pitch
    v = tl.load(source + (p * pitch)[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
    c += offset
    a = tl.load(affine + sample * 2 * C + c, mask=channel, other=0.0)
    b = tl.load(affine + sample * 2 * C + C + c, mask=channel, other=0.0)
    v = v * a[None, :] + b[None, :]
    if SWISH:
        v = v / (1.0 + tl.exp(-v))
    out += sample * pixels * C
    tl.store(out + (p * C)[:, None] + c[None, :], v.to(out.dtype.element_ty), mask=mask)
