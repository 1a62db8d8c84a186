"""The innermost loops of drawing and of its derivative, as LLVM vector instructions.

Like `rendering.vectors`, which explains the lanes, but with more channels, with what the backward pass needs
to know, and with a closer exponential.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model_hosts.talking_gaussian.rendering.limits import LOG_255, MAX_ALPHA, OPAQUE
from model_hosts.talking_gaussian.rendering.vectors import FAST, Vectors, count_trailing_zeros, typed

CHANNELS = 5
"""Channels drawn besides the coverage."""
FORWARD_VECTORS = 2 + CHANNELS
"""State of a block while it is drawn: transmittance, index of the last Gaussian that counted, channels."""
BACKWARD_VECTORS = 4 + CHANNELS
"""State of a block on the way back: transmittance, last index, what is behind, gradients of the channels and
of the coverage."""
MOMENTS = 6 + CHANNELS
"""Sums over the pixels of a Gaussian: s, s dx, s dy, s dx^2, s dx dy, s dy^2, where s is the derivative by
the exponent and (dx, dy) its centre minus the pixel; then the derivatives by its channels."""
# exp(p) = (c0 + c1 p + c2 p^2 + c3 p^3 + c4 p^4)^8 for -ln 255 <= p <= 0, relative error below 5e-5.
_EXP = (0.99999738, 0.12497868, 0.007783486, 0.00031119984, 7.150325e-06)
_COLOUR = 6
"""First channel in a record."""

_FLOAT = ir.FloatType()
_I64 = ir.IntType(64)


class _Gaussian:
    """One Gaussian of a batch at the pixels of a block: its channels, distances and opacity."""

    def __init__(self, v: Vectors, batch: ir.Value, entry: ir.Value, x: ir.Value, y: ir.Value) -> None:
        record = v.b.add(batch, v.b.shl(entry, _I64(6)))
        field = [v.load_scalar(record, 4 * k) for k in range(_COLOUR + CHANNELS)]
        self.channels = field[_COLOUR:]
        self.dx = v.subtract(field[0], x)
        self.dy = v.subtract(field[1], y)
        slope = v.multiply_add(field[2], self.dx, v.multiply(field[3], self.dy))
        level = v.multiply_add(v.multiply(field[4], self.dy), self.dy, field[5])
        power = v.multiply_add(slope, self.dx, level)
        alpha = v.constant(_EXP[-1])
        for coefficient in _EXP[-2::-1]:
            alpha = v.multiply_add(alpha, power, v.constant(coefficient))
        for _ in range(3):
            alpha = v.multiply(alpha, alpha)
        self.alpha = alpha
        self.seen = v.b.fcmp_ordered(">=", power, v.constant(-LOG_255))


def _pixels(v: Vectors, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    columns = v.add(v.listed([float(i & 3) for i in range(v.lanes)]), v.splat(x))
    rows = v.add(v.listed([float(i >> 2) for i in range(v.lanes)]), v.splat(y))
    return columns, rows


def _numbered(v: Vectors, entry: ir.Value, first: ir.Value) -> ir.Value:
    """Index of a batch entry in its tile's list, as floats."""
    return v.splat(v.b.fadd(v.b.uitofp(entry, _FLOAT), first))


