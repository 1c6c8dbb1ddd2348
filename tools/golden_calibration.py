"""Reference sampling, for calibration/testdata/sampling.json.

Python's own random module, and the loop of Wanda's and SparseGPT's data loaders
written anew, over the demo's calibration documents: once with bytes after a 256
as tokens, once with the demo's tokenizer.

    python tools/golden_calibration.py   # from the root of the repository

Made with Python 3.11, tokenizers 0.23.3.
"""

import hashlib
import json
import random
import struct

import tokenizers

DEMO = "demo/data"


def sample(docs, encode, samples, seqlen, seed):
    random.seed(seed)
    windows, starts = [], []
    for _ in range(samples):
        while True:
            i = random.randint(0, len(docs) - 1)
            ids = encode(docs[i])
            if len(ids) > seqlen:
                break
        start = random.randint(0, len(ids) - seqlen - 1)
        windows.append(ids[start : start + seqlen])
        starts.append([i, start])
    return windows, starts


def running(text, encode, samples, seqlen, seed):
    random.seed(seed)
    ids = encode(text)
    starts = [random.randint(0, len(ids) - seqlen - 1) for _ in range(samples)]
    return [ids[s : s + seqlen] for s in starts], [[0, s] for s in starts]


def digest(windows):
    h = hashlib.sha256()
    for w in windows:
        h.update(struct.pack(f"<{len(w)}i", *w))
    return h.hexdigest()


def numbers(seed):
    random.seed(seed)
    return {
        "seed": seed,
        "bits32": [random.getrandbits(32) for _ in range(5)],
        "bits": [[k, random.getrandbits(k)] for k in (1, 2, 7, 16, 31, 32)],
        "randint": [[b, random.randint(0, b)] for b in (0, 1, 2, 3, 54, 356316, 2**31, 2**32 - 2)],
        "after700": [random.randint(0, 999) for _ in range(700)][-3:],
    }


def main():
    with open(f"{DEMO}/calibration.jsonl", encoding="utf-8") as f:
        docs = [json.loads(line)["text"] for line in f]
    with open(f"{DEMO}/wikitext-2-test.txt", encoding="utf-8") as f:
        text = f.read()
    tok = tokenizers.Tokenizer.from_file(f"{DEMO}/model/tokenizer.json")
    tok.no_truncation()
    encoders = {
        "bytes": lambda s: [256] + list(s.encode()),
        "demo": lambda s: tok.encode(s).ids,
    }
    golden = {"random": [numbers(s) for s in (0, 1, 42, 2**32 - 1, 2**32, 2**64 - 1)], "sampling": []}
    for name, encode in encoders.items():
        for samples, seqlen, seed in ((128, 512, 0), (32, 2048, 0), (128, 512, 7), (16, 8192, 3)):
            for kind in ("documents", "running"):
                windows, starts = (
                    sample(docs, encode, samples, seqlen, seed) if kind == "documents" else running(text, encode, samples, seqlen, seed)
                )
                golden["sampling"].append(
                    {
                        "encoder": name,
                        "kind": kind,
                        "samples": samples,
                        "seqlen": seqlen,
                        "seed": seed,
                        "starts": starts[:8],
                        "first": windows[0][:16],
                        "sha256": digest(windows),
                    }
                )
    with open("calibration/testdata/sampling.json", "w", encoding="utf-8") as f:
        json.dump(golden, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
