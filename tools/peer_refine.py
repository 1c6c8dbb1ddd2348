#!/usr/bin/env python3
"""Refinements of a mask in PyTorch, beside crepe's benchmarks.

    python tools/peer_refine.py [--threads 2] [--rounds 2] [--pairs-rows 8] --ours REFINE.TEST

One layer of 4096 × 4096 at 60 %, pruned per row. dsnot is the published code's
way: both candidate lists of all rows sorted as a whole, then 50 cycles of
gathers and scatters over all rows. swaps is the search over all pairs of a row,
of --pairs-rows rows, 10 exchanges each; the time is scaled to all rows. REFINE.TEST
is `go test -c -o REFINE.TEST ./refine`; each case is followed by crepe's
benchmark of it, whose data are alike, so that both see the same machine.

Made with torch 2.15.0.
"""

import argparse
import re
import subprocess
import time

import torch

ROWS = COLS = 4096


def layer():
    """W, and the input of 64 common directions and noise that crepe's benchmark has."""
    torch.manual_seed(0)
    x = torch.randn(2048, COLS) + 0.3 * torch.randn(COLS) + torch.randn(2048, 64) @ (torch.randn(64, COLS) / 8)
    x *= torch.exp(0.5 * torch.randn(COLS))
    return 0.02 * torch.randn(ROWS, COLS), x


def dsnot(w, colsq, colsum, colvar, pruned, cycles=50):
    """pruned of each row, as many in every row, is refined in place."""
    m = w * colsum
    score = w.abs() * colsq.sqrt()
    count = int(pruned[0].sum())
    err = (m * pruned).sum(1, keepdim=True)
    grow = torch.where(pruned, m / colvar, 0).sort(dim=1, stable=True)[1]
    keep = torch.where(pruned, torch.inf, score).sort(dim=1, stable=True)[1][:, : COLS - count]
    sign = m.gather(1, keep) > 0
    # The kept of each sign in ascending order: those below 0 first, then those above.
    drop = keep.gather(1, sign.to(torch.int8).sort(dim=1, stable=True)[1])
    below = (~sign).sum(1, keepdim=True)
    at_grow = torch.tensor([[0, COLS - 1]]).repeat(len(w), 1)
    at_drop = torch.cat([torch.zeros_like(below), below], 1)
    going = torch.ones_like(err, dtype=torch.bool)
    for _ in range(cycles):
        side = (err > 0).long()
        j = grow.gather(1, at_grow.gather(1, side))
        i = drop.gather(1, at_drop.gather(1, 1 - side).clamp(max=drop.shape[1] - 1))
        going &= err.abs() > 0.1
        if not going.any():
            break
        pruned.scatter_(1, i, going | pruned.gather(1, i))
        pruned.scatter_(1, j, ~going & pruned.gather(1, j))
        err += torch.where(going, m.gather(1, i) - m.gather(1, j), 0)
        at_grow.scatter_add_(1, side, 1 - 2 * side)
        at_drop.scatter_add_(1, 1 - side, torch.ones_like(side))


def swaps(w, h, pruned, exchanges):
    """The rows of w one after the other; all pairs in each exchange."""
    d = h.diagonal()
    for row, gone in zip(w, pruned):
        r = h @ (row * gone)
        for _ in range(exchanges):
            out, stay = gone.nonzero()[:, 0], (~gone).nonzero()[:, 0]
            wj, wi = row[out], row[stay]
            a, b = wj * wj * d[out] - 2 * wj * r[out], wi * wi * d[stay] + 2 * wi * r[stay]
            delta = a[:, None] + b - 2 * (wj[:, None] * wi) * h[out][:, stay]
            at = int(delta.argmin())
            j, i = out[at // len(stay)], stay[at % len(stay)]
            if delta.view(-1)[at] >= 0:
                break
            gone[j], gone[i] = False, True
            r += row[i] * h[i] - row[j] * h[j]


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def crepe(ours, name):
    text = subprocess.run([ours, "-test.run", "xxx", "-test.bench", name, "-test.benchtime", "1x"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"\s(\d+) ns/op", text)[1]) / 1e9


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--pairs-rows", type=int, default=8)
    p.add_argument("--ours", required=True)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    with torch.inference_mode():
        w, x = layer()
        h, colsq, colsum, colvar = 2 * (x.T @ x), x.square().sum(0), x.sum(0), x.var(0, unbiased=False)
        start = torch.zeros(ROWS, COLS, dtype=torch.bool)
        start.scatter_(1, (w.abs() * colsq.sqrt()).sort(dim=1)[1][:, : COLS * 6 // 10], True)
        for _ in range(a.rounds):
            gone = start.clone()
            report("dsnot, 50 cycles", clock(lambda: dsnot(w, colsq, colsum, colvar, gone)), crepe(a.ours, "DSnoT/4096x4096/60%"))
            gone = start.clone()
            n = a.pairs_rows
            seconds = clock(lambda: swaps(w[:n], h, gone[:n], 10)) * ROWS / n
            report("swaps, 10 exchanges a row", seconds, crepe(a.ours, "Swaps/4096x4096/60%/10$"))


def report(name, peer, ours):
    print(f"{name:28} torch {peer:8.2f} s   crepe {ours:7.2f} s   torch/crepe {peer / ours:.1f}", flush=True)


if __name__ == "__main__":
    main()
