#!/usr/bin/env python3
"""An independent pruning of Llama checkpoints, to compare crepe with.

Direct PyTorch: transformers' LlamaForCausalLM, a hook at the input of every
Linear, scores in float64 written as in the papers, a stable sort for the mask.
Nothing here is fast or bounded in memory; nothing is shared with the Go code.

    python tools/oracle_prune.py demo/data/model --method crepe --pattern 2:4 \\
        --calibration testdata/golden/calibration.safetensors \\
        --eval testdata/golden/evaluation.safetensors

prints perplexity, dense and pruned, and per Linear the count of pruned weights,
how many stand within --tolerance of the threshold, and the closest. --masks
FILE.npz keeps the masks (packed bits), -o DIR a pruned Hugging Face folder.

Order of work, for each block: forward dense and gather colSq at each Linear's
input, prune the Linears, forward again pruned; those outputs are the next
block's inputs.

Decisions: counts are exact (floor of share times number), equal scores go by
lower index first, 0/0 is 0.

Made with torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6.
"""

import argparse
import dataclasses
import fractions
import json
import math
import sys

import numpy as np
import safetensors.torch
import torch
import transformers

BATCH = 4  # sequences a forward pass takes at once


@dataclasses.dataclass(frozen=True)
class Config:
    """What to prune with. group is None for the method's own."""

    method: str
    pattern: str  # "50%" or "2:4"
    group: str | None = None
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    kernel: int = 9
    power: float = 0.5

    def own_group(self):
        return self.group or ("row" if self.method == "wanda" else "matrix")


# Scores: W is out × in, float64; colsq[j] is the mean over sequences of the sum
# over tokens of x_j².


def neighbourhood(a, kernel):
    """N[i,j]: sum of a[i+p,j+q], |p|,|q| ≤ r, over p≠0 and q≠0, and p=q=0."""
    r = kernel // 2
    window = torch.ones(kernel, kernel, dtype=torch.float64)
    window[r, :] = 0
    window[:, r] = 0
    window[r, r] = 1
    return torch.nn.functional.conv2d(a[None, None], window[None, None], padding=r)[0, 0]


def ratio(a, b):
    """a/b where 0/0 is 0."""
    return torch.where(a == 0, torch.zeros_like(a), a / b)


def scores(c, w, colsq):
    a = w.double().abs()
    if c.method == "magnitude":
        return a
    norm = colsq.sqrt()
    if c.method == "wanda":
        return a * norm
    rows, cols = a.sum(1, keepdim=True), a.sum(0, keepdim=True)
    if c.method == "ria":
        s = ratio(a, rows) + ratio(a, cols)
    else:
        s = c.alpha * ratio(a, rows) + c.beta * ratio(a, cols) + c.gamma * ratio(a, neighbourhood(a, c.kernel))
    return s * norm**c.power


# Masks. Weights compete within groups: the whole matrix, a row, or M
# consecutive columns. grouped lays them out one group a row.


def grouped(c, s):
    """The scores, one group a row, and how many of each group go."""
    if ":" in c.pattern:
        keep, of = map(int, c.pattern.split(":"))
        return s.reshape(-1, of), of - keep
    share = fractions.Fraction(c.pattern.rstrip("%")) / 100
    g = s if c.own_group() == "row" else s.reshape(1, -1)
    return g, math.floor(g.shape[1] * share)


def select(c, s):
    """True where a weight stays."""
    g, k = grouped(c, s)
    order = g.sort(dim=1, stable=True).indices
    kept = torch.ones_like(g, dtype=torch.bool)
    kept.scatter_(1, order[:, :k], False)
    return kept.reshape(s.shape)


def near(c, s, tolerance):
    """True where a change of every score by less than tolerance/2, relative,
    may change the decision: pruned weights within tolerance below the lowest
    kept score of their group, kept ones within tolerance above the highest
    pruned. Also the least relative gap between those two scores."""
    g, k = grouped(c, s)
    if k == 0:
        return torch.zeros_like(s, dtype=torch.bool), math.inf
    ordered = g.sort(dim=1).values
    last, first = ordered[:, k - 1 : k], ordered[:, k : k + 1]
    close = torch.where(select(c, s).reshape(g.shape), g <= last * (1 + tolerance), g >= first * (1 - tolerance))
    gap = torch.where(first > 0, (first - last) / first, 0)
    return close.reshape(s.shape), gap.min().item()


