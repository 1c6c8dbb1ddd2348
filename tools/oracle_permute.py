#!/usr/bin/env python3
"""Prune a Llama to N:M with permuted columns in PyTorch, to compare crepe with.

    python tools/oracle_permute.py demo/data/model --method ria --permute lsa \\
        --calibration testdata/golden/calibration.safetensors \\
        --eval testdata/golden/evaluation.safetensors --crepe FOLDER

Written from the paper with tools/oracle_prune.py's model and scores: every
candidate column is put into every group and the group sorted, in float64;
SciPy's linear_sum_assignment. An order that keeps no more is given up. With
--crepe it prints the share of equal mask bits, of all and of the worst Linear,
and the perplexity of that folder. Where several assignments keep the same,
those that are chosen differ, and so do all later inputs: --follow goes on with
crepe's weights instead.

Made with torch 2.15.0, transformers 5.23.0, scipy 1.17.1, numpy 2.4.6.
"""

import argparse
import json

import torch
from scipy.optimize import linear_sum_assignment

from oracle_prune import Config, Model, read_ids, scores, select


def retained(s, keep):
    return s.sort(dim=-1).values[..., s.shape[-1] - keep :].sum()


def deal(s, of):
    by_sum = s.sum(0).sort(stable=True).indices
    order, n = torch.empty_like(by_sum), len(by_sum)
    for k in range(of):
        part = by_sum[n * k // of : n * (k + 1) // of]
        order[k::of] = part.flip(0) if k % 2 else part
    return order


def assign(s, order, keep, of):
    groups = len(order) // of
    for c in range(of):
        grouped = s[:, order].reshape(len(s), groups, of)
        gain = torch.zeros(groups, groups, dtype=torch.float64)
        for g in range(groups):
            tried = grouped[:, g : g + 1].repeat(1, groups, 1)
            tried[:, :, c] = grouped[:, :, c]
            gain[g] = tried.sort(dim=2).values[:, :, of - keep :].sum((0, 2))
        to = linear_sum_assignment(gain.numpy(), maximize=True)[1]
        order[c::of] = order[c::of][torch.from_numpy(to)]
    return order


def best_order(s, how, keep, of):
    order = deal(s, of)
    if how == "lsa":
        order = assign(s, order, keep, of)
    plain = torch.arange(len(order))
    value = [retained(s[:, o].reshape(len(s), -1, of), keep) for o in (plain, order)]
    return order if value[1] > value[0] else plain


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--calibration", required=True)
    p.add_argument("--eval", required=True)
    p.add_argument("--method", default="ria")
    p.add_argument("--pattern", default="2:4")
    p.add_argument("--permute", default="lsa", choices=["cp", "lsa"])
    p.add_argument("--crepe", help="folder of crepe's output for the same")
    p.add_argument("--follow", action="store_true", help="go on with crepe's weights, so that a tie does not spread")
    a = p.parse_args()
    torch.set_num_threads(1)
    config = Config(method=a.method, pattern=a.pattern)
    keep, of = map(int, a.pattern.split(":"))
    model, windows = Model(a.model), read_ids(a.eval)
    other = Model(a.crepe) if a.crepe else None
    hidden = model.embed(read_ids(a.calibration))
    equal = total = linears = 0
    worst = 1.0
    for b, block in enumerate(model.blocks):
        colsq = model.gather(b, hidden)
        theirs = dict(other.linears(b)) if other else {}
        for name, m in model.linears(b):
            s = scores(config, m.weight, colsq[name])
            order = best_order(s, a.permute, keep, of)
            kept = torch.empty_like(s, dtype=torch.bool)
            kept[:, order] = select(config, s[:, order])
            m.weight[~kept] = 0
            if other:
                same = int(((m.weight == 0) == (theirs[name].weight == 0)).sum())
                equal, total = equal + same, total + m.weight.numel()
                worst = min(worst, same / m.weight.numel())
                linears += same == m.weight.numel()
                if a.follow:
                    m.weight.copy_(theirs[name].weight)
        hidden = [model.forward(block, x) for x in hidden]
    report = {"method": a.method, "pattern": a.pattern, "permute": a.permute, "perplexity": model.perplexity(windows)}
    if other:
        report |= {"linears_equal": linears, "equal": equal / total, "equal_worst_linear": worst, "crepe_perplexity": other.perplexity(windows)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
