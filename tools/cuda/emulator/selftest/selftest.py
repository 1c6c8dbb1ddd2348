"""Check the emulator: its own kernels against NumPy, its faults, its products.

    python tools/cuda/emulator/selftest/selftest.py FOLDER

builds into FOLDER. Each case runs in a process of its own, since a fault ends it.
"""

import ctypes
import os
import subprocess
import sys
import time
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


class Card:
    def __init__(self, folder):
        self.cuda = ctypes.CDLL(f"{folder}/libcuda.so.1")
        self.call("cuInit", 0)
        context, self.module = c_void_p(), c_void_p()
        self.call("cuDevicePrimaryCtxRetain", byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.call("cuModuleLoadData", byref(self.module), b"ptx")

    def try_call(self, name, *args):
        return getattr(self.cuda, name)(*args)

    def call(self, name, *args):
        code = self.try_call(name, *args)
        assert code == 0, f"{name}: {code}"

    def empty(self, size):
        p = c_size_t()
        self.call("cuMemAlloc_v2", byref(p), c_size_t(size))
        return p

    def put(self, array):
        array = np.ascontiguousarray(array)
        p = self.empty(array.nbytes)
        self.call("cuMemcpyHtoD_v2", p, c_void_p(array.ctypes.data), c_size_t(array.nbytes))
        return p

    def get(self, p, shape, dtype):
        array = np.zeros(shape, dtype)
        self.call("cuMemcpyDtoH_v2", c_void_p(array.ctypes.data), p, c_size_t(array.nbytes))
        return array

    def launch(self, name, grid, block, *args, shared=0, stream=None):
        f = c_void_p()
        self.call("cuModuleGetFunction", byref(f), self.module, name.encode())
        args = [c_int(a) if isinstance(a, int) else c_float(a) if isinstance(a, float) else a for a in args]
        pointers = (c_void_p * max(1, len(args)))(*[ctypes.cast(byref(a), c_void_p) for a in args])
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        code = self.try_call("cuLaunchKernel", f, *grid, *block, shared, stream, pointers, None)
        return code


def bf16(x):
    b = np.asarray(x, np.float32).view(np.uint32)
    return ((b + 0x7FFF + (b >> 16 & 1)) >> 16).astype(np.uint16)


def widen(b):
    return (b.astype(np.uint32) << 16).view(np.float32)


rng = np.random.default_rng(1)


def case_exchanges(card):
    n = 3 * 96
    v = rng.integers(0, 1 << 20, n, dtype=np.uint32)
    out = card.empty(6 * n * 4)
    assert card.launch("exchanges", (3,), (96,), out, card.put(v), n) == 0
    w, lane = v.reshape(-1, 32), np.arange(32)
    want = np.stack([w[:, lane ^ 5], np.where(lane >= 3, w[:, lane - 3], w), np.where(lane + 7 < 32, w[:, (lane + 7) % 32], w),
                     np.take_along_axis(w, w % 32, 1).astype(np.uint32),
                     np.repeat((w & 1) @ (1 << lane.astype(np.uint64)).astype(np.uint64), 32).reshape(w.shape),
                     np.repeat(w.sum(1), 32).reshape(w.shape)]).astype(np.uint32)
    np.testing.assert_array_equal(card.get(out, (6, n), np.uint32), want.reshape(6, n))


def case_transpose(card):
    x = rng.normal(size=(96, 96)).astype(np.float32)
    out = card.empty(x.nbytes)
    assert card.launch("transpose", (6, 6), (16, 16), out, card.put(x), 96) == 0
    np.testing.assert_array_equal(card.get(out, x.shape, x.dtype), x.T)


def case_histogram(card):
    x = rng.integers(0, 200, 100003, dtype=np.uint8)
    counts, largest = card.put(np.zeros(256, np.uint32)), card.put(np.zeros(1, np.uint32))
    assert card.launch("histogram", (37,), (128,), counts, largest, card.put(x), len(x), shared=1024) == 0
    np.testing.assert_array_equal(card.get(counts, 256, np.uint32), np.bincount(x, minlength=256))
    assert card.get(largest, 1, np.uint32)[0] == 199


def case_fragments(card):
    a, b = bf16(rng.normal(size=(16, 16))), bf16(rng.normal(size=(16, 8)))
    d = card.empty(16 * 8 * 4)
    assert card.launch("fragments", (1,), (32,), d, card.put(a), card.put(b)) == 0
    np.testing.assert_allclose(card.get(d, (16, 8), np.float32), widen(a) @ widen(b), rtol=1e-5, atol=1e-5)


def case_product(card):
    m, n, k = 64, 96, 72
    a, b = bf16(rng.normal(size=(m, k))), bf16(rng.normal(size=(k, n)))
    for columns in [0, 1]:
        c = card.empty(m * n * 4)
        assert card.launch("product", (n // 32, m // 32), (128,), c, card.put(a), card.put(b if columns else b.T), n, k, columns, shared=4 * 32 * 40 * 2) == 0
        np.testing.assert_allclose(card.get(c, (m, n), np.float32), widen(a) @ widen(b), rtol=1e-4, atol=1e-4)


def case_rounding(card):
    n = 1000
    x, y = rng.normal(size=(2, n)).astype(np.float32)
    once, contracted = card.empty(4 * n), card.empty(4 * n)
    a = float(np.float32(1.1))
    assert card.launch("rounding", (8,), (128,), once, contracted, card.put(x), card.put(y), a, n) == 0
    np.testing.assert_array_equal(card.get(once, n, np.float32), np.float32(a) * x + y)
    exact = (np.float64(a) * x + y).astype(np.float32)
    np.testing.assert_array_equal(card.get(contracted, n, np.float32), exact)


def case_memory(card):
    free, total = c_size_t(), c_size_t()
    card.call("cuMemGetInfo_v2", byref(free), byref(total))
    assert free.value == total.value == 1 << 20
    p = card.empty(1000)
    assert p.value % 256 == 0 and np.isnan(card.get(p, 250, np.float32)).all()
    card.call("cuMemGetInfo_v2", byref(free), byref(total))
    assert free.value == total.value - 1024
    q = c_size_t()
    assert card.try_call("cuMemAlloc_v2", byref(q), c_size_t(1 << 20)) == 2
    assert card.try_call("cuMemcpyHtoD_v2", p, c_void_p(np.zeros(1001, np.uint8).ctypes.data), c_size_t(1001)) == 1
    card.call("cuMemFree_v2", p)
    assert card.try_call("cuMemFree_v2", p) == 1


def case_lost(card):
    x = card.put(np.ones(32, np.float32))
    assert [card.launch("scale", (1,), (32,), x, 2.0) for _ in range(3)] == [0, 0, 719]
    assert card.try_call("cuCtxSynchronize") == 719


def case_late(card):
    """Copies and kernels wait for whoever waits for them; events order two streams."""
    one, two, done, p = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    for s in [one, two]:
        card.call("cuStreamCreate", byref(s), 1)
    card.call("cuEventCreate", byref(done), 2)
    card.call("cuMemHostAlloc", byref(p), c_size_t(4 * 256), 0)
    pinned = np.frombuffer((c_float * 256).from_address(p.value), np.float32)
    x = card.empty(4 * 256)
    pinned[:] = 1
    card.call("cuMemcpyHtoDAsync_v2", x, p, c_size_t(4 * 256), one)
    pinned[:] = 2  # too early: the copy has not run
    assert card.launch("scale", (1,), (256,), x, 3.0, stream=one) == 0
    card.call("cuEventRecord", done, one)
    assert card.try_call("cuEventQuery", done) == 600
    card.call("cuStreamWaitEvent", two, done, 0)
    card.call("cuMemcpyDtoHAsync_v2", p, x, c_size_t(4 * 256), two)
    assert pinned[0] == 2
    card.call("cuStreamSynchronize", two)
    assert (pinned == 6).all()


def wrong(name, args, block=64, **options):
    def case(card):
        out, x = card.empty(4 * 256), card.put(np.arange(256, dtype=np.float32))
        values = {"out": out, "in": x, "host": c_size_t(np.zeros(256, np.float32).ctypes.data)}
        code = card.launch(name, (1,), (block,), *[values.get(a, a) for a in args], **options)
        print("code", code, card.get(out, block, np.float32).tolist() if code == 0 else "")
    return case


# name, what runs, what its output must hold, environment
CASES = [(f.__name__[5:], f, "", {}) for f in [case_exchanges, case_transpose, case_histogram, case_fragments, case_product, case_rounding]]
CASES = [(f"{name} {order}", f, says, {"CREPE_EMULATOR_ORDER": order}) for name, f, says, _ in CASES for order in ["forward", "reverse", "random"]]
CASES += [
    ("memory", case_memory, "", {"CREPE_EMULATOR_MEMORY": str(1 << 20)}),
    ("lost", case_lost, "", {"CREPE_EMULATOR_LOST": "2"}),
    ("late", case_late, "", {"CREPE_EMULATOR_LATE": "1"}),
    ("behind", wrong("wrong_behind", ["out", "in", 256]), "kernel wrong_behind, block (0, 0, 0), thread (0, 0, 0): access to", {}),
    ("before", wrong("wrong_before", ["out", "in", 1024]), "selftest.cu:", {}),
    ("host", wrong("wrong_behind", ["out", "host", 0]), "argument 1 is", {}),
    ("barrier", wrong("wrong_barrier", ["out"]), "24 threads, the first 40, wait for the block at", {}),
    ("exit", wrong("wrong_exit", ["out"]), "1 threads, the first 63, have ended", {}),
    ("exchange", wrong("wrong_exchange", ["out"]), "16 threads, the first 0, wait for their warp at", {}),
    ("part of a warp", wrong("wrong_exchange", ["out"], block=16), "in a warp of 16 lanes", {}),
    ("alignment", wrong("wrong_alignment", ["out", "in"]), "alignment are not kept", {}),
    ("bounds", wrong("wrong_bounds", ["out", 1]), "an array's bounds", {}),
    ("dynamic", wrong("wrong_dynamic", ["out", 1], shared=256), "behind the dynamic shared memory", {}),
    ("local", wrong("wrong_local", ["out", 30000]), "local variables need more than", {}),
    ("race", wrong("wrong_race", ["out"], block=256), "nan", {}),
    ("wait", wrong("wrong_wait", ["out", "in"], shared=1024), "nan", {}),
    ("block size", wrong("transpose", ["out", "in", 1], block=512), "code 701", {}),
    ("shared size", wrong("wrong_dynamic", ["out", 1], shared=50000), "code 1 ", {}),
]


def products(card, folder):
    blas = ctypes.CDLL(f"{folder}/libcublasLt.so.12")
    h = c_void_p()
    assert blas.cublasLtCreate(byref(h)) == 0

    def put(x, kind):
        x = np.asfortranarray(x)
        raw = {0: lambda: x.astype(np.float32), 1: lambda: x.astype(np.float64), 2: lambda: x.astype(np.float16), 14: lambda: bf16(x)}[kind]()
        return card.put(raw.ravel(order="K")), {14: widen}.get(kind, lambda v: v)(raw).astype(np.float64)

    def layout(kind, rows, cols, ld, batch, stride):
        l = c_void_p()
        assert blas.cublasLtMatrixLayoutCreate(byref(l), kind, ctypes.c_uint64(rows), ctypes.c_uint64(cols), ctypes.c_int64(ld)) == 0
        for attribute, v in [(5, c_int(batch)), (6, ctypes.c_int64(stride))]:
            assert blas.cublasLtMatrixLayoutSetAttribute(l, attribute, byref(v), c_size_t(ctypes.sizeof(v))) == 0
        return l

    def product(ta, tb, kind, out, compute, m, n, k, batch, alpha, beta, tolerance):
        pad = 3
        rows = {"a": (k if ta else m) + pad, "b": (n if tb else k) + pad, "c": m + pad}
        cols = {"a": m if ta else k, "b": k if tb else n, "c": n}
        host, device = {}, {}
        for x, t in [("a", kind), ("b", kind), ("c", out)]:
            device[x], host[x] = put(rng.normal(size=(rows[x], cols[x] * batch)), t)
            host[x] = host[x][:-pad].reshape(rows[x] - pad, batch, cols[x])
        l = {x: layout(t, rows[x] - pad, cols[x], rows[x], batch, rows[x] * cols[x]) for x, t in [("a", kind), ("b", kind), ("c", out)]}
        p, preference = c_void_p(), c_void_p()
        scale = 1 if kind == 1 else 0
        assert blas.cublasLtMatmulDescCreate(byref(p), compute, scale) == 0
        for attribute, v in [(3, c_int(ta)), (4, c_int(tb))]:
            assert blas.cublasLtMatmulDescSetAttribute(p, attribute, byref(v), c_size_t(4)) == 0
        assert blas.cublasLtMatmulPreferenceCreate(byref(preference)) == 0
        room = ctypes.c_uint64(1 << 20)
        assert blas.cublasLtMatmulPreferenceSetAttribute(preference, 1, byref(room), c_size_t(8)) == 0
        result, count = (ctypes.c_uint8 * 96)(), c_int()
        code = blas.cublasLtMatmulAlgoGetHeuristic(h, p, l["a"], l["b"], l["c"], l["c"], preference, 1, result, byref(count))
        if code:
            return code
        scalar = ctypes.c_double if scale else c_float
        workspace = card.empty(1 << 20)
        begin = time.time()
        code = blas.cublasLtMatmul(h, p, byref(scalar(alpha)), device["a"], l["a"], device["b"], l["b"], byref(scalar(beta)), device["c"], l["c"],
                                   device["c"], l["c"], result, workspace, c_size_t(1 << 20), None)
        assert code == 0, code
        seconds = time.time() - begin
        raw = card.get(device["c"], (cols["c"] * batch, rows["c"]), {0: np.float32, 1: np.float64, 2: np.float16, 14: np.uint16}[out])
        got = (widen(raw) if out == 14 else raw).T[:-pad].reshape(m, batch, n)
        for i in range(batch):
            a, b = host["a"][:, i], host["b"][:, i]
            want = alpha * (a.T if ta else a) @ (b.T if tb else b) + beta * host["c"][:, i]
            np.testing.assert_allclose(got[:, i], want, rtol=tolerance, atol=tolerance * k**0.5)
        return seconds

    for ta in [0, 1]:
        for tb in [0, 1]:
            for kind, out, compute, tolerance in [(14, 14, 68, 1e-2), (14, 0, 68, 1e-5), (2, 2, 68, 2e-3), (2, 0, 68, 1e-5), (0, 0, 68, 1e-5), (0, 0, 77, 3e-3), (1, 1, 70, 1e-13)]:
                for m, n, k, batch in [(1, 1, 1, 1), (33, 17, 300, 2), (5, 130, 64, 3), (257, 9, 31, 1)]:
                    product(ta, tb, kind, out, compute, m, n, k, batch, 0.5, rng.choice([0, 1.5]), tolerance)
    assert product(0, 0, 14, 2, 68, 4, 4, 4, 1, 1, 0, 1) == 15
    for kind, compute in [(14, 68), (0, 68), (1, 70)]:
        n = 1024
        print(f"product of {n}³, type {kind}: {2 * n**3 / product(1, 0, kind, kind, compute, n, n, n, 1, 1, 0, 1e-1) / 1e9:.0f} GFLOP/s")


def speed(card):
    x = card.put(np.ones(256 * 4096, np.float32))
    out = card.empty(4 * 4096)
    for name, args in [("scale", (x, 1.0)), ("sums", (out, x))]:
        begin = time.process_time()
        assert card.launch(name, (4096,), (256,), *args) == 0
        print(f"{name}: 4096 blocks of 256 threads in {time.process_time() - begin:.3f} s of a processor")
    m = 512
    a = card.put(bf16(rng.normal(size=(m, m))))
    c = card.empty(m * m * 4)
    begin = time.process_time()
    assert card.launch("product", (m // 32, m // 32), (128,), c, a, a, m, m, 0, shared=4 * 32 * 40 * 2) == 0
    print(f"product by mma of {m}³: {2 * m**3 / (time.process_time() - begin) / 1e9:.1f} GFLOP/s of a processor")


def main():
    folder = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        name = sys.argv[2]
        card = Card(folder)
        if name == "products":
            products(card, folder)
        elif name == "speed":
            speed(card)
        else:
            next(f for n, f, _, _ in CASES if n == name)(card)
        return
    subprocess.run([sys.executable, str(HERE.parent / "build.py"), str(folder), "--kernels", str(HERE)], check=True)
    bad = 0
    for name, _, says, environment in [*CASES, ("products", None, "", {}), ("speed", None, "", {})]:
        r = subprocess.run([sys.executable, __file__, str(folder), name], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
        output = r.stdout + r.stderr
        good = says in output if says else r.returncode == 0
        bad += not good
        print(("ok   " if good else "FAIL ") + name + ("" if good and says else "\n" + output if output else ""), flush=True)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
