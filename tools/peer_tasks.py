#!/usr/bin/env python3
"""Zero-shot tasks by lm-evaluation-harness with transformers, and by crepe, alternating.

    python tools/peer_tasks.py MODEL [--data eval/task/testdata/data]
        [--crepe ./crepe] [--rounds 2] [--limit N] [--threads 2] [--batch 8]

The same documents and threads, f32 and bf16, a process each. The harness's
seconds are those of its evaluation, without imports and loading; crepe's are
those of its whole process. tokens/s counts the tokens of contexts and
continuations that the harness gives its model, for both; the ratio is that of
the seconds. On a busy machine that of processor time means more; it leaves out
the harness's loading too.

Made with lm-eval 0.4.13, transformers 5.23.0, torch 2.15.0.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def peer(a, dtype):
    import torch

    torch.set_num_threads(a.threads)
    import golden_tasks as h

    tasks = [t for t in h.SPLITS if os.path.isdir(f"{a.data}/{t}")]
    name = {"f32": "float32", "bf16": "bfloat16"}[dtype]
    before = os.times()
    lm, out, seconds = h.harness(a.model, a.model, a.data, "auto", name, tasks, a.batch, a.limit or None)
    after = os.times()
    cpu = sum(after[:2]) - sum(before[:2])
    tokens = 0
    for t in tasks:
        for s in out["samples"][t]:
            args = s["arguments"].values() if isinstance(s["arguments"], dict) else s["arguments"]
            for x in args:
                context, continuation = (x["arg_0"], x["arg_1"]) if isinstance(x, dict) else x
                tokens += min(len(lm.tok_encode(context + continuation)), lm.max_length + 1) - 1
    acc = {t: out["results"][t]["acc,none"] for t in tasks}
    print(json.dumps({"seconds": seconds, "cpu": cpu, "tokens": tokens, "acc": acc}))


def crepe(a, dtype, tasks):
    start, before = time.perf_counter(), os.times()
    out = subprocess.run([a.crepe, "eval", a.model, "--tasks", ",".join(tasks), "--tasks-data", a.data, "--no-cache", "--json",
                          "--compute", dtype, "--threads", str(a.threads), "--limit", str(a.limit)], check=True, capture_output=True)
    seconds, after = time.perf_counter() - start, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return {"seconds": seconds, "cpu": cpu, "acc": {r["task"]: r["acc"] for r in json.loads(out.stdout)["tasks"]["results"]}}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--data", default="eval/task/testdata/data")
    p.add_argument("--crepe", default="./crepe")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--limit", type=int, default=0, help="documents a task; 0: all")
    p.add_argument("--dtypes", default="f32,bf16")
    p.add_argument("--peer", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.peer:
        return peer(a, a.peer)
    env = os.environ | {"OMP_NUM_THREADS": str(a.threads), "HF_HUB_OFFLINE": "1"}
    for dtype in a.dtypes.split(","):
        ratios, cpus, rates = [], [], []
        for _ in range(a.rounds):
            them = json.loads(subprocess.run([sys.executable, __file__, *sys.argv[1:], "--peer", dtype], check=True, capture_output=True,
                                             env=env).stdout.splitlines()[-1])
            us = crepe(a, dtype, list(them["acc"]))
            equal = sum(abs(us["acc"][t] - v) < 1e-9 for t, v in them["acc"].items())
            ratios.append(them["seconds"] / us["seconds"])
            cpus.append(them["cpu"] / us["cpu"])
            rates.append((them["tokens"] / them["seconds"], them["tokens"] / us["seconds"]))
            print(f"{dtype}: {them['tokens']} tokens, harness {them['seconds']:.1f} s, crepe {us['seconds']:.1f} s, ratio {ratios[-1]:.1f}; "
                  f"processor {them['cpu']:.1f} s and {us['cpu']:.1f} s, ratio {cpus[-1]:.1f}; "
                  f"{equal} of {len(them['acc'])} accuracies equal", flush=True)
        print(f"{dtype}: tokens/s {statistics.median(r[0] for r in rates):.0f} and {statistics.median(r[1] for r in rates):.0f}, "
              f"ratio {statistics.median(ratios):.1f}; of processor time {statistics.median(cpus):.1f}", flush=True)


if __name__ == "__main__":
    main()