@intrinsic
def draw_block(
    _context: Any, lanes: Any, _state: Any, _batch: Any, _hits: Any, _x: Any, _y: Any, _first: Any
) -> Any:
    """Blends Gaussians into a block of pixels, front to back.

    Arguments: lanes; int64 address of the block's state (`FORWARD_VECTORS`); int64 address of the batch (64
    records of 64 bytes: x, y relative to the tile, -A/2, -B, -C/2, log opacity, channels); uint64 set of
    batch entries to blend, not 0; float32 x and y of the block within the tile; float32 index of the batch's
    first entry in the tile's list. Returns the entries that were not needed, because the block became opaque.
    """
    count = len(lanes)

    def generate(_ctx: Any, builder: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        _, state, batch, hits, x, y, first = arguments
        b, v = builder, Vectors(builder, count)
        initial = [v.load(state, 4 * count * k) for k in range(FORWARD_VECTORS)]
        columns, rows = _pixels(v, x, y)
        before = b.block
        loop, done = b.append_basic_block("draw"), b.append_basic_block("drawn")
        b.branch(loop)
        b.position_at_end(loop)
        values = [b.phi(v.type) for _ in range(FORWARD_VECTORS)]
        transmittance, last, *channels = values
        left = b.phi(_I64)
        entry = count_trailing_zeros(b, left)
        rest = b.and_(left, b.sub(left, _I64(1)))
        gaussian = _Gaussian(v, batch, entry, columns, rows)
        # A pixel that is finished stays as it is: the way back can then divide by what it let through.
        active = b.fcmp_ordered(">=", transmittance, v.constant(OPAQUE))
        alpha = v.smaller(gaussian.alpha, v.constant(MAX_ALPHA))
        alpha = b.select(b.and_(active, gaussian.seen), alpha, v.constant(0))
        weight = v.multiply(alpha, transmittance)
        after = [
            v.subtract(transmittance, weight),
            b.select(active, _numbered(v, entry, first), last),
            *(
                v.multiply_add(weight, channel, value)
                for channel, value in zip(gaussian.channels, channels, strict=True)
            ),
        ]
        transparent = b.fcmp_ordered(">=", after[0], v.constant(OPAQUE))
        mask = b.bitcast(transparent, ir.IntType(count))
        alive = b.icmp_unsigned("!=", mask, ir.IntType(count)(0))
        again = b.and_(alive, b.icmp_unsigned("!=", rest, _I64(0)))
        for phi, start, following in zip(values, initial, after, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(following, b.block)
        left.add_incoming(hits, before)
        left.add_incoming(rest, b.block)
        b.cbranch(again, loop, done)
        b.position_at_end(done)
        for k, value in enumerate(after):
            v.store(value, state, 4 * count * k)
        return rest

    scalars = (types.int64, types.int64, types.uint64, types.float32, types.float32, types.float32)
    return typed(types.uint64, (lanes, *scalars), generate)


@intrinsic
def undraw_block(
    _context: Any, lanes: Any, _state: Any, _batch: Any, _sums: Any, _hits: Any, _x: Any, _y: Any, _first: Any
) -> Any:
    """Goes back through the Gaussians of a block, back to front, and adds to their sums.

    With T the transmittance before a Gaussian, D its channels times their gradients and A the same of all
    that is behind it, the derivative by its exponent is alpha T (D - A).

    Arguments: as of `draw_block`, but the state has `BACKWARD_VECTORS`; sums is the int64 address of the
    batch's sums, `MOMENTS` vectors for each entry.
    """
    count = len(lanes)

    def generate(ctx: Any, builder: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        _, state, batch, sums, hits, x, y, first = arguments
        b, v = builder, Vectors(builder, count)
        initial = [v.load(state, 4 * count * k) for k in range(BACKWARD_VECTORS)]
        last, gradients, covered = initial[1], initial[3 : 3 + CHANNELS], initial[3 + CHANNELS]
        columns, rows = _pixels(v, x, y)
        before = b.block
        loop, done = b.append_basic_block("undraw"), b.append_basic_block("undrawn")
        b.branch(loop)
        b.position_at_end(loop)
        transmittance, behind, left = b.phi(v.type), b.phi(v.type), b.phi(_I64)
        entry = b.sub(_I64(63), _count_leading_zeros(b, left))
        rest = b.xor(left, b.shl(_I64(1), entry))
        gaussian = _Gaussian(v, batch, entry, columns, rows)
        counted = b.fcmp_ordered("<=", _numbered(v, entry, first), last)
        limited = b.fcmp_ordered(">", gaussian.alpha, v.constant(MAX_ALPHA))
        alpha = b.select(limited, v.constant(MAX_ALPHA), gaussian.alpha)
        alpha = b.select(b.and_(counted, gaussian.seen), alpha, v.constant(0))
        earlier = b.fdiv(transmittance, v.subtract(v.constant(1), alpha), flags=FAST)
        own = covered
        for channel, gradient in zip(gaussian.channels, gradients, strict=True):
            own = v.multiply_add(channel, gradient, own)
        difference = v.subtract(own, behind)
        weight = v.multiply(alpha, earlier)
        s = b.select(limited, v.constant(0), v.multiply(weight, difference))
        sx, sy = v.multiply(s, gaussian.dx), v.multiply(s, gaussian.dy)
        terms = [
            s,
            sx,
            sy,
            v.multiply(sx, gaussian.dx),
            v.multiply(sx, gaussian.dy),
            v.multiply(sy, gaussian.dy),
        ]
        terms += [v.multiply(weight, gradient) for gradient in gradients]
        place = b.add(sums, b.mul(entry, _I64(MOMENTS * 4 * count)))
        for k, term in enumerate(terms):
            v.store(v.add(v.load(place, 4 * count * k), term), place, 4 * count * k)
        after = (earlier, v.multiply_add(alpha, difference, behind))
        for phi, start, value in zip((transmittance, behind), (initial[0], initial[2]), after, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, b.block)
        left.add_incoming(hits, before)
        left.add_incoming(rest, b.block)
        b.cbranch(b.icmp_unsigned("!=", rest, _I64(0)), loop, done)
        b.position_at_end(done)
        v.store(after[0], state)
        v.store(after[1], state, 4 * count * 2)
        return ctx.get_dummy_value()

    scalars = (*[types.int64] * 3, types.uint64, types.float32, types.float32, types.float32)
    return typed(types.void, (lanes, *scalars), generate)


def _count_leading_zeros(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    kind = ir.FunctionType(_I64, [_I64, ir.IntType(1)])
    function = builder.module.declare_intrinsic("llvm.ctlz", (_I64,), kind)
    return builder.call(function, [value, ir.IntType(1)(1)])


@intrinsic
def add_up(_context: Any, lanes: Any, _sums: Any, _out: Any) -> Any:
    """Adds the lanes of a Gaussian's `MOMENTS` vectors to its floats, and clears the vectors.

    Arguments: lanes; int64 addresses of the vectors and of the floats.
    """
    count = len(lanes)

    def generate(ctx: Any, builder: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        _, sums, out = arguments
        b, v = builder, Vectors(builder, count)
        kind = ir.FunctionType(_FLOAT, [_FLOAT, v.type])
        total = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            b.module, kind, f"llvm.vector.reduce.fadd.v{count}f32"
        )
        for k in range(MOMENTS):
            value = b.call(total, [_FLOAT(0.0), v.load(sums, 4 * count * k)], fastmath=FAST)
            v.store(v.constant(0), sums, 4 * count * k)
            place = b.inttoptr(b.add(out, _I64(4 * k)), _FLOAT.as_pointer())
            b.store(b.fadd(b.load(place), value, flags=FAST), place)
        return ctx.get_dummy_value()

    return typed(types.void, (lanes, types.int64, types.int64), generate)
