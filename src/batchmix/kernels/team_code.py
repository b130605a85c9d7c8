"""A compiled loop shared out among torch's threads, as code that numba puts into a loop: ``in_team``.

It calls what a compiler calls for ``#pragma omp parallel``. The number of threads is left to OpenMP, as torch
leaves it, for it ends and starts threads where the number changes; threads without a share return at once.
numba's cache does not watch this file; ``loops.compiled`` does.
"""

from __future__ import annotations

from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.extending import intrinsic

cgutils: Any = untyped
BYTES, INT = ir.IntType(8).as_pointer(), ir.IntType(32)
FAILED = 3  # the place of what says so, in what the threads are given


def _in_team(context: Any, loop: Any, arguments: Any, units: Any, threads: Any) -> Any:
    """Call ``loop(*arguments, first, last)`` for all of ``units``, in up to ``threads`` threads.

    Returns:
        0, or 1 where a thread found no memory.
    """
    kinds = (*arguments.types, types.intp, types.intp)
    loop.get_call_type(context, kinds, {})  # compiles it

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _, packed, units, threads = given
        room = cgutils.alloca_once_value(
            builder, cgutils.pack_struct(builder, (packed, units, threads, INT(0)))
        )
        kind = ir.FunctionType(ir.VoidType(), (BYTES,))
        share = ir.Function(builder.module, kind, builder.module.get_unique_name("share_of_a_thread"))
        share.linkage = "internal"
        compiled = loop.dispatcher.overloads[kinds]
        context.active_code_library.add_linking_library(compiled.library)
        _write_share(context, ir.IRBuilder(share.append_basic_block()), room.type, compiled.fndesc)
        parallel = ir.FunctionType(ir.VoidType(), (kind.as_pointer(), BYTES, INT, INT))
        parallel = cgutils.get_or_insert_function(builder.module, parallel, "GOMP_parallel")
        builder.call(parallel, (share, builder.bitcast(room, BYTES), INT(0), INT(0)))
        return builder.load(cgutils.gep_inbounds(builder, room, 0, FAILED))

    return types.int32(loop, arguments, units, threads), build


def _write_share(context: Any, builder: Any, pointer: Any, loop: Any) -> None:
    """The function that each thread calls: it finds out which units are its own."""
    room = builder.bitcast(builder.function.args[0], pointer)
    packed, units, threads, _ = cgutils.unpack_tuple(builder, builder.load(room), 4)

    def ask(name: str) -> Any:
        function = ir.FunctionType(INT, ())
        function = cgutils.get_or_insert_function(builder.module, function, name)
        return builder.sext(builder.call(function, ()), units.type)

    number, there = ask("omp_get_thread_num"), ask("omp_get_num_threads")
    team = builder.select(builder.icmp_signed("<", there, threads), there, threads)
    with cgutils.if_likely(builder, builder.icmp_signed("<", number, team)):
        after = builder.add(number, number.type(1))
        bounds = [builder.sdiv(builder.mul(units, k), team) for k in (number, after)]
        function = context.declare_function(builder.module, loop)
        values = [*cgutils.unpack_tuple(builder, packed), *bounds]
        status, _ = context.call_conv.call_function(builder, function, loop.restype, loop.argtypes, values)
        with cgutils.if_unlikely(builder, status.is_error):
            builder.store(INT(1), cgutils.gep_inbounds(builder, room, 0, FAILED))
    builder.ret_void()


in_team = cast("Any", intrinsic(_in_team))
