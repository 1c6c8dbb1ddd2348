"""Tiny GGUF files of every architecture that is read, and what transformers
makes of them, for gguf/hf/testdata.

    python tools/golden_gguf_models.py        (from the repository's root)

A random model of each architecture is written with gguf's GGUFWriter and its
tensor names, changed as llama.cpp's converter changes it (rows of q and k of
Llama permuted, norms of Gemma plus 1, experts stacked, factors of rotary
embeddings as tensors), quantised by gguf.quants. Tokenizers are trained on
LICENSE by tokenizers and SentencePiece.

golden.json has for each file what AutoModelForCausalLM and AutoTokenizer read
of it with gguf_file: the SHA-256 of each tensor in bfloat16, ids of texts, and
the negative log-likelihood of NAME.ids.safetensors in float32, computed with
the weights that were read and the config that the file was made from, since
transformers leaves factors of rotary embeddings in GGUF files unread.

Made with torch 2.15.0, transformers 5.24.0, gguf 0.19.0, tokenizers 0.23.3,
sentencepiece 0.2.3.
"""

import hashlib
import io
import json
import math
import pathlib

import gguf
import numpy as np
import sentencepiece
import torch
import transformers
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = pathlib.Path("gguf/hf/testdata")
TEXTS = ["The model is pruned to 50%.", "  two  spaces, é and 漢字\n\nDon't!", "x=1234567;\tif (a) { return -1; }"]
BASE = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.15, bos_token_id=1, eos_token_id=2,
)
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
T = transformers
MODELS = {
    # name: architecture, config, tokenizer, pre, types in turn
    "llama": ("llama", T.LlamaConfig(**(BASE | dict(max_position_embeddings=8192)), rope_parameters=dict(
        rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=1024)), "bytes", "llama-bpe", ["Q4_0", "Q8_0"]),
    "mistral": ("llama", T.LlamaConfig(**BASE), "pieces", "default", ["Q4_1", "F16"]),
    "qwen2": ("qwen2", T.Qwen2Config(**BASE, tie_word_embeddings=True, rope_parameters=dict(
        rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)), "bytes", "qwen2", ["Q5_0"]),
    "qwen3": ("qwen3", T.Qwen3Config(**BASE, head_dim=32), "bytes", "smollm", ["Q5_1"]),
    "qwen3moe": ("qwen3moe", T.Qwen3MoeConfig(**BASE, head_dim=16, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32, norm_topk_prob=True), "bytes", "qwen2", ["Q8_0"]),
    "gemma2": ("gemma2", T.Gemma2Config(**BASE, head_dim=16, query_pre_attn_scalar=16, sliding_window=8), "pieces", "default", ["BF16"]),
    "gemma3": ("gemma3", T.Gemma3TextConfig(**(BASE | dict(num_hidden_layers=6)), head_dim=16, query_pre_attn_scalar=16,
        sliding_window=8, rope_parameters=dict(
            full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0))), "pieces", "default", ["Q4_0"]),
    "phi3": ("phi3", T.Phi3Config(**BASE, pad_token_id=0, original_max_position_embeddings=16, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=16, partial_rotary_factor=1.0,
        short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        long_factor=[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5])), "pieces", "default", ["F32", "Q8_0"]),
}


def byte_tokenizer(split):
    """Tokens, types and merges of a byte-level BPE."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train(["LICENSE"], trainers.BpeTrainer(vocab_size=285, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    d = json.loads(t.to_str())["model"]
    tokens = sorted(d["vocab"], key=d["vocab"].get)
    types = [1] * len(tokens)
    tokens = ["<unk>", "<|begin|>", "<|end|>", "<think>"] + tokens
    types = [3, 3, 3, 4] + types
    return dict(model="gpt2", tokens=tokens, types=types, merges=[" ".join(m) if isinstance(m, list) else m for m in d["merges"]])


def piece_tokenizer():
    """Tokens, scores and types of a SentencePiece BPE."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        input="LICENSE", model_writer=out, model_type="bpe", vocab_size=330, byte_fallback=True, pad_id=-1,
        character_coverage=0.985, user_defined_symbols=["<think>"], normalization_rule_name="identity",
        remove_extra_whitespaces=False, minloglevel=2)
    p = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    kind = lambda i: 2 if p.is_unknown(i) else 3 if p.is_control(i) else 6 if p.is_byte(i) else 4 if p.id_to_piece(i) == "<think>" else 1
    n = p.vocab_size()
    return dict(model="llama", own=p, tokens=[p.id_to_piece(i) for i in range(n)], scores=[p.get_score(i) for i in range(n)], types=[kind(i) for i in range(n)])


def permute(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def stored_tensors(arch, model):
    """Names and values as llama.cpp's converter writes them."""
    c = model.config
    kind = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch)
    names = gguf.get_tensor_name_map(kind, c.num_hidden_layers)
    for name, value in model.state_dict().items():
        w = value.float().numpy()
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        if name.endswith("experts.gate_up_proj"):
            half = w.shape[1] // 2
            block = name.split(".")[2]
            yield f"blk.{block}.ffn_gate_exps.weight", w[:, :half]
            yield f"blk.{block}.ffn_up_exps.weight", w[:, half:]
            continue
        if name.endswith("experts.down_proj"):
            stem, suffix = name, "weight"
        if arch == "llama" and ".q_proj." in name:
            w = permute(w, c.num_attention_heads)
        if arch == "llama" and ".k_proj." in name:
            w = permute(w, c.num_key_value_heads)
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            w = w + np.float32(1)
        yield names.get_name(stem) + "." + suffix, w


