#!/usr/bin/env python3
"""The shares of blocks by OWL, DLP and AlphaPruning, to compare crepe's with.

    python tools/golden_allocate.py demo/data/model \\
        --calibration testdata/golden/calibration.safetensors > allocate/testdata/demo.json

Written from the papers with tools/oracle_prune.py's model; torch.linalg.svdvals
in float64 for the singular values, torch.histc for their histogram. Of the
published code it keeps what docs/methods.md says is kept. Dense passes only.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""

import argparse
import json

import torch

from oracle_prune import Model, read_ids

SPARSITIES = (0.3, 0.5, 0.7)


def spread(importance, half, p, floor=0.01):
    """Shares pruned of blocks of equal size; None if one is not below 1."""
    x = torch.tensor(importance, dtype=torch.float64)
    kept = (x - x.min()) / (x.max() - x.min()) * 2 * half
    share = p + kept.mean() - kept
    if share.min() < floor:
        raise ValueError("a block at the floor is not in this oracle")
    return share.tolist() if share.max() < 1 else None


def powerlaw(w):
    l = torch.linalg.svdvals(w.double()).square().sort().values
    logs = l.log()
    counts = torch.histc(l.log10(), 100, min=l.log10().min(), max=l.log10().max())
    edges = torch.linspace(l.log10().min(), l.log10().max(), 101, dtype=torch.float64)
    x = 10 ** edges[counts.argmax()]
    n_all = len(l)
    alphas, ds = torch.zeros(n_all - 1, dtype=torch.float64), torch.ones(n_all - 1, dtype=torch.float64)
    for i in range(n_all - 1):
        if l[i] < (0.95 * x).log10():
            continue
        if l[i] > 1.5 * x:
            break
        n = n_all - i
        alphas[i] = 1 + n / (logs[i:].sum() - n * logs[i])
        if alphas[i] > 1:
            ds[i] = (1 - (l[i:] / l[i]) ** (1 - alphas[i]) - torch.arange(n) / n).abs().max()
    return alphas[ds.argmin()].item(), l


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--calibration", required=True)
    a = p.parse_args()
    torch.set_num_threads(1)
    model = Model(a.model)
    hidden = model.embed(read_ids(a.calibration))
    outliers, means, medians, alphas, sizes = [], [], [], [], []
    for b, block in enumerate(model.blocks):
        colsq = model.gather(b, hidden)
        s = torch.cat([(m.weight.double().abs() * colsq[name].sqrt()).flatten() for name, m in model.linears(b)])
        outliers.append((s > 5 * s.mean()).double().mean().item())
        means.append(s.mean().item())
        medians.append(s.median().item())
        alphas.append(sum(powerlaw(m.weight)[0] for _, m in model.linears(b)) / len(list(model.linears(b))))
        sizes.append(len(s))
        hidden = [model.forward(block, x) for x in hidden]
    assert len(set(sizes)) == 1

    def importance(scores):
        return [1 - x / sum(scores) for x in scores]

    def scaled(p, epsilon):
        x = torch.tensor(alphas, dtype=torch.float64)
        r = (x - x.min()) / (x.max() - x.min()) * 2 * epsilon + 1 - epsilon
        r *= p / r.mean()
        return r.tolist() if r.max() < 1 else None

    out = []
    for name, params, measures, share in (
        ("owl", {}, outliers, lambda p: spread(outliers, 0.08, p)),
        ("dlp", {}, means, lambda p: spread(importance(means), 0.15, p)),
        ("dlp", {"center": "median"}, medians, lambda p: spread(importance(medians), 0.15, p)),
        ("alphapruning", {}, alphas, lambda p: scaled(p, 0.3)),
        ("alphapruning", {"epsilon": 0.1}, alphas, lambda p: scaled(p, 0.1)),
    ):
        shares = {str(p): share(p) for p in SPARSITIES}
        out.append({"method": name, "params": params, "measures": measures, "shares": shares})
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
