#!/usr/bin/env python3
"""Tokens a second of crepe's models and of llama.cpp's, alternating.

    pip install llama-cpp-python==0.3.36
    python tools/peer_llamacpp.py --text FILE [--crepe ./crepe] [--rounds 3] [--threads 2]
        --crepe-model NAME=DIR … --llama-model NAME=FILE.gguf …

Each round measures every model once, in a process of its own: crepe by crepe bench, and
llama.cpp in the same way: a prompt of 512 tokens, then 64 tokens one after the other,
five times, of which the fastest counts. The text is for crepe's prompt; llama.cpp gets as
many tokens. Printed are the medians over the rounds, and the medians of the rounds'
ratios to each of llama.cpp's.

    python tools/peer_llamacpp.py --quantize TYPE IN.gguf OUT.gguf

writes IN in another type of llama.cpp, such as Q4_K_M.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

PROMPT, NEW, RUNS = 512, 64, 5


def llama(path, threads):
    """Best tokens a second of prompt and of decoding."""
    import llama_cpp
    import numpy as np

    m = llama_cpp.Llama(path, n_ctx=PROMPT + NEW, n_batch=PROMPT, n_ubatch=PROMPT, verbose=False, n_threads=threads, n_threads_batch=threads)
    ids = np.random.default_rng(0).integers(0, m.n_vocab(), PROMPT).tolist()
    best = [0.0, 0.0]
    for _ in range(RUNS):
        m.reset()
        start = time.perf_counter()
        m.eval(ids)
        token = m.sample(temp=0)
        first = time.perf_counter()
        for _ in range(NEW - 1):
            m.eval([token])
            token = m.sample(temp=0)
        last = time.perf_counter()
        best = [max(best[0], PROMPT / (first - start)), max(best[1], (NEW - 1) / (last - first))]
    return best


def crepe(program, path, text, threads):
    out = subprocess.run([program, "bench", path, "--data", text, "--json"], check=True, stdout=subprocess.PIPE, env={"GOMAXPROCS": str(threads), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}).stdout
    m = json.loads(out)["models"][0]
    return [m["prefill"], m["decode"]], m["stored_bytes"]


def quantize(kind, src, dst):
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind)
    if code := llama_cpp.llama_model_quantize(src.encode(), dst.encode(), params):
        raise SystemExit(f"{src}: llama.cpp cannot write it as {kind}: {code}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--crepe", default="./crepe")
    p.add_argument("--text")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--crepe-model", action="append", default=[])
    p.add_argument("--llama-model", action="append", default=[])
    p.add_argument("--quantize", nargs=3)
    p.add_argument("--one", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.quantize:
        return quantize(*a.quantize)
    if a.one:
        return print(json.dumps(llama(a.one, a.threads)))
    models = [("crepe", *s.split("=", 1)) for s in a.crepe_model] + [("llama.cpp", *s.split("=", 1)) for s in a.llama_model]
    seen = {m: [] for m in models}
    sizes = {}
    for _ in range(a.rounds):
        for m in models:
            who, name, path = m
            if who == "crepe":
                speed, sizes[m] = crepe(a.crepe, path, a.text, a.threads)
            else:
                out = subprocess.run([sys.executable, __file__, "--one", path, "--threads", str(a.threads)], check=True, stdout=subprocess.PIPE).stdout
                speed = json.loads(out)
            seen[m].append(speed)
    peers = [m for m in models if m[0] != "crepe"]
    for k, what in enumerate(("prompt", "decode")):
        print(f"\n{what}, tokens/s" + "".join(f" | over {name}" for _, name, _ in peers))
        for m in models:
            row = [f"{m[0]} {m[1]}", f"{statistics.median(s[k] for s in seen[m]):.1f}"]
            row += [f"{statistics.median(s[k] / t[k] for s, t in zip(seen[m], seen[peer])):.2f}" for peer in peers]
            print("| " + " | ".join(row) + " |")
    for m, n in sizes.items():
        print(f"{m[1]}: {n / 1e6:.1f} MB of tensors")


if __name__ == "__main__":
    main()