def rope_tensors(c):
    p = c.rope_parameters
    if p.get("rope_type") == "llama3":
        n = c.hidden_size // c.num_attention_heads
        factors = []
        for f in 1.0 / (p["rope_theta"] ** (torch.arange(0, n, 2, dtype=torch.float32) / n)):
            wave = 2 * math.pi / f
            if wave < p["original_max_position_embeddings"] / p["high_freq_factor"]:
                factors.append(1)
            elif wave > p["original_max_position_embeddings"] / p["low_freq_factor"]:
                factors.append(p["factor"])
            else:
                s = (p["original_max_position_embeddings"] / wave - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
                factors.append(1 / ((1 - s) / p["factor"] + s))
        yield "rope_freqs.weight", np.array(factors, np.float32)
    if p.get("rope_type") == "longrope":
        yield "rope_factors_long.weight", np.array(p["long_factor"], np.float32)
        yield "rope_factors_short.weight", np.array(p["short_factor"], np.float32)


def add_keys(w, arch, c):
    w.add_name(f"tiny {arch}")
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_vocab_size(c.vocab_size)
    p = c.rope_parameters
    p = p.get("full_attention", p)
    w.add_rope_freq_base(p["rope_theta"])
    if (d := getattr(c, "head_dim", None)) and arch != "llama":
        w.add_key_length(d)
        w.add_value_length(d)
    if arch in ("llama", "phi3"):
        w.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    if p["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(p["factor"])
    if p["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(p["factor"])
        w.add_rope_scaling_orig_ctx_len(p["original_max_position_embeddings"])
    if p["rope_type"] == "longrope":
        original = p["original_max_position_embeddings"]
        w.add_rope_scaling_orig_ctx_len(original)
        w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(c.max_position_embeddings / original) / math.log(original)))
    if arch.startswith("gemma"):
        w.add_sliding_window(c.sliding_window)
    if arch == "gemma2":
        w.add_attn_logit_softcapping(c.attn_logit_softcapping)
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    if arch == "phi3":
        w.add_sliding_window(0)
    if arch == "qwen3moe":
        w.add_expert_count(c.num_experts)
        w.add_expert_used_count(c.num_experts_per_tok)
        w.add_expert_feed_forward_length(c.moe_intermediate_size)


def add_tokenizer(w, arch, t, pre):
    w.add_tokenizer_model(t["model"])
    w.add_tokenizer_pre(pre)
    w.add_token_list(t["tokens"])
    w.add_token_types(t["types"])
    if "scores" in t:
        w.add_token_scores(t["scores"])
    if "merges" in t:
        w.add_token_merges(t["merges"])
    if arch.startswith("gemma"):
        w.add_add_space_prefix(False)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")


def read_back(path, config):
    """What transformers reads: hashes of the tensors, NLL of ids, ids of texts."""
    read = T.AutoModelForCausalLM.from_pretrained(OUT, gguf_file=path.name, config=config, dtype=torch.float32)
    rounded = {k: v.to(torch.bfloat16) for k, v in read.state_dict().items()}
    model = type(read)(config).eval()
    model.load_state_dict({k: v.float() for k, v in rounded.items()})
    hashes = {}
    for name, v in rounded.items():
        parts = {name: v}
        if name.endswith("experts.gate_up_proj"):
            stem, half = name.removesuffix("gate_up_proj"), v.shape[1] // 2
            parts = {f"{stem}{i}.{p}_proj.weight": v[i][s] for i in range(len(v)) for p, s in
                     (("gate", slice(half)), ("up", slice(half, None)))}
        if name.endswith("experts.down_proj"):
            parts = {f"{name.removesuffix('down_proj')}{i}.down_proj.weight": v[i] for i in range(len(v))}
        for n, x in parts.items():
            if not (n == "lm_head.weight" and config.tie_word_embeddings):
                hashes[n] = hashlib.sha256(x.contiguous().view(torch.uint16).numpy().tobytes()).hexdigest()
    ids = np.random.default_rng(1).integers(4, 280, (2, 24))
    save_file({"input_ids": ids.astype(np.int64)}, path.with_suffix(".ids.safetensors"))
    x = torch.tensor(ids)
    with torch.no_grad():
        logits = model(x).logits.double()
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).item()
    tok = T.AutoTokenizer.from_pretrained(OUT, gguf_file=path.name)
    return dict(tensors=hashes, nll=nll, texts=TEXTS, ids=[tok.encode(t, add_special_tokens=False) for t in TEXTS])


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    golden = {}
    for seed, (name, (arch, config, tokenizer, pre, types)) in enumerate(MODELS.items()):
        t = piece_tokenizer() if tokenizer == "pieces" else byte_tokenizer(LLAMA3 if pre == "llama-bpe" else QWEN2)
        config.vocab_size = len(t["tokens"])
        torch.manual_seed(seed)
        model = T.AutoModelForCausalLM.from_config(config).eval()
        for n, p in model.named_parameters():
            if n.endswith("norm.weight") or n.endswith("bias"):
                p.data += 0.2 * torch.randn_like(p)
        path = OUT / f"{name}.gguf"
        w = gguf.GGUFWriter(path, arch)
        add_keys(w, arch, config)
        add_tokenizer(w, arch, t, pre)
        for n, x in rope_tensors(config):
            w.add_tensor(n, x)
        for i, (n, x) in enumerate(stored_tensors(arch, model)):
            kind = gguf.GGMLQuantizationType[types[i % len(types)] if x.ndim > 1 else "F32"]
            w.add_tensor(n, gguf.quants.quantize(np.ascontiguousarray(x), kind), raw_dtype=kind)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        golden[name] = read_back(path, config)
        if name == "mistral":  # transformers puts no space before one that a text begins with
            golden[name]["ids"] = [t["own"].encode(x) for x in TEXTS]
        print(name, path.stat().st_size, golden[name]["nll"])
    (OUT / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


main()
