"""llama.cpp on a GGUF file that crepe export wrote: perplexity and greedy tokens.

    pip install llama-cpp-python
    python tools/oracle_gguf.py FILE.gguf [--text FILE] [--windows N] [--seqlen T] [--prompt TEXT] [--tokens N]

prints the perplexity of the first N windows of T tokens of a text, all tokens
but the first of each scored, as crepe eval computes it, and the ids that
greedily continue a prompt, as crepe generate --json prints them, and the
file's metadata. Used with llama-cpp-python 0.3.36.
"""

import argparse

import llama_cpp
import numpy as np

p = argparse.ArgumentParser()
p.add_argument("model")
p.add_argument("--text")
p.add_argument("--windows", type=int, default=8)
p.add_argument("--seqlen", type=int, default=1024)
p.add_argument("--prompt", default="The capital of France is")
p.add_argument("--tokens", type=int, default=32)
p.add_argument("--threads", type=int, default=1)
a = p.parse_args()

m = llama_cpp.Llama(a.model, n_ctx=a.seqlen, n_batch=a.seqlen, n_ubatch=a.seqlen, logits_all=True, verbose=False, n_threads=a.threads, n_threads_batch=a.threads)
meta = m.metadata
print({k: v if len(v) < 60 else v[:60] + "…" for k, v in meta.items()})
bos = meta.get("tokenizer.ggml.add_bos_token") == "true"
if a.text:
    ids = m.tokenize(open(a.text, "rb").read(), add_bos=bos, special=True)
    nll, n = 0.0, 0
    for w in range(a.windows):
        x = ids[w * a.seqlen : (w + 1) * a.seqlen]
        m.reset()
        m.eval(x)
        logits = np.array(m.scores[: len(x) - 1], np.float64)
        top = logits.max(-1)
        nll += (np.log(np.exp(logits - top[:, None]).sum(-1)) + top - logits[np.arange(len(x) - 1), x[1:]]).sum()
        n += len(x) - 1
    print(f"perplexity {np.exp(nll / n):.5f} ({a.windows} windows of {a.seqlen} tokens, {len(ids)} tokens in all)")
ids = m.tokenize(a.prompt.encode(), add_bos=bos, special=True)
out = []
m.reset()
m.eval(ids)
for _ in range(a.tokens):
    t = int(np.argmax(m.scores[m.n_tokens - 1]))
    out.append(t)
    m.eval([t])
print("greedy", out)
