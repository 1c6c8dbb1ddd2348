#!/usr/bin/env python3
"""Token ids for the oracle and for crepe: safetensors with int64 input_ids.

    python tools/golden_ids.py calibration TOKENIZER.json DOCS.jsonl OUT --samples 128 --seqlen 512 --seed 0
    python tools/golden_ids.py windows TOKENIZER.json TEXT.txt OUT --seqlen 512 [--windows N]

calibration draws by the reference protocol with Python's random; windows cuts
one tokenisation of the whole text and drops the tail.

Made with tokenizers 0.23.3, safetensors 0.8.0, torch 2.15.0.
"""

import argparse
import json
import random

import safetensors.torch
import tokenizers
import torch


def calibration(encode, docs, samples, seqlen, seed):
    random.seed(seed)
    out = []
    while len(out) < samples:
        while True:
            ids = encode(docs[random.randint(0, len(docs) - 1)])
            if len(ids) > seqlen:
                break
        start = random.randint(0, len(ids) - seqlen - 1)
        out.append(ids[start : start + seqlen])
    return torch.tensor(out)


def windows(encode, text, seqlen):
    ids = encode(text)
    n = len(ids) // seqlen
    print(f"{len(ids)} tokens, {n} windows of {seqlen}")
    return torch.tensor(ids[: n * seqlen]).reshape(n, seqlen)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("what", choices=["calibration", "windows"])
    p.add_argument("tokenizer")
    p.add_argument("text")
    p.add_argument("out")
    p.add_argument("--samples", type=int, default=128)
    p.add_argument("--seqlen", type=int, default=2048)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--windows", type=int, help="the first N only")
    a = p.parse_args()
    tokenizer = tokenizers.Tokenizer.from_file(a.tokenizer)
    tokenizer.no_truncation()
    encode = lambda s: tokenizer.encode(s).ids
    with open(a.text, encoding="utf-8") as f:
        if a.what == "calibration":
            ids = calibration(encode, [json.loads(line)["text"] for line in f], a.samples, a.seqlen, a.seed)
        else:
            ids = windows(encode, f.read(), a.seqlen)[: a.windows]
    safetensors.torch.save_file({"input_ids": ids.contiguous()}, a.out)


if __name__ == "__main__":
    main()
