#!/usr/bin/env python3
"""A whole pruning in PyTorch, and crepe's of the same, alternating.

    python tools/peer_prune.py MODEL --ids IDS.safetensors [--method crepe]
        [--pattern 50%] [--compute bf16] [--threads 2] [--crepe ./crepe --rounds 3]

Without --crepe: one run of the peer, seconds of each phase as JSON. With it:
peer, crepe, peer, crepe, … on the same ids and threads, one process each, and a
table with the best and median of every phase and the median of the rounds'
ratios, peer / crepe. On a busy machine only the ratios mean something.

The peer does what the published implementations do, in the model's dtype: the
whole model in memory, blocks in turn, a sequence at a time; a hook at every
Linear; scores in float32; torch.sort and a threshold over the matrix, per row
for wanda, topk for N:M; masked weights to zero; every sequence again through
the pruned block; save_pretrained. sparsegpt is its published loop in float32
(peer_sparsegpt.py), its Gram matrices and factors made once for the
Linears that share an input, which the published code does not.

Made with torch 2.15.0, transformers 5.23.0.
"""

import argparse
import collections
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import peer_sparsegpt

PHASES = ("load", "calibrate", "score", "select", "update", "write", "total")


class Clock:
    def __init__(self):
        self.seconds = collections.Counter()

    @contextlib.contextmanager
    def phase(self, name):
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def scores(torch, a, w, colsq):
    w, norm = w.float().abs(), colsq.sqrt()
    if a.method == "magnitude":
        return w
    if a.method == "wanda":
        return w * norm
    rows, cols = w.sum(1, keepdim=True), w.sum(0, keepdim=True)
    s = w / rows + w / cols
    if a.method == "crepe":
        r = a.kernel // 2
        window = torch.ones(a.kernel, a.kernel)
        window[r, :] = window[:, r] = 0
        window[r, r] = 1
        s += w / torch.nn.functional.conv2d(w[None, None], window[None, None], padding=r)[0, 0]
    return s * norm**0.5


def pruned(torch, a, s):
    """True where a weight goes."""
    if ":" in a.pattern:
        keep, of = map(int, a.pattern.split(":"))
        groups = s.reshape(-1, of)
        lowest = groups.topk(of - keep, dim=1, largest=False).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, lowest, True).reshape(s.shape)
    share = float(a.pattern.rstrip("%")) / 100
    if a.method == "wanda":
        lowest = s.sort(dim=1, stable=True).indices[:, : int(s.shape[1] * share)]
        return torch.zeros_like(s, dtype=torch.bool).scatter_(1, lowest, True)
    return s <= s.flatten().sort().values[int(s.numel() * share)]


def peer(a):
    import safetensors.torch
    import torch
    import transformers

    torch.set_num_threads(a.threads)
    torch.set_grad_enabled(False)
    transformers.utils.logging.disable_progress_bar()
    llama = transformers.LlamaForCausalLM  # imported here, before the clock starts
    clock = Clock()
    with clock.phase("total"):
        with clock.phase("load"):
            dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.compute]
            model = llama.from_pretrained(a.model, dtype=dtype, attn_implementation="sdpa").eval()
            stored = model.config.dtype
            ids = safetensors.torch.load_file(a.ids)["input_ids"][: a.samples]
        with clock.phase("calibrate"):
            hidden = [model.model.embed_tokens(s[None]) for s in ids]
            positions = torch.arange(ids.shape[1])[None]
            turn = model.model.rotary_emb(hidden[0], positions)
        for block in model.model.layers:
            prune_block(torch, a, clock, block, hidden, lambda x, block=block: block(x, position_ids=positions, position_embeddings=turn))
        with clock.phase("write"), tempfile.TemporaryDirectory(dir=a.scratch) as out:
            model.to(stored).save_pretrained(out)
    return clock.seconds


