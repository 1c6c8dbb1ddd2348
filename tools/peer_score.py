"""Score and mask of one Linear in PyTorch: the opponent of BenchmarkScore.

    python tools/peer_score.py [--rows 4096] [--cols 11008] [--threads 2]
        [--repeat 3] [--dtype bfloat16] [--ours CMD]

Each case is what the methods' published code does, as PyTorch does it best on
a CPU: float32 scores; a whole matrix by the threshold of a full sort; a row by
a sort of each row and the scatter of its first half; N:M by topk of all groups
at once. --ours runs CMD after each repetition (A B A B), so that both see the
same machine; its output is passed on. The least time of each case is reported.
"""

import argparse
import subprocess
import time

import torch
import torch.nn.functional as F


def wanda(w, colsq):
    return w.float().abs() * colsq.sqrt()


def ria(w, colsq):
    a = w.float().abs()
    return (a / a.sum(dim=1, keepdim=True) + a / a.sum(dim=0)) * colsq.sqrt() ** 0.5


def crepe(w, colsq, k=9):
    a = w.float().abs()
    r = k // 2
    kernel = torch.ones(1, 1, k, k)
    kernel[0, 0, r, :] = 0
    kernel[0, 0, :, r] = 0
    kernel[0, 0, r, r] = 1
    n = F.conv2d(a[None, None], kernel, padding=r)[0, 0]
    return (a / a.sum(dim=1, keepdim=True) + a / a.sum(dim=0) + a / n) * colsq.sqrt() ** 0.5


def matrix(s):
    threshold = torch.sort(s.flatten())[0][int(s.numel() * 0.5)]
    return s <= threshold


def row(s):
    mask = torch.zeros_like(s, dtype=torch.bool)
    order = torch.sort(s, dim=-1, stable=True)[1]
    return mask.scatter_(1, order[:, : int(s.shape[1] * 0.5)], True)


def nm(n, m):
    def select(s):
        groups = s.view(s.shape[0], -1, m)
        mask = torch.zeros_like(groups, dtype=torch.bool)
        return mask.scatter_(2, groups.topk(m - n, dim=2, largest=False)[1], True).view_as(s)

    return select


CASES = {
    "magnitude/matrix": (lambda w, c: w.float().abs(), matrix),
    "wanda/row": (wanda, row),
    "wanda/2:4": (wanda, nm(2, 4)),
    "wanda/4:8": (wanda, nm(4, 8)),
    "ria/matrix": (ria, matrix),
    "crepe9/matrix": (crepe, matrix),
}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rows", type=int, default=4096)
    p.add_argument("--cols", type=int, default=11008)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--dtype", default="bfloat16")
    p.add_argument("--ours")
    p.add_argument("--cases", default=",".join(CASES))
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    w = (torch.randn(a.rows, a.cols) * 0.02).to(getattr(torch, a.dtype))
    colsq = torch.rand(a.cols) * 100
    best = {}
    with torch.inference_mode():
        for _ in range(a.repeat):
            for name in a.cases.split(","):
                score, select = CASES[name]
                t0 = time.perf_counter()
                s = score(w, colsq)
                t1 = time.perf_counter()
                select(s)
                t2 = time.perf_counter()
                best[name] = min(best.get(name, (9e9, 0, 0)), (t2 - t0, t1 - t0, t2 - t1))
                del s
            if a.ours:
                subprocess.run(a.ours, shell=True, check=True)
    print(f"torch {torch.__version__}, {a.threads} threads, {a.rows} x {a.cols} {a.dtype}")
    for name, (total, score, select) in best.items():
        print(f"{name:18} {total * 1e3:9.1f} ms   score {score * 1e3:8.1f}   select {select * 1e3:8.1f}")


if __name__ == "__main__":
    main()
