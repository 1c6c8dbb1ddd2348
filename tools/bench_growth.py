#!/usr/bin/env python3
"""How the time and memory of crepe prune grow: a table.

    python tools/bench_growth.py ./crepe SCRATCH [--rounds 2] [--method crepe]

Makes Llamas of random bfloat16 weights in the folder SCRATCH, prunes them to
50 % calibrated on random ids, without evaluation, and deletes them. One thing is
changed at a time, from 2 blocks of width 1024 (MLP 2816, heads of 128, vocabulary
2048), 4 sequences of 1024 tokens, all cores: tokens x1, x4, x16; blocks 2, 8, 32;
width 1024, 2048, 4096; cores 1, 2. Each line has the round that took least.

Made with torch 2.15.0. Needs 3 GB of disk.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess

import safetensors.torch
import torch

import bench_llama

VOCABULARY = 2048


def checkpoint(folder, width, blocks):
    if folder.exists():
        return
    shape = bench_llama.SHAPES["7b"] | {
        "hidden_size": width,
        "intermediate_size": width * 11 // 4,
        "num_attention_heads": width // 128,
        "num_key_value_heads": width // 128,
        "vocab_size": VOCABULARY,
    }
    folder.mkdir(parents=True)
    c = bench_llama.config(shape, blocks)
    (folder / "config.json").write_text(json.dumps(c, indent=2))
    bench_llama.write(folder / "model.safetensors", list(bench_llama.plan(c)))


def run(a, model, ids, samples, threads):
    out = a.scratch / "out"
    command = [a.crepe, "prune", model, "--method", a.method, "--sparsity", "50%", "--calibration", ids]
    command += ["--samples", samples, "--seqlen", 1024, "--eval", "none", "--threads", threads, "--json", "--overwrite", "-o", out]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}:\n{done.stderr}")
    return json.loads(done.stdout[done.stdout.index("{") :])


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("crepe")
    p.add_argument("scratch", type=pathlib.Path)
    p.add_argument("--rounds", type=int, default=2, help="0 only makes the checkpoints, which a later run uses")
    p.add_argument("--method", default="crepe")
    a = p.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    cores = len(os.sched_getaffinity(0))
    base = {"tokens": 4, "blocks": 2, "width": 1024, "cores": cores}
    cases = [("tokens", 4), ("tokens", 16), ("tokens", 64), ("blocks", 2), ("blocks", 8), ("blocks", 32)]
    cases += [("width", 1024), ("width", 2048), ("width", 4096), ("cores", 1), ("cores", cores)]
    a.scratch.mkdir(parents=True, exist_ok=True)
    ids = a.scratch / "ids.safetensors"
    safetensors.torch.save_file({"input_ids": torch.randint(3, VOCABULARY, (64, 1024), generator=torch.Generator().manual_seed(0))}, ids)
    models = {}
    for name, value in cases:
        c = base | {name: value}
        models[name, value] = a.scratch / f"w{c['width']}b{c['blocks']}"
        checkpoint(models[name, value], c["width"], c["blocks"])
    best = {}
    for _ in range(a.rounds):
        for name, value in cases:
            c = base | {name: value}
            r = run(a, models[name, value], ids, c["tokens"], c["cores"])
            if (name, value) not in best or r["seconds"]["total"] < best[name, value]["seconds"]["total"]:
                best[name, value] = r
    if not a.rounds:
        return
    print("| what | value | total s | calibrate s | score + select s | write s | peak MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for (name, value), r in best.items():
        s = r["seconds"]
        shown = value * 1024 if name == "tokens" else value
        print(f"| {name} | {shown} | {s['total']:.2f} | {s['calibrate']:.2f} | {s['score'] + s['select']:.3f} | {s['write']:.2f} | {r['peak_rss_bytes'] / 1e6:.0f} |")
    shutil.rmtree(a.scratch)


if __name__ == "__main__":
    main()
