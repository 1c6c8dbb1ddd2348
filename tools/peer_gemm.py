"""Matrix products of crepe against PyTorch's, alternating, on the same cores.

    python tools/peer_gemm.py [--rounds 5] [--shapes 2048x4096x4096,...]

Needs torch and go. Both get every core of the process's affinity mask (use
taskset for fewer). A round runs PyTorch, then crepe, one shape at a time; the
table has each one's best and median GFLOP/s over the rounds, and the median of
the rounds' ratios, crepe / PyTorch. On a busy machine only the ratios mean something.

Shapes are tokens x out x in, y = x W^T. f32: both float32. bf16: PyTorch takes
and gives bfloat16; crepe takes float32 x, rounds it, and gives float32.
"""

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHAPES = "2048x4096x4096,2048x11008x4096,2048x4096x11008"


def peer(tokens, out, width, kind, repeats):
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[kind]
    x = torch.randn(tokens, width).to(dtype)
    w = torch.randn(out, width).to(dtype)
    torch.nn.functional.linear(x, w)
    start = time.perf_counter()
    for _ in range(repeats):
        torch.nn.functional.linear(x, w)
    return 2e-9 * tokens * out * width * repeats / (time.perf_counter() - start)


def ours(binary, shape, kind, level, repeats):
    out = subprocess.run(
        [binary, "-test.run=^$", f"-test.benchtime={repeats}x",
         f"-test.bench=^BenchmarkGemm$/^{shape}$/^{kind}$/^{level}$"],
        check=True, capture_output=True, text=True,
    ).stdout
    return float(re.search(r"([\d.]+) GFLOP/s", out).group(1))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--repeats", type=int, default=3, help="products a measurement")
    args.add_argument("--shapes", default=SHAPES)
    args.add_argument("--kinds", default="f32,bf16")
    args.add_argument("--level", default="avx512", help="avx512, avx2 or generic")
    opt = args.parse_args()

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'shape':>18} {'kind':>5} {'torch best':>11} {'median':>7} {'crepe best':>11} {'median':>7} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        binary = os.path.join(folder, "kernel.test")
        subprocess.run(["go", "test", "-c", "-o", binary, "./internal/kernel"], cwd=ROOT, check=True)
        for shape in opt.shapes.split(","):
            for kind in opt.kinds.split(","):
                a, b = [], []
                for _ in range(opt.rounds):
                    a.append(peer(*map(int, shape.split("x")), kind, opt.repeats))
                    b.append(ours(binary, shape, kind, opt.level, opt.repeats))
                ratio = statistics.median(y / x for x, y in zip(a, b))
                print(f"{shape:>18} {kind:>5} {max(a):11.1f} {statistics.median(a):7.1f}"
                      f" {max(b):11.1f} {statistics.median(b):7.1f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