def solve_block(torch, a, clock, block, hidden, forward):
    """prune_block for sparsegpt."""
    attention, mlp = block.self_attn, block.mlp
    shared = [[attention.q_proj, attention.k_proj, attention.v_proj], [attention.o_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj]]
    gram = {ms[0]: torch.zeros(ms[0].in_features, ms[0].in_features) for ms in shared}

    def gather(m, args, _):
        x = args[0][0].float()
        gram[m].addmm_(x.T, x, alpha=2 / len(hidden))

    with clock.phase("calibrate"):
        handles = [m.register_forward_hook(gather) for m in gram]
        for x in hidden:
            forward(x)
        for h in handles:
            h.remove()
    keep, of = map(int, a.pattern.split(":")) if ":" in a.pattern else (0, 0)
    with clock.phase("update"):
        for ms in shared:
            u = peer_sparsegpt.factor(gram.pop(ms[0]))
            for m in ms:
                w = m.weight.float()
                peer_sparsegpt.sweep(w, u, (keep, of) if of else float(a.pattern.rstrip("%")) / 100)
                m.weight.copy_(w)
    with clock.phase("calibrate"):
        for i, x in enumerate(hidden):
            hidden[i] = forward(x)


def prune_block(torch, a, clock, block, hidden, forward):
    if a.method == "sparsegpt":
        solve_block(torch, a, clock, block, hidden, forward)
        return
    linears = [m for m in block.modules() if isinstance(m, torch.nn.Linear)]
    colsq = {m: torch.zeros(m.in_features) for m in linears}

    def gather(m, args, _):
        colsq[m] += args[0][0].float().norm(dim=0) ** 2 / len(hidden)

    with clock.phase("calibrate"):
        handles = [m.register_forward_hook(gather) for m in linears]
        for x in hidden:
            forward(x)
        for h in handles:
            h.remove()
    for m in linears:
        with clock.phase("score"):
            s = scores(torch, a, m.weight, colsq[m])
        with clock.phase("select"):
            m.weight[pruned(torch, a, s)] = 0
    with clock.phase("calibrate"):
        for i, x in enumerate(hidden):
            hidden[i] = forward(x)


def measured(command):
    """The JSON a command prints on its last lines, from its first brace."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    out = json.loads(done.stdout[done.stdout.index("{") :])
    return {**out["seconds"], "MB at most": out["peak_rss_bytes"] / 1e6}


def crepe(a, shape):
    samples, seqlen = shape
    with tempfile.TemporaryDirectory(dir=a.scratch) as out:
        what = ["--pattern", a.pattern] if ":" in a.pattern else ["--sparsity", a.pattern]
        flags = ["--method", a.method, *what, "--calibration", a.ids, "--samples", samples, "--seqlen", seqlen]
        if a.method == "sparsegpt":
            flags += ["--fit-to", "own", "--fit-tokens", "equal"]  # as PyTorch does here
        flags += ["--eval", "none", "--compute", a.compute, "--threads", a.threads, "--json", "-o", f"{out}/out"]
        return measured([a.crepe, "prune", a.model, *map(str, flags)])


def compare(a):
    import safetensors

    with safetensors.safe_open(a.ids, "pt") as f:
        n, seqlen = f.get_slice("input_ids").get_shape()
    rest = [*sys.argv[1:], "--once"]
    rounds = []
    for _ in range(a.rounds):
        rounds.append((measured([sys.executable, __file__, *rest]), crepe(a, (min(n, a.samples or n), seqlen))))
        print(".", end="", file=sys.stderr, flush=True)
    print(f"\n{'seconds':12}{'peer best':>12}{'median':>10}{'crepe best':>12}{'median':>10}{'ratio':>10}")
    for phase in (*PHASES, "MB at most"):
        p, c = ([side[phase] for side in sides] for sides in zip(*rounds))
        ratio = statistics.median(x / y if y else float("inf") for x, y in zip(p, c))
        print(f"{phase:12}{min(p):12.3f}{statistics.median(p):10.3f}{min(c):12.3f}{statistics.median(c):10.3f}{ratio:10.2f}")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--ids", required=True, help="safetensors with int64 input_ids [samples, seqlen]")
    p.add_argument("--samples", type=int, help="the first N only")
    p.add_argument("--method", default="crepe", choices=["magnitude", "wanda", "ria", "crepe", "sparsegpt"])
    p.add_argument("--pattern", default="50%", help="share pruned, as 50%%, or N:M kept")
    p.add_argument("--kernel", type=int, default=9)
    p.add_argument("--compute", default="bf16", choices=["f32", "bf16"])
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--scratch", help="folder for the outputs, which are deleted")
    p.add_argument("--crepe", help="the crepe binary to alternate with")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.crepe and not a.once:
        compare(a)
        return
    seconds = peer(a)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": {k: seconds[k] for k in PHASES}, "peak_rss_bytes": peak}))


if __name__ == "__main__":
    main()