class Model:
    """A Llama, run block by block. In float64 everything but the rotary angles
    is: transformers' norm rounds to float32, so it is replaced."""

    def __init__(self, folder, dtype=torch.float32):
        self.lm = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
        if dtype == torch.float64:
            for m in self.lm.modules():
                if isinstance(m, transformers.models.llama.modeling_llama.LlamaRMSNorm):
                    m.forward = lambda x, m=m: m.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon)
        self.blocks = self.lm.model.layers

    def embed(self, ids):
        return [self.lm.model.embed_tokens(b) for b in ids.split(BATCH)]

    def forward(self, block, x):
        positions = torch.arange(x.shape[1])[None]
        return block(x, position_ids=positions, position_embeddings=self.lm.model.rotary_emb(x, positions))

    def linears(self, b):
        """Linears of block b by name, in the order of execution."""
        for name, m in self.blocks[b].named_modules():
            if isinstance(m, torch.nn.Linear):
                yield f"model.layers.{b}.{name}", m

    def gather(self, b, hidden):
        """colSq at the input of every Linear of block b."""
        colsq, handles = {}, []
        for name, m in self.linears(b):
            colsq[name] = torch.zeros(m.in_features, dtype=torch.float64)

            def add(_, args, total=colsq[name]):
                total += args[0].double().pow(2).sum((0, 1))

            handles.append(m.register_forward_pre_hook(add))
        for x in hidden:
            self.forward(self.blocks[b], x)
        for h in handles:
            h.remove()
        n = sum(len(x) for x in hidden)
        return {name: s / n for name, s in colsq.items()}

    def head(self, x):
        return self.lm.lm_head(self.lm.model.norm(x))

    def perplexity(self, ids):
        """exp of the mean over windows of the mean NLL of the T−1 targets."""
        nll = []
        for batch in ids.split(BATCH):
            x = self.lm.model.embed_tokens(batch)
            for block in self.blocks:
                x = self.forward(block, x)
            for logits, window in zip(self.head(x), batch):
                nll.append(torch.nn.functional.cross_entropy(logits[:-1].double(), window[1:]).item())
        return math.exp(sum(nll) / len(nll))


@dataclasses.dataclass
class Linear:
    kept: torch.Tensor  # by the scores, also when another mask was put in its place
    near: torch.Tensor
    gap: float
    colsq: torch.Tensor


@torch.no_grad()
def prune(model, ids, c, tolerance=1e-5, masks=None):
    """Prunes model in place. Where masks has one for a Linear it is applied
    instead of its own, so that a difference does not spread to later blocks."""
    result = {}
    hidden = model.embed(ids)
    for b, block in enumerate(model.blocks):
        colsq = model.gather(b, hidden)
        for name, m in model.linears(b):
            s = scores(c, m.weight, colsq[name])
            if not torch.isfinite(s).all():
                raise ValueError(f"{name}: a score is not finite")
            kept = select(c, s)
            result[name] = Linear(kept, *near(c, s, tolerance), colsq[name])
            m.weight[~(masks or {}).get(name, kept)] = 0
        hidden = [model.forward(block, x) for x in hidden]
    return result


def read_ids(path, n=None):
    return safetensors.torch.load_file(path)["input_ids"][:n]


def packed(kept):
    """Row-major bits, first weight in the lowest bit of the first byte, 1 = kept."""
    return np.packbits(kept.numpy().reshape(-1), bitorder="little")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--calibration", required=True, help="safetensors with int64 input_ids [samples, seqlen]")
    p.add_argument("--eval", help="the same, windows to measure on")
    p.add_argument("--windows", type=int, help="the first N windows only")
    p.add_argument("--method", default="crepe", choices=["magnitude", "wanda", "ria", "crepe"])
    p.add_argument("--pattern", default="50%", help="share pruned, as 50%%, or N:M kept")
    p.add_argument("--group", choices=["matrix", "row"])
    for name in ("alpha", "beta", "gamma", "power"):
        p.add_argument("--" + name, type=float, default=getattr(Config, name))
    p.add_argument("--kernel", type=int, default=Config.kernel)
    p.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    p.add_argument("--tolerance", type=float, default=1e-5)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--masks", help="write the masks to this .npz")
    p.add_argument("-o", "--output", help="write the pruned model to this folder, bfloat16")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    c = Config(**{f.name: getattr(a, f.name) for f in dataclasses.fields(Config)})
    model = Model(a.model, getattr(torch, a.dtype))
    windows = read_ids(a.eval, a.windows) if a.eval else None
    report = dataclasses.asdict(c)
    with torch.no_grad():
        if a.eval:
            report["dense"] = model.perplexity(windows)
        result = prune(model, read_ids(a.calibration), c, a.tolerance)
        if a.eval:
            report["pruned"] = model.perplexity(windows)
    report["linears"] = {
        name: {"pruned": int((~r.kept).sum()), "near": int(r.near.sum()), "gap": r.gap} for name, r in result.items()
    }
    if a.masks:
        np.savez_compressed(a.masks, **{name: packed(r.kept) for name, r in result.items()})
    if a.output:
        model.lm.to(torch.bfloat16).save_pretrained(a.output)
    json.dump(report, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
