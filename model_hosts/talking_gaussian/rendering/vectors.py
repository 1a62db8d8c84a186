"""The innermost loops of the blender as LLVM vector instructions, for vectors of 16 or 8 floats.

numba compiles its own loops well, but not these: four accumulators must stay in registers while a
data-dependent list of Gaussians is walked. A vector holds a block of pixels, 4 wide and 4 (16 lanes) or 2 (8
lanes) high.

The number of lanes travels as the *length of a tuple*: it is then part of the argument types, by which numba
keys both its specialisations and its on-disk cache. A module constant would not be part of that key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model_hosts.talking_gaussian.rendering.limits import LOG_255, MAX_ALPHA, OPAQUE

Lanes = tuple[int, ...]
"""A tuple whose length is the number of vector lanes; its contents mean nothing."""
BLOCK_WIDTH = 4
BLOCKS = 64
"""Blocks of a tile: 8 across, 8 down. One bit of a 64-bit mask for each."""
# exp(p) = (c0 + c1 p + c2 p^2 + c3 p^3)^8 for -ln 255 <= p <= 0, relative error below 1e-3.
_EXP = (0.99992442, 0.12461357, 0.0074805915, 0.00022858013)
# BT.601, limited range, of R'G'B' in 0..1; 0.5 for rounding is added to the offsets.
_LUMA = (65.481, 128.553, 24.966)
_CB = (-37.797, -74.203, 112.0)
_CR = (112.0, -93.786, -18.214)

_FLOAT = ir.FloatType()
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FAST = ("fast",)


class Vectors:
    """A builder of vector code with `lanes` floats a vector."""

    def __init__(self, builder: ir.IRBuilder, lanes: int) -> None:
        self.b = builder
        self.lanes = lanes
        self.type = ir.VectorType(_FLOAT, lanes)

    def constant(self, value: float) -> ir.Constant:
        """The same number in every lane."""
        return ir.Constant(self.type, [float(np.float32(value))] * self.lanes)

    def listed(self, values: list[float]) -> ir.Constant:
        """A number for each lane."""
        return ir.Constant(self.type, values)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """A computed number in every lane."""
        undefined = ir.Constant(self.type, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        first = self.b.insert_element(undefined, scalar, _I32(0))
        return self.b.shuffle_vector(first, undefined, zeros)

    def add(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The sum x + y."""
        return self.b.fadd(x, y, flags=FAST)

    def subtract(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The difference x - y."""
        return self.b.fsub(x, y, flags=FAST)

    def multiply(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The product x y."""
        return self.b.fmul(x, y, flags=FAST)

    def multiply_add(self, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
        """The sum x y + z."""
        return self.add(self.multiply(x, y), z)

    def larger(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The larger of x and y, lane by lane."""
        return self.b.select(self.b.fcmp_ordered(">", x, y, flags=FAST), x, y)

    def smaller(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The smaller of x and y, lane by lane."""
        return self.b.select(self.b.fcmp_ordered("<", x, y, flags=FAST), x, y)

    def load(self, address: ir.Value, offset: int = 0) -> ir.Value:
        """An aligned vector from an integer address plus bytes."""
        pointer = self.b.inttoptr(self.b.add(address, _I64(offset)), self.type.as_pointer())
        return self.b.load(pointer, align=4 * self.lanes)

    def store(self, value: ir.Value, address: ir.Value, offset: int = 0) -> None:
        """Puts an aligned vector to an integer address plus bytes."""
        pointer = self.b.inttoptr(self.b.add(address, _I64(offset)), self.type.as_pointer())
        self.b.store(value, pointer, align=4 * self.lanes)

    def load_scalar(self, address: ir.Value, offset: int) -> ir.Value:
        """One float of memory in every lane."""
        pointer = self.b.inttoptr(self.b.add(address, _I64(offset)), _FLOAT.as_pointer())
        return self.splat(self.b.load(pointer))


def count_trailing_zeros(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Index of the lowest set bit of an i64 that is not 0."""
    kind = ir.FunctionType(_I64, [_I64, ir.IntType(1)])
    function = builder.module.declare_intrinsic("llvm.cttz", (_I64,), kind)
    return builder.call(function, [value, ir.IntType(1)(1)])


def typed(
    result: types.Type, arguments: tuple[types.Type, ...], generate: Callable[..., Any]
) -> tuple[Any, Callable[..., Any]]:
    """What an intrinsic returns to numba: its signature and what generates its code."""
    return result(*arguments), generate


@intrinsic
def lowest_bit(_context: Any, _value: Any) -> Any:
    """Index of the lowest set bit of a uint64 that is not 0."""

    def generate(_ctx: Any, builder: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return count_trailing_zeros(builder, arguments[0])

    return typed(types.uint64, (types.uint64,), generate)


@intrinsic
def blend_block(_context: Any, lanes: Any, _state: Any, _batch: Any, _hits: Any, _x: Any, _y: Any) -> Any:
    """Blends Gaussians into a block of pixels, front to back.

    Arguments: lanes; int64 address of the block's state (transmittance, r, g, b vectors); int64 address of
    the batch (64 records of 64 bytes, positions relative to the tile); uint64 set of batch entries to blend,
    not 0; float32 x and y of the block within the tile. Returns whether a pixel of the block is still
    transparent.
    """
    count = len(lanes)

    def generate(_ctx: Any, builder: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        _, state, batch, hits, x, y = arguments
        b, v = builder, Vectors(builder, count)
        initial = [v.load(state, 4 * count * k) for k in range(4)]
        pixel_x = v.add(v.listed([float(i & 3) for i in range(count)]), v.splat(x))
        pixel_y = v.add(v.listed([float(i >> 2) for i in range(count)]), v.splat(y))
        before = b.block
        loop, done = b.append_basic_block("blend"), b.append_basic_block("blended")
        b.branch(loop)
        b.position_at_end(loop)
        transmittance, red, green, blue = values = [b.phi(v.type) for _ in range(4)]
        left = b.phi(_I64)
        entry = count_trailing_zeros(b, left)
        rest = b.and_(left, b.sub(left, _I64(1)))
        record = b.add(batch, b.shl(entry, _I64(6)))
        field = [v.load_scalar(record, 4 * k) for k in range(9)]
        dx = v.subtract(field[0], pixel_x)
        dy = v.subtract(field[1], pixel_y)
        slope = v.multiply_add(field[2], dx, v.multiply(field[3], dy))
        level = v.multiply_add(v.multiply(field[4], dy), dy, field[5])
        power = v.multiply_add(slope, dx, level)
        alpha = v.constant(_EXP[3])
        for coefficient in _EXP[2::-1]:
            alpha = v.multiply_add(alpha, power, v.constant(coefficient))
        for _ in range(3):
            alpha = v.multiply(alpha, alpha)
        alpha = v.smaller(alpha, v.constant(MAX_ALPHA))
        counts = b.fcmp_ordered(">=", power, v.constant(-LOG_255))
        alpha = b.select(counts, alpha, v.constant(0))
        weight = v.multiply(alpha, transmittance)
        after = [
            v.subtract(transmittance, weight),
            *(v.multiply_add(weight, field[6 + k], value) for k, value in enumerate((red, green, blue))),
        ]
        transparent = b.fcmp_ordered(">=", after[0], v.constant(OPAQUE))
        mask = b.bitcast(transparent, ir.IntType(count))
        alive = b.icmp_unsigned("!=", mask, ir.IntType(count)(0))
        again = b.and_(alive, b.icmp_unsigned("!=", rest, _I64(0)))
        for phi, first, following in zip(values, initial, after, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(following, b.block)
        left.add_incoming(hits, before)
        left.add_incoming(rest, b.block)
        b.cbranch(again, loop, done)
        b.position_at_end(done)
        for k, value in enumerate(after):
            v.store(value, state, 4 * count * k)
        return alive

    arguments = (lanes, types.int64, types.int64, types.uint64, types.float32, types.float32)
    return typed(types.boolean, arguments, generate)


@intrinsic
def touched_blocks(
    _context: Any, lanes: Any, _x: Any, _y: Any, _height: Any, _rightmost: Any, _shear: Any, _flatness: Any
) -> Any:
    """The blocks of a tile that an ellipse touches, as bits of a uint64, row of blocks by row of blocks.

    Arguments: lanes; centre relative to the tile; half height; height of the rightmost point; shear; flatness
    (all float32, fields of a record). Never misses a pixel where the Gaussian counts.
    """
    high = len(lanes) // BLOCK_WIDTH

    def generate(_ctx: Any, builder: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        b, v = builder, Vectors(builder, 8)  # one lane for each row of blocks
        x, y, height, rightmost, shear, flatness = (v.splat(value) for value in arguments[1:])
        integers = ir.VectorType(_I32, 8)
        kind = ir.FunctionType(v.type, [v.type])
        root = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            b.module, kind, "llvm.sqrt.v8f32"
        )
        zero = v.constant(0)
        row = v.subtract(v.listed([float(high * i) for i in range(8)]), y)
        above = v.larger(row, v.subtract(zero, height))
        below = v.smaller(v.add(row, v.constant(high - 1)), height)
        right_at = v.smaller(below, v.larger(above, rightmost))
        left_at = v.smaller(below, v.larger(above, v.subtract(zero, rightmost)))
        squared = v.multiply(height, height)

        def reach(at: ir.Value) -> ir.Value:
            inside = v.multiply(v.subtract(squared, v.multiply(at, at)), flatness)
            return b.call(root, [v.larger(v.constant(1e-12), inside)], fastmath=FAST)

        right = v.add(v.multiply_add(shear, right_at, x), reach(right_at))
        left = v.subtract(v.multiply_add(shear, left_at, x), reach(left_at))
        left = v.larger(zero, v.smaller(v.constant(127), v.add(left, v.constant(0.999))))
        right = v.smaller(v.constant(31), v.larger(v.constant(-1), v.add(right, v.constant(1e-3))))
        first = b.fptosi(v.multiply(left, v.constant(0.25)), integers)
        last = b.fptosi(v.add(v.multiply(right, v.constant(0.25)), v.constant(1)), integers)
        first = b.select(b.icmp_signed("<", first, last), first, last)
        one = ir.Constant(integers, [1] * 8)
        bits = b.sub(b.shl(one, last), b.shl(one, first))
        touches = b.fcmp_ordered("<=", above, below)
        bits = b.select(touches, bits, ir.Constant(integers, [0] * 8))
        return b.bitcast(b.trunc(bits, ir.VectorType(_I8, 8)), _I64)

    return typed(types.uint64, (lanes, *[types.float32] * 6), generate)


@intrinsic
def finish_block(
    _context: Any, lanes: Any, _state: Any, _plate: Any, _y: Any, _cb: Any, _cr: Any, _stride: Any
) -> Any:
    """Puts a block over the plate and writes it as YUV 4:2:0, BT.601, limited range.

    Arguments: lanes; int64 address of the block's state; int64 address of the plate's r, g, b vectors of this
    block; int64 addresses of its first luma, Cb and Cr bytes; int64 bytes of a luma row (chroma: half).
    A chroma sample is the mean over its four pixels.
    """
    count = len(lanes)
    high = count // BLOCK_WIDTH

    def generate(ctx: Any, builder: ir.IRBuilder, _signature: Any, arguments: list[ir.Value]) -> ir.Value:
        _, state, plate, *addresses, stride = arguments
        b, v = builder, Vectors(builder, count)
        transmittance = v.load(state)
        rgb = []
        for k in range(3):
            behind = v.load(plate, 4 * count * k)
            value = v.multiply_add(transmittance, behind, v.load(state, 4 * count * (k + 1)))
            rgb.append(v.smaller(v.constant(1), v.larger(v.constant(0), value)))

        def weighted(weights: tuple[float, ...], offset: float) -> ir.Value:
            total = v.constant(offset)
            for weight, value in zip(weights, rgb, strict=True):
                total = v.multiply_add(value, v.constant(weight), total)
            return total

        def bytes_of(values: ir.Value, length: int) -> ir.Value:
            whole = b.fptosi(values, ir.VectorType(_I32, length))
            return b.trunc(whole, ir.VectorType(_I8, length))

        def shuffled(values: ir.Value, places: list[int]) -> ir.Value:
            mask = ir.Constant(ir.VectorType(_I32, len(places)), places)
            return b.shuffle_vector(values, values, mask)

        def write_rows(
            data: ir.Value, kind: ir.IntType, rows: int, address: ir.Value, step: ir.Value
        ) -> None:
            words = b.bitcast(data, ir.VectorType(kind, rows))
            for row in range(rows):
                at = b.add(address, b.mul(step, _I64(row)))
                b.store(b.extract_element(words, _I32(row)), b.inttoptr(at, kind.as_pointer()), align=1)

        write_rows(bytes_of(weighted(_LUMA, 16.5), count), _I32, high, addresses[0], stride)
        corners = [8 * (i // 2) + 2 * (i % 2) for i in range(count // 4)]
        for weights, address in ((_CB, addresses[1]), (_CR, addresses[2])):
            values = weighted(weights, 0.0)
            values = v.add(values, shuffled(values, [i ^ 1 for i in range(count)]))
            values = v.add(values, shuffled(values, [i ^ 4 for i in range(count)]))
            small = Vectors(b, count // 4)
            mean = small.multiply_add(shuffled(values, corners), small.constant(0.25), small.constant(128.5))
            half_stride = b.lshr(stride, _I64(1))
            write_rows(bytes_of(mean, count // 4), _I16, high // 2, address, half_stride)
        return ctx.get_dummy_value()

    return typed(types.void, (lanes, *[types.int64] * 6), generate)
