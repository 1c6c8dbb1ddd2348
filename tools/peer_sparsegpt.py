#!/usr/bin/env python3
"""Factor and sweep of SparseGPT in PyTorch, beside crepe's benchmarks.

    python tools/peer_sparsegpt.py [--cols 4096 11008] [--threads 2] [--rounds 2] [--crepe]

The factor is what the published code does with the Gram matrix: cholesky,
cholesky_inverse, cholesky of that. The sweep is its loop: 128 columns a block,
an outer product a column, one product for all columns on the right. With
--crepe each case is followed by crepe's benchmark of it, so that both see the
same machine; on a busy one only the ratios mean something.

Made with torch 2.15.0.
"""

import argparse
import re
import subprocess
import time

import torch

BLOCK = 128


def factor(h):
    damp = 0.01 * h.diagonal().mean()
    h = h.clone()
    h.diagonal().add_(damp)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)


def sweep(w, u, pattern):
    """w: out × in, changed in place. pattern: a share or (keep, of)."""
    nm = isinstance(pattern, tuple)
    for lo in range(0, w.shape[1], BLOCK):
        hi = min(lo + BLOCK, w.shape[1])
        block, ub = w[:, lo:hi].clone(), u[lo:hi, lo:hi]
        d = ub.diagonal()
        out, err = torch.zeros_like(block), torch.zeros_like(block)
        if nm:
            gone = torch.zeros_like(block, dtype=torch.bool)
        else:
            s = block**2 / d.reshape(1, -1) ** 2
            gone = s <= s.flatten().sort()[0][int(s.numel() * pattern)]
        for i in range(hi - lo):
            if nm and i % pattern[1] == 0:
                s = block[:, i : i + pattern[1]] ** 2 / d[i : i + pattern[1]].reshape(1, -1) ** 2
                gone.scatter_(1, i + s.topk(pattern[1] - pattern[0], dim=1, largest=False)[1], True)
            q = block[:, i].clone()
            q[gone[:, i]] = 0
            out[:, i] = q
            e = (block[:, i] - q) / d[i]
            block[:, i:] -= e.unsqueeze(1).matmul(ub[i, i:].unsqueeze(0))
            err[:, i] = e
        w[:, lo:hi] = out
        w[:, hi:] -= err.matmul(u[lo:hi, hi:])


def clock(f):
    start = time.perf_counter()
    result = f()
    return time.perf_counter() - start, result


def crepe(name):
    text = subprocess.run(
        ["go", "test", "./update", "-run", "xxx", "-bench", f"{name}$", "-benchtime", "1x"], capture_output=True, text=True, check=True
    ).stdout
    return float(re.search(r"\s(\d+) ns/op", text)[1]) / 1e9


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rows", type=int, default=4096)
    p.add_argument("--cols", type=int, nargs="+", default=[4096, 11008])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--crepe", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {a.threads} threads")
    with torch.inference_mode():
        for cols in a.cols:
            x = torch.randn(2048, cols)
            h = 2 * (x.T @ x)
            w = torch.randn(a.rows, cols)
            for _ in range(a.rounds):
                seconds, u = clock(lambda: factor(h))
                report(f"{cols}: factor", seconds, a.crepe and crepe(f"Factorize/4096x{cols}"))
                for name, pattern in ("50%", 0.5), ("2:4", (2, 4)):
                    v = w.clone()
                    seconds, _ = clock(lambda: sweep(v, u, pattern))
                    report(f"{a.rows} x {cols}: sweep {name}", seconds, a.crepe and crepe(f"SparseGPT/4096x{cols}/{name}"))
                del u


def report(name, peer, ours):
    text = f"{name:28} torch {peer:7.2f} s"
    if ours:
        text += f"   crepe {ours:7.2f} s   torch/crepe {peer / ours:.2f}"
    print(text, flush=True)


if __name__ == "__main__":
    main()
