#!/usr/bin/env python3
"""Refinements of a mask in NumPy, to compare crepe's with.

    python tools/oracle_refine.py golden          # testdata/golden/refine
    python tools/oracle_refine.py run --method ria --pattern 60% --refine dsnot \\
        [--layers all] [--cycles 50] [--crepe FOLDER]

Written from the papers' formulas with tools/oracle_prune.py's model and scores;
a row at a time, every candidate list sorted as a whole, every pair of an
exchange tried, float64.

golden writes the statistics of the dense model's inputs, rounded to float32,
and the masks that refinement makes of its Linears with those (the README there
describes the format). run prunes and refines the demo model as a whole and
prints its perplexity; with --crepe also the share of mask bits that are equal
in that folder, and the folder's perplexity.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6.
"""

import argparse
import hashlib
import json
import pathlib

import numpy as np
import safetensors.torch
import torch

from golden_masks import digest
from oracle_prune import Config, Model, near, packed, read_ids, scores, select

MODEL = "demo/data/model"
GOLDEN = pathlib.Path("testdata/golden")
TOLERANCE = 1e-5  # below which float32 may order two scores otherwise


class Statistic:
    """What an input saw, gathered in float64."""

    def __init__(self, width):
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.square, self.sum, self.inside = (torch.zeros(width, dtype=torch.float64) for _ in range(3))
        self.sequences = self.tokens = 0

    def add(self, x):  # one sequence, tokens × in
        x = x.double()
        self.square += x.square().sum(0)
        self.sum += x.sum(0)
        self.inside += len(x) * x.var(0, unbiased=False)
        self.sequences += 1
        self.tokens += len(x)
        self.gram += x.T @ x

    def arrays(self):
        n = self.sequences
        gram = (self.gram * 2 / n).float().double().numpy()
        return {"gram": gram, "colsq": (self.square / n).numpy(), "colsum": (self.sum / n).numpy(), "colvar": (self.inside / self.tokens).numpy()}


def gather(model, b, hidden):
    stats, handles = {}, []
    for name, m in model.linears(b):
        stats[name] = Statistic(m.in_features)

        def add(_, args, s=stats[name]):
            for x in args[0]:
                s.add(x)

        handles.append(m.register_forward_pre_hook(add))
    for x in hidden:
        model.forward(model.blocks[b], x)
    for h in handles:
        h.remove()
    return {name: s.arrays() for name, s in stats.items()}


def dsnot_row(w, kept, score, stat, of, cycles):
    """Refines kept, of one row, in place. Returns the exchanges and whether
    some choice between scores was within TOLERANCE."""
    m = w * stat["colsum"]
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = m / stat["colvar"]
    columns = np.arange(len(w))
    wanda = np.abs(w) * np.sqrt(stat["colsq"])
    err = m[~kept].sum()
    first = np.sign(err)
    start = kept.copy()

    def by(key, chosen):
        at = columns[chosen]
        return list(at[np.argsort(key[at], kind="stable")])

    grow = {1: by(-quotient, ~kept & (m > 0)), -1: by(quotient, ~kept & (m < 0))}
    drop = {1: by(wanda, kept & (m < 0)), -1: by(wanda, kept & (m > 0))}
    done, close = 0, False
    while done < cycles and abs(err) > 0.1:
        sign = 1 if err > 0 else -1
        if not grow[sign]:
            break
        if of:
            j = grow[sign].pop(0)
            group = j // of * of + np.arange(of)
            group = group[kept[group] & start[group]]
            if not len(group):
                continue
            group = group[np.argsort(score[group], kind="stable")]
            i = group[0]
            if len(group) > 1 and score[group[1]] <= score[i] * (1 + TOLERANCE):
                close = True
            if np.sign(err + m[i] - m[j]) != first:
                break
        else:
            if not drop[sign]:
                break
            j, i = grow[sign].pop(0), drop[sign].pop(0)
        kept[j], kept[i] = True, False
        err += m[i] - m[j]
        done += 1
    return done, close


def dsnot(w, kept, score, stat, of, cycles):
    kept = kept.copy()
    done = [dsnot_row(w[i], kept[i], score[i], stat, of, cycles) for i in range(len(w))]
    return kept, sum(n for n, _ in done), [i for i, (_, close) in enumerate(done) if close]


def swap_row(w, kept, h, of, cycles):
    """Exchanges weights of kept, of one row, in place. Returns how many, and
    the error before and after."""
    group = np.arange(len(w)) // of if of else np.zeros(len(w), dtype=int)
    u = np.where(kept, 0, w)
    before = u @ h @ u
    for done in range(cycles):
        u = np.where(kept, 0, w)
        r = h @ u
        a = w * w * h.diagonal() - 2 * w * r
        b = w * w * h.diagonal() + 2 * w * r
        out, stay = (~kept).nonzero()[0], kept.nonzero()[0]
        delta = a[out][:, None] + b[stay] - 2 * w[out][:, None] * w[stay] * h[np.ix_(out, stay)]
        delta[group[out][:, None] != group[stay]] = np.inf
        j, i = np.unravel_index(delta.argmin(), delta.shape)
        if delta[j, i] >= -1e-12 * before:
            break
        kept[out[j]], kept[stay[i]] = True, False
    else:
        done = cycles
    u = np.where(kept, 0, w)
    return done, before, u @ h @ u


def swaps(w, kept, score, stat, of, cycles):
    kept = kept.copy()
    rows = [swap_row(w[i], kept[i], stat["gram"], of, cycles) for i in range(len(w))]
    done, before, after = map(sum, zip(*rows))
    return kept, done, [], before, after


REFINE = {"dsnot": (dsnot, 50, "attention"), "swaps": (swaps, 100, "all")}


