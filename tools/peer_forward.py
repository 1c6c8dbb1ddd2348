"""Forward passes of crepe against transformers', alternating, on the same cores.

    python tools/bench_llama.py 1b l1b --ids 4 2048
    python tools/peer_forward.py --model l1b [--rounds 3] [--only block,perplexity,decode]

Needs torch, transformers and go; both sides get all cores of the process.

block: one LLaMA-2-7B-shaped block, random weights, 2048 tokens a sequence;
transformers' LlamaDecoderLayer, bfloat16, sdpa, takes 4 sequences at once. The faster of
both passes that a side makes in a round counts.
perplexity: crepe eval on the model's ids, the whole command, reading included,
with --compute bf16; transformers' model, loaded before, in bfloat16 with sdpa, logits
of one window at a time, cross entropy in float32.
decode: new tokens a second, greedy, after a prompt of --prompt random ids:
tools/decode against generate() with its default cache, bfloat16 and float32.

Prints tokens a second of each round, and the median of the rounds' ratios, crepe /
transformers. On a busy machine only the ratios mean something.

Made with torch 2.15.0, transformers 5.23.0.
"""

import argparse
import gc
import json
import os
import re
import statistics
import subprocess
import tempfile
import time

import safetensors.torch
import torch
import transformers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def fastest(f, n):
    best = float("inf")
    for _ in range(n):
        start = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - start)
    return best


class Block:
    def __init__(self, opt, tools):
        self.binary = os.path.join(tools, "model.test")
        subprocess.run(["go", "test", "-c", "-o", self.binary, "./model"], cwd=ROOT, check=True)
        config = transformers.LlamaConfig(attn_implementation="sdpa")  # LLaMA-2-7B's sizes
        with torch.device("meta"):
            layer = transformers.models.llama.modeling_llama.LlamaDecoderLayer(config, 0)
        self.layer = layer.to_empty(device="cpu").to(torch.bfloat16).eval()
        for p in self.layer.parameters():
            torch.nn.init.normal_(p, std=p.shape[-1] ** -0.5) if p.dim() > 1 else torch.nn.init.ones_(p)
        rope = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        self.x = torch.randn(4, 2048, config.hidden_size).to(torch.bfloat16)
        self.place = rope(self.x, torch.arange(2048)[None])

    def peer(self):
        with torch.no_grad():
            seconds = fastest(lambda: self.layer(self.x, position_embeddings=self.place, attention_mask=None), 2)
        return 4 * 2048 / seconds

    def ours(self):
        out = subprocess.run(
            [self.binary, "-test.run=^$", "-test.bench=^BenchmarkForward$/^llama-2-7b$/^bf16$", "-test.benchtime=2x"],
            cwd=os.path.join(ROOT, "model"), check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        return float(re.search(r"([\d.]+) tokens/s", out).group(1))


class Perplexity:
    def __init__(self, opt, tools):
        self.crepe, self.dir, self.ids = os.path.join(tools, "crepe"), opt.model, os.path.join(tools, "ids.safetensors")
        subprocess.run(["go", "build", "-o", self.crepe, "./cmd/crepe"], cwd=ROOT, check=True)
        self.windows = safetensors.torch.load_file(opt.model.rstrip("/") + "-ids.safetensors")["input_ids"][: opt.windows]
        safetensors.torch.save_file({"input_ids": self.windows}, self.ids)

    def peer(self):
        model = transformers.AutoModelForCausalLM.from_pretrained(self.dir, dtype=torch.bfloat16, attn_implementation="sdpa").eval()

        def run():
            total = 0.0
            with torch.no_grad():
                for ids in self.windows:
                    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
                    for part, want in zip(logits.split(256), ids[1:].split(256)):
                        total += torch.nn.functional.cross_entropy(part.float(), want, reduction="sum").item()
            self.nll = total / (self.windows.numel() - len(self.windows))

        seconds = fastest(run, 1)
        del model
        gc.collect()
        return self.windows.numel() / seconds

    def ours(self):
        command = [self.crepe, "eval", self.dir, "--data", self.ids, "--seqlen", str(self.windows.shape[1]), "--compute", "bf16", "--json"]
        start = time.perf_counter()
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.perf_counter() - start
        print(f"  nats a token: crepe {json.loads(out)['nll']:.5f}, transformers {self.nll:.5f}")
        return self.windows.numel() / seconds


class Decode:
    compute, dtype = "bf16", torch.bfloat16

    def __init__(self, opt, tools):
        self.opt, self.binary = opt, os.path.join(tools, "decode")
        subprocess.run(["go", "build", "-o", self.binary, "./tools/decode"], cwd=ROOT, check=True)

    def peer(self):
        model = transformers.AutoModelForCausalLM.from_pretrained(self.opt.model, dtype=self.dtype, attn_implementation="sdpa").eval()
        ids = torch.randint(0, model.config.vocab_size, (1, self.opt.prompt))

        def run(n):
            with torch.no_grad():
                model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)

        run(2)
        seconds = fastest(lambda: run(self.opt.tokens), 1) - fastest(lambda: run(1), 1)
        del model
        gc.collect()
        return (self.opt.tokens - 1) / seconds

    def ours(self):
        command = [self.binary, "-compute", self.compute, "-prompt", str(self.opt.prompt), "-tokens", str(self.opt.tokens), self.opt.model]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return float(re.search(r"([\d.]+) tokens/s", out).group(1))


class DecodeF32(Decode):
    compute, dtype = "f32", torch.float32


KINDS = {"block": Block, "perplexity": Perplexity, "decode": Decode, "decode-f32": DecodeF32}


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", default="l1b", help="what tools/bench_llama.py 1b made")
    args.add_argument("--only", default=",".join(KINDS))
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--windows", type=int, default=2, help="of perplexity")
    args.add_argument("--prompt", type=int, default=512, help="tokens before those that are timed")
    args.add_argument("--tokens", type=int, default=32)
    opt = args.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as tools:
        for name in opt.only.split(","):
            kind, ratios = KINDS[name](opt, tools), []
            for _ in range(opt.rounds):
                peer, ours = kind.peer(), kind.ours()
                ratios.append(ours / peer)
                print(f"{name:>12}: transformers {peer:8.1f}, crepe {ours:8.1f} tokens/s, ratio {ratios[-1]:.2f}", flush=True)
            print(f"{name:>12}: median ratio {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
