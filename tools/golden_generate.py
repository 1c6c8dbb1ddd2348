#!/usr/bin/env python3
"""generate/testdata/*.json: what transformers generates, and how it samples.

    python tools/golden_generate.py   # from the root of the repository

greedy.json: greedy continuations in float32 of prompts with the demo model, as
ids and as text, and of one with the fixture phi3-longrope that grows over its
original length. Each has the smallest distance between the best and the second
logit on the way; a prompt below 0.01 stops the script. sample.json: for random
logits, the probabilities that remain after temperature, top-k and top-p.

Made with transformers 5.23.0, torch 2.15.0.
"""

import json
import os

import torch
from transformers import (AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper,
                          TopPLogitsWarper)

DEMO = "demo/data/model"
LONGROPE = "testdata/fixtures/phi3-longrope"
OUT = "generate/testdata"
PROMPTS = ["The game was released in", " = = History = = \n", "In 2009 , the album", "naïve café — 日本", "Robert"]


def greedy(model, ids, n, strict=True):
    out = model.generate(torch.tensor([ids]), max_new_tokens=n, do_sample=False, return_dict_in_generate=True, output_logits=True)
    top = torch.cat(out.logits).topk(2).values
    margin = float((top[:, 0] - top[:, 1]).min())
    assert margin > 0.01 or not strict, margin
    return out.sequences[0, len(ids):].tolist(), margin


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def write(name, value):
    os.makedirs(OUT, exist_ok=True)
    with open(f"{OUT}/{name}.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(v, ensure_ascii=False) for v in value) + "\n]\n")


def main():
    torch.set_num_threads(1)
    cases = []
    model, tok = load(DEMO), AutoTokenizer.from_pretrained(DEMO)
    for prompt in PROMPTS:
        ids = tok(prompt)["input_ids"]
        new, margin = greedy(model, ids, 40, strict=False)
        if margin <= 0.01:
            print("left out:", prompt, margin)
            continue
        cases.append({"model": DEMO, "prompt": prompt, "ids": ids, "new": new, "margin": margin,
                      "text": tok.decode(ids + new, skip_special_tokens=True)[len(tok.decode(ids, skip_special_tokens=True)):]})
    assert len(cases) >= 3
    # the whole of what the model takes
    ids = tok("The")["input_ids"]
    long, margin = greedy(model, ids, model.config.max_position_embeddings - len(ids), strict=False)
    print("to the maximum:", len(long), margin)
    model = load(LONGROPE)
    c = model.config
    for seed in range(50):
        ids = torch.randint(3, c.vocab_size, (c.original_max_position_embeddings - 6,), generator=torch.Generator().manual_seed(seed)).tolist()
        new, margin = greedy(model, ids, 16, strict=False)
        if margin > 0.01 and len(new) == 16:
            break
    else:
        raise SystemExit("no prompt without a near tie")
    cases.append({"model": LONGROPE, "ids": ids, "new": new, "margin": margin})
    write("greedy", cases)

    samples = []
    g = torch.Generator().manual_seed(3)
    for temperature, k, p in [(1.0, 0, 0), (0.7, 0, 0), (1.3, 5, 0), (1.0, 0, 0.9), (0.5, 7, 0.6), (1.0, 1, 0), (1.0, 0, 0.01), (2.0, 12, 0.95)]:
        logits = torch.randn(1, 40, generator=g) * 3
        if k and not p:
            logits[0, logits[0].topk(k + 1).indices[-1]] = logits[0].topk(k).values[-1]  # equal to the last of the k
        warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
        if k:
            warpers.append(TopKLogitsWarper(k))
        if p:
            warpers.append(TopPLogitsWarper(p))
        out = warpers(None, logits.clone()).double().softmax(-1)[0]
        samples.append({"temperature": temperature, "top_k": k, "top_p": p, "logits": logits[0].tolist(), "p": out.tolist()})
    write("sample", samples)


if __name__ == "__main__":
    main()