def group_of(pattern):
    return int(pattern.split(":")[1]) if ":" in pattern else 0


def refined(c, m, stat, name, cycles):
    """The start of c for a Linear, which of it is near, and what becomes of it."""
    s = scores(c, m.weight, torch.from_numpy(stat["colsq"]))
    start = select(c, s)
    method, default, _ = REFINE[name]
    w = m.weight.double().numpy()
    return start, near(c, s, TOLERANCE)[0], method(w, start.numpy(), s.numpy(), stat, group_of(c.pattern), cycles or default)


# Golden values. All pairs in NumPy take their time, so some blocks and cycles only.

SWAP_CYCLES, SWAP_BLOCKS = 20, (0, 3)

CONFIGS = {
    f"{refine}-{m}-{p.replace('%', '').replace(':', 'of')}": (Config(m, p), refine)
    for refine in REFINE
    for m in ("wanda", "ria", "crepe")
    for p in ("60%", "70%", "2:4")
}


def golden_linear(name, start, close, result):
    kept, exchanges, rows, *errors = result
    kept = torch.from_numpy(kept)
    compared = kept.clone()
    compared[rows] = False
    more = {"row_crc": digest(kept), "error_before": errors[0], "error_after": errors[1]} if errors else {}
    return more | {
        "name": name, "rows": kept.shape[0], "cols": kept.shape[1], "pruned": int((~kept).sum()), "exchanges": exchanges,
        "sha256": hashlib.sha256(packed(compared)).hexdigest(), "near_rows": rows,
        "near_kept": (close & start).reshape(-1).nonzero()[:, 0].tolist(),
        "near_pruned": (close & ~start).reshape(-1).nonzero()[:, 0].tolist(),
    }  # fmt: skip


@torch.no_grad()
def golden(a):
    model = Model(MODEL)
    hidden = model.embed(read_ids(GOLDEN / "calibration.safetensors"))
    stats, tensors = {}, {}
    for b, block in enumerate(model.blocks):
        for name, stat in gather(model, b, hidden).items():
            for what, v in stat.items():
                if what != "gram" and name.endswith(("q_proj", "o_proj", "gate_proj", "down_proj")):
                    tensors[f"{name}.{what}"] = torch.from_numpy(v.astype(np.float32))
            stats[name] = {what: v if what == "gram" else v.astype(np.float32).astype(np.float64) for what, v in stat.items()}
        hidden = [model.forward(block, x) for x in hidden]
    (GOLDEN / "refine").mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, GOLDEN / "refine" / "stats.safetensors")
    for key, (c, refine) in CONFIGS.items():
        if a.names and key not in a.names:
            continue
        linears = []
        cycles, blocks = (SWAP_CYCLES, SWAP_BLOCKS) if refine == "swaps" else (REFINE[refine][1], range(len(model.blocks)))
        for b in blocks:
            for name, m in model.linears(b):
                linears.append(golden_linear(name, *refined(c, m, stats[name], refine, cycles)))
        head = {"method": c.method, "pattern": c.pattern, "refine": refine, "cycles": cycles}
        lines = ",\n  ".join(json.dumps(one) for one in linears)
        (GOLDEN / "refine" / f"{key}.json").write_text(json.dumps(head, indent=1)[:-2] + f',\n "linears": [\n  {lines}\n ]\n}}\n')
        print(key, sum(one["exchanges"] for one in linears), "exchanges,", sum(len(one["near_rows"]) for one in linears), "rows near", flush=True)


@torch.no_grad()
def run(a):
    model, windows = Model(MODEL), read_ids(GOLDEN / "evaluation.safetensors")
    other = Model(a.crepe) if a.crepe else None
    c = Config(a.method, a.pattern)
    layers = a.layers or REFINE[a.refine][2]
    hidden = model.embed(read_ids(GOLDEN / "calibration.safetensors"))
    equal = total = exchanges = 0
    for b, block in enumerate(model.blocks):
        stats = gather(model, b, hidden)
        theirs = dict(other.linears(b)) if other else {}
        for name, m in model.linears(b):
            if layers == "all" or "self_attn" in name:
                _, _, (kept, n, *_) = refined(c, m, stats[name], a.refine, a.cycles)
                kept = torch.from_numpy(kept)
                exchanges += n
            else:
                kept = select(c, scores(c, m.weight, torch.from_numpy(stats[name]["colsq"])))
            m.weight[~kept] = 0
            if other:
                equal += int(((m.weight == 0) == (theirs[name].weight == 0)).sum())
                total += kept.numel()
        hidden = [model.forward(block, x) for x in hidden]
    report = {"method": a.method, "pattern": a.pattern, "refine": a.refine, "layers": layers, "exchanges": exchanges}
    report["perplexity"] = model.perplexity(windows)
    if other:
        report |= {"equal": equal / total, "crepe_perplexity": other.perplexity(windows)}
    print(json.dumps(report))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sub = p.add_subparsers(required=True)
    g = sub.add_parser("golden")
    g.set_defaults(run=golden)
    g.add_argument("names", nargs="*", help="configurations; all unless given")
    r = sub.add_parser("run")
    r.set_defaults(run=run)
    r.add_argument("--method", default="crepe")
    r.add_argument("--pattern", default="60%")
    r.add_argument("--refine", default="dsnot", choices=list(REFINE))
    r.add_argument("--layers", choices=["attention", "all"])
    r.add_argument("--cycles", type=int, default=0, help="exchanges a row; 0: the method's own")
    r.add_argument("--crepe", help="folder of crepe's output for the same")
    a = p.parse_args()
    torch.set_num_threads(1)
    a.run(a)


if __name__ == "__main__":
    main()
