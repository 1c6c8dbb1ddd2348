#!/usr/bin/env python3
"""What transformers computes when one key of a config changes, for crepe's
goldens.

    python tools/golden_config.py testdata/fixtures > testdata/config.json

For each fixture and each change: the mean negative log-likelihood of the
fixture's input_ids (mean over the windows of each window's mean), float32,
eager attention; or that transformers refuses the config, or has to make up
tensors that the checkpoint lacks ("missing"), or leaves some unread
("unexpected"). A change of null removes the key; the value "null" sets null.

Made with torch 2.15.0, transformers 5.24.0, safetensors 0.8.0.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.set_verbosity(logging.CRITICAL)
torch.set_num_threads(1)

FULL, SLIDING = "full_attention", "sliding_attention"
# Of every class: those that it reads, that another reads, that none reads.
EVERY = [
    {},
    {"attention_bias": True},
    {"attention_bias": False},
    {"mlp_bias": True},
    {"qkv_bias": True},
    {"lm_head_bias": True},
    {"use_qk_norm": True},
    {"sliding_window": 4},
    {"sliding_window": "null"},
    {"sliding_window": 4, "use_sliding_window": False},
    {"sliding_window": 4, "use_sliding_window": True},
    {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
    {"sliding_window": 4, "layer_types": FULL},
    {"sliding_window": 4, "use_sliding_window": True, "layer_types": SLIDING},
    {"layer_types": SLIDING},
    {"attn_logit_softcapping": 2.0},
    {"final_logit_softcapping": 2.0},
    {"logit_scale": 0.5},
    {"logits_scaling": 2.0},
    {"embedding_multiplier": 2.0},
    {"residual_multiplier": 0.5},
    {"attention_multiplier": 0.5},
    {"query_pre_attn_scalar": 64},
    {"clip_qkv": 0.1},
    {"use_bidirectional_attention": True},
    {"is_causal": False},
    {"is_causal": "null"},
    {"is_causal": True},
    {"attn_output_gate": False},
    {"shared_expert_intermediate_size": 0},
    {"shared_expert_intermediate_size": 64},
    {"n_shared_experts": 1},
    {"norm_topk_prob": False},
    {"norm_topk_prob": True},
    {"num_experts_per_tok": 1},
    {"routed_scaling_factor": 2.0},
    {"router_jitter_noise": 0.1},
    {"output_gate_type": "sigmoid"},
    {"hidden_act": "swish"},
    {"hidden_act": "gelu"},
    {"hidden_act": "gelu_pytorch_tanh"},
    {"hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"},
    {"hidden_activation": "silu"},
    {"hidden_activation": "null"},
    {"partial_rotary_factor": 0.5},
    {"original_max_position_embeddings": 8},
    {"pretraining_tp": 2},
    {"attention_dropout": 0.1},
    {"rms_norm_eps": 0.1},
    {"rope_theta": 77.0},
    {"rope_parameters": None, "rope_scaling": None, "rope_theta": 77.0},
    {"rope_parameters": None, "rope_scaling": None, "rope_theta": 77.0, "partial_rotary_factor": 0.5},
    {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 77.0},
    {"rope_parameters": None, "rope_theta": 77.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}},
    {"rope_parameters": None, "rope_theta": 77.0, "original_max_position_embeddings": 8, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}},
    {"rope_parameters": None, "rope_theta": 77.0, "rope_scaling": {"rope_type": "default"}},
    {"rope_parameters": None, "rope_theta": 77.0, "rope_scaling": {}},
    {"rope_scaling": None, "rope_theta": None, "rope_parameters": {"rope_type": "default"}},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"compression_config": {"sparsity_config": {"format": "dense", "sparsity_structure": "2:4"}}},
    {"architectures": None},
    {"architectures": "null"},
    {"architectures": ["Unheard"]},
    {"architectures": ["MistralForCausalLM"]},
    {"architectures": ["LlamaForCausalLM"]},
    {"model_type": "llama"},
    {"model_type": "mistral"},
    {"model_type": "qwen2"},
    {"model_type": "qwen3"},
    {"model_type": "gemma3_text"},
    {"model_type": "qwen3_5_text"},
    {"head_dim": "null"},
    {"head_dim": None},
    {"num_key_value_heads": "null"},
    {"mlp_only_layers": [0]},
    {"decoder_sparse_step": 2},
    {"full_attention_interval": 2, "layer_types": None},
    {"sliding_window_pattern": 2, "layer_types": None},
    {"dtype": "float16"},
    {"torch_dtype": "float32", "use_cache": False, "bos_token_id": 7, "unheard_of": {"x": 1}},
    {"is_decoder": False},
    {"chunk_size_feed_forward": 4},
    # null where it is not as good as nothing
    {"rms_norm_eps": "null"},
    {"max_position_embeddings": "null"},
    {"tie_word_embeddings": "null"},
    {"hidden_act": "null"},
    {"attention_bias": "null"},
    {"mlp_bias": "null"},
    {"query_pre_attn_scalar": "null"},
    {"use_sliding_window": "null"},
    {"max_window_layers": "null"},
    {"norm_topk_prob": "null"},
    {"decoder_sparse_step": "null"},
    {"rope_parameters": None, "rope_scaling": None, "rope_theta": "null"},
    {"rope_parameters": None, "rope_theta": 77.0, "rope_scaling": {"rope_type": None, "type": "linear", "factor": 4.0}},
    {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 4.0, "rope_theta": None}},
    {"rope_parameters": None, "max_position_embeddings": 32, "rope_scaling": {"rope_type": "longrope", "factor": 3.0,
        "short_factor": [1.1] * 8, "long_factor": [2.0] * 8}},
    {"rope_parameters": None, "max_position_embeddings": 32, "rope_scaling": {"rope_type": "longrope",
        "short_factor": [1.1] * 8, "long_factor": [2.0] * 8}},
]
ONLY = {"llama3-gqa", "llama-mha", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3", "gemma2", "gemma3-text", "qwen3_5", "qwen3_5-vl"}


def changed(config, change):
    """config with the keys changed, where the class keeps those of its text."""
    config = json.loads(json.dumps(config))
    for key, value in change.items():
        at = config if key in ("architectures", "model_type") else config.get("text_config", config)
        if key == "layer_types" and isinstance(value, str):
            value = [value] * at["num_hidden_layers"]
        if value is None:
            at.pop(key, None)
        else:
            at[key] = None if value == "null" else value
    return config


def nll(folder, ids):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    model.eval()
    with torch.no_grad():
        logits = model(ids).logits[:, :-1].double()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    out = {"class": type(model).__name__, "nll": losses.mean().item()}
    for kind in ("missing", "unexpected", "mismatched"):
        keys = [k if isinstance(k, str) else k[0] for k in info[f"{kind}_keys"]]
        keys = [k for k in keys if not k.startswith(("model.visual", "mtp"))]
        if keys:
            out[kind] = len(keys)
    return out


def main(fixtures):
    cases = []
    for folder in sorted(pathlib.Path(fixtures).iterdir()):
        if folder.name not in ONLY:
            continue
        config = json.loads((folder / "config.json").read_text())
        ids = load_file(folder / "golden.safetensors")["input_ids"]
        with tempfile.TemporaryDirectory() as tmp:
            for file in folder.glob("model*"):
                os.symlink(file.resolve(), os.path.join(tmp, file.name))
            for change in EVERY:
                with open(os.path.join(tmp, "config.json"), "w") as out:
                    json.dump(changed(config, change), out)
                case = {"fixture": folder.name, "change": change}
                try:
                    case |= nll(tmp, ids)
                except Exception as err:  # whatever transformers refuses with
                    case["refused"] = f"{type(err).__name__}: {err}".split("\n")[0][:120]
                cases.append(case)
                print(case, file=sys.stderr)
    print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")


if __name__ == "__main__":
    main(sys.argv[1])
