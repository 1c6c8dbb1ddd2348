#!/usr/bin/env python3
"""SparseGPT in PyTorch on a Llama, to compare crepe's output with.

    python tools/oracle/sparsegpt.py demo/data/model --pattern 60% \\
        --calibration testdata/golden/calibration.safetensors \\
        --eval testdata/golden/evaluation.safetensors [--crepe FOLDER]

Written from the paper's algorithm 1 with tools/oracle/prune.py's model: the
Gram matrix by a hook, cholesky_inverse, its upper factor, blocks of 128 columns
whose errors are spread to all columns on the right. Weights are rounded to
bfloat16 when a Linear is done, as they are stored. With --crepe it prints the
share of equal mask bits and the perplexity of that folder. Of each block
⌊out·columns·s⌋ weights go.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""

import argparse
import fractions
import json

import torch

from prune import Model, read_ids

BLOCK = 128


def sweep(w, h, pattern):
    w, dead = w.clone(), h.diagonal() == 0
    h = h.clone()
    h[dead, dead] = 1
    w[:, dead] = 0
    h.diagonal().add_(0.01 * h.diagonal().mean())
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    keep, of = map(int, pattern.split(":")) if ":" in pattern else (0, 0)
    d = u.diagonal()
    for lo in range(0, w.shape[1], BLOCK):
        hi = min(lo + BLOCK, w.shape[1])
        gone = torch.zeros(w.shape[0], hi - lo, dtype=torch.bool)
        if not of:
            s = (w[:, lo:hi] / d[lo:hi]).square().flatten()
            k = int(s.numel() * fractions.Fraction(pattern.rstrip("%")) / 100)
            gone.view(-1)[s.sort(stable=True).indices[:k]] = True
        error = torch.zeros(w.shape[0], hi - lo)
        for j in range(lo, hi):
            if of and j % of == 0:
                s = (w[:, j : j + of] / d[j : j + of]).square()
                gone.scatter_(1, j - lo + s.sort(dim=1, stable=True).indices[:, : of - keep], True)
            e = torch.where(gone[:, j - lo], w[:, j], 0) / d[j]
            w[:, j:hi] -= e[:, None] * u[j, j:hi]
            w[gone[:, j - lo], j] = 0
            error[:, j - lo] = e
        w[:, hi:] -= error @ u[lo:hi, hi:]
    return w.bfloat16().float()


def grams(model, b, hidden):
    h, handles = {}, []
    for name, m in model.linears(b):
        h[name] = torch.zeros(m.in_features, m.in_features, dtype=torch.float64)

        def add(_, args, total=h[name]):
            for x in args[0]:
                total += (x.T @ x).double()

        handles.append(m.register_forward_pre_hook(add))
    for x in hidden:
        model.forward(model.blocks[b], x)
    for one in handles:
        one.remove()
    n = sum(len(x) for x in hidden)
    return {name: (t * 2 / n).float() for name, t in h.items()}


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--calibration", required=True)
    p.add_argument("--eval", required=True)
    p.add_argument("--pattern", default="50%")
    p.add_argument("--crepe", help="folder of crepe's output for the same")
    a = p.parse_args()
    torch.set_num_threads(1)
    model, windows = Model(a.model), read_ids(a.eval)
    other = Model(a.crepe) if a.crepe else None
    hidden = model.embed(read_ids(a.calibration))
    equal = total = 0
    worst = 1.0
    for b, block in enumerate(model.blocks):
        h = grams(model, b, hidden)
        theirs = dict(other.linears(b)) if other else {}
        for name, m in model.linears(b):
            m.weight.copy_(sweep(m.weight, h[name], a.pattern))
            if other:
                same = int(((m.weight == 0) == (theirs[name].weight == 0)).sum())
                equal, total = equal + same, total + m.weight.numel()
                worst = min(worst, same / m.weight.numel())
        hidden = [model.forward(block, x) for x in hidden]
    report = {"pattern": a.pattern, "perplexity": model.perplexity(windows)}
    if other:
        report |= {"equal": equal / total, "equal_worst_linear": worst, "crepe_perplexity": other.perplexity(windows)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
