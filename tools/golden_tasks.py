#!/usr/bin/env python3
"""eval/task/testdata: documents, two small tokenizers, and what the harness makes of them.

    python tools/golden_tasks.py docs        # DATA/<task>/<split>.jsonl
    python tools/golden_tasks.py parquet     # PARQUET/<task>/<split>-00000-of-00001.parquet
    python tools/golden_tasks.py tokenizers  # TOKENIZERS/<name>/
    python tools/golden_tasks.py golden [NAME…]

From the root of the repository. The documents are made here, in the columns of
the public datasets, with what is awkward in them; nothing is fetched. parquet
writes the same documents under the hub's file names, in the datasets' own types
and between them in every codec and page version. golden
runs lm-evaluation-harness with transformers in float32 on the demo model and
writes for every document the log-likelihood of each choice, the number of its
tokens, the two predictions and the gold choice, and for every task the
harness's own metrics. peer_tasks.py races crepe against the same harness.

Made with lm-eval 0.4.13, transformers 5.23.0, torch 2.15.0, tokenizers as
these install it, pyarrow 26.0.1; seed 20.
"""

import gzip
import json
import os
import random
import sys
import time

MODEL = "demo/data/model"
DATA = "eval/task/testdata/data"
PARQUET = "eval/task/testdata/parquet"
TOKENIZERS = "eval/task/testdata/tokenizers"
GOLDEN = "eval/task/testdata/golden"

SPLITS = {
    "rte": "validation", "mnli": "validation_matched", "boolq": "validation", "hellaswag": "validation",
    "arc_easy": "test", "arc_challenge": "test", "winogrande": "validation",
}
# What is not the default only changes what stands in front: two tasks show it,
# one of them with an empty context.
FEW = ["rte", "winogrande"]
# name: (tokenizer folder, --bos, tasks)
RUNS = {
    "demo-auto": (MODEL, "auto", list(SPLITS)), "demo-on": (MODEL, "on", FEW), "demo-off": (MODEL, "off", FEW),
    "nobos-auto": (TOKENIZERS + "/nobos", "auto", list(SPLITS)), "nobos-on": (TOKENIZERS + "/nobos", "on", FEW),
    "pieces-auto": (TOKENIZERS + "/pieces", "auto", list(SPLITS)), "pieces-off": (TOKENIZERS + "/pieces", "off", FEW),
}

NAMES = "Anna Boris Clara David Elena Frank Greta Henry Irene Jonas".split()
PLACES = ["the harbour", "the old mill", "a small village", "the city hall", "the northern coast", "the library"]
THINGS = "bridge garden letter engine painting river school ship tower window".split()
VERBS = "built painted sold described found repaired visited forgot admired moved".split()
ADJECTIVES = "old narrow bright heavy broken famous quiet wooden large new".split()


def sentence(r):
    return f"{r.choice(NAMES)} {r.choice(VERBS)} the {r.choice(ADJECTIVES)} {r.choice(THINGS)} near {r.choice(PLACES)}"


def passage(r, n):
    return ". ".join(sentence(r) for _ in range(n)) + "."


# Endings and beginnings that something strips, or that something should not.
AWKWARD = [
    "", " ", ".", "?", "?.", "。", "。.", "...", " leading", "trailing ", "\ttab\t", "line\nbreak\n", "\u00a0nbsp\u00a0",
    "\u2003em\u3000", "\u001cfile\u001d", "\u001erecord\u001f", "\u200bzero\u200b", "Straße", "İstanbul", "ΟΔΟΣ", "ΑΣ. Σ",
    "ǆ", "ﬁne", "naïve café", "日本語の文", "🙂 emoji 👩‍👩‍👧", "<|begin_of_text|> begins", "ends <|end_of_text|>",
    "a <|end_of_text|> b", "<s> s", "two  spaces", "three   spaces", "four    spaces", "\u0085nel\u0085", "\ufeffbom",
]


def rte(r):
    docs = [{"sentence1": passage(r, 2), "sentence2": sentence(r) + ".", "label": r.randrange(2)} for _ in range(24)]
    docs += [{"sentence1": a, "sentence2": sentence(r), "label": i % 2} for i, a in enumerate(AWKWARD)]
    docs += [{"sentence1": sentence(r), "sentence2": a, "label": i % 2} for i, a in enumerate(AWKWARD[:6])]
    docs.append({"sentence1": passage(r, 60), "sentence2": sentence(r), "label": 0})
    return docs


def mnli(r):
    docs = [{"premise": passage(r, 1), "hypothesis": sentence(r) + r.choice([".", ""]), "label": r.randrange(3)} for _ in range(22)]
    docs += [{"premise": sentence(r), "hypothesis": a, "label": i % 3} for i, a in enumerate(AWKWARD)]
    docs += [{"premise": a, "hypothesis": sentence(r) + " . ", "label": i % 3} for i, a in enumerate(AWKWARD[8:16])]
    docs.append({"premise": passage(r, 60), "hypothesis": "It is long", "label": 1})
    return docs


def boolq(r):
    docs = [{"question": "is the " + r.choice(THINGS) + " " + r.choice(ADJECTIVES), "passage": passage(r, r.randrange(1, 5)),
             "idx": i, "label": r.randrange(2)} for i in range(24)]
    docs += [{"question": "did " + sentence(r) + r.choice(["?", "", " ?"]), "passage": a, "idx": 0, "label": i % 2} for i, a in enumerate(AWKWARD)]
    docs += [{"question": a, "passage": sentence(r), "idx": 0, "label": 1} for a in AWKWARD[:6]]
    docs.append({"question": "is it long", "passage": passage(r, 70), "idx": 0, "label": 1})
    return docs


def hellaswag(r):
    brackets = [
        "[step] Go", "[step]", " [title] How to go [step] Walk.", "Do [this] and [that] .", "[a [b] c] d", "[open only",
        "close] only", "[not\nacross] lines", "before [substeps]  two spaces", " [title]", "x [title] y [title] z", "[Title] Caps",
        "a   [b]   c", "[] empty", "  [step]  ",
    ]
    docs = []
    for i in range(20):
        docs.append({"ind": i, "activity_label": r.choice(["Washing a car", "Home and Garden", "Playing chess"]),
                     "ctx_a": passage(r, 1), "ctx_b": r.choice(["", "he", "the man", "she then"]),
                     "endings": [sentence(r).lower() + "." for _ in range(4)], "label": str(r.randrange(4))})
    for i, a in enumerate(AWKWARD + brackets):
        docs.append({"ind": i, "activity_label": ["Cars", a][i % 5 == 4], "ctx_a": [sentence(r), a][i % 2], "ctx_b": a,
                     "endings": ["goes on.", a, brackets[i % len(brackets)], r.choice(AWKWARD)], "label": str(i % 4)})
    docs.append({"ind": 0, "activity_label": "Long", "ctx_a": passage(r, 60), "ctx_b": "THE END",
                 "endings": [passage(r, 1), passage(r, 9), "ends.", ""], "label": "2"})
    for d in docs:
        d |= {"ctx": d["ctx_a"] + " " + d["ctx_b"], "source_id": "made", "split": "val", "split_type": "indomain"}
    return docs


def arc(r):
    docs = []
    for i in range(26):
        n = [4, 4, 3, 5][i % 4]
        labels = [list("ABCDE"), list("12345")][i % 3 == 2][:n]
        docs.append({"id": f"made_{i}", "question": "Which " + r.choice(THINGS) + " did " + sentence(r) + "?",
                     "choices": {"text": [r.choice(ADJECTIVES) + " " + r.choice(THINGS) for _ in labels], "label": labels},
                     "answerKey": r.choice(labels)})
    for i, a in enumerate(AWKWARD):
        docs.append({"id": f"awkward_{i}", "question": a if i % 2 else sentence(r), "answerKey": "ABCD"[i % 4],
                     "choices": {"text": [a, "it", " it", r.choice(AWKWARD)], "label": list("ABCD")}})
    docs.append({"id": "long", "question": passage(r, 60), "answerKey": "B",
                 "choices": {"text": ["yes", passage(r, 8)], "label": ["A", "B"]}})
    return docs


def winogrande(r):
    docs = []
    for i in range(26):
        a, b = r.sample(NAMES, 2)
        docs.append({"sentence": f"{a} gave {b} the {r.choice(THINGS)} because _ was {r.choice(ADJECTIVES)}.",
                     "option1": a, "option2": b, "answer": str(r.randrange(1, 3))})
    for i, a in enumerate(AWKWARD):
        docs.append({"sentence": [f"{sentence(r)} and _ {a}", f"{a} _ was here", f"It was _{a}"][i % 3],
                     "option1": r.choice(NAMES), "option2": [a, "the man"][i % 2], "answer": str(1 + i % 2)})
    docs += [
        {"sentence": "_ came first.", "option1": "Anna", "option2": "The man ", "answer": "1"},
        {"sentence": "_ came, then _ left.", "option1": "Anna", "option2": "Boris", "answer": "2"},
        {"sentence": "The last word is _", "option1": "one", "option2": "two", "answer": "2"},
        {"sentence": "_ has an empty option.", "option1": "", "option2": "Boris", "answer": "1"},
        {"sentence": passage(r, 60) + " Then _ slept.", "option1": "Anna", "option2": "the captain", "answer": "2"},
    ]
    return docs


def write_docs():
    for i, (name, make) in enumerate(
        {"rte": rte, "mnli": mnli, "boolq": boolq, "hellaswag": hellaswag, "arc_easy": arc, "arc_challenge": arc, "winogrande": winogrande}.items()
    ):
        docs = make(random.Random(20 + i))
        assert len(docs) >= 60, (name, len(docs))
        os.makedirs(f"{DATA}/{name}", exist_ok=True)
        with open(f"{DATA}/{name}/{SPLITS[name]}.jsonl", "w", encoding="utf-8", newline="\n") as f:
            for d in docs:
                f.write(json.dumps(d, ensure_ascii=i % 2 == 0) + "\n")


def write_parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    s, i64, i32 = pa.string(), pa.int64(), pa.int32()
    glue = {"label": i64, "idx": i32}
    arc_types = {"id": s, "question": s, "choices": pa.struct([("text", pa.list_(s)), ("label", pa.list_(s))]), "answerKey": s}
    types = {
        "rte": {"sentence1": s, "sentence2": s} | glue,
        "mnli": {"premise": s, "hypothesis": s} | glue,
        "boolq": {"question": s, "passage": s, "idx": i32, "label": i64},
        "hellaswag": {"ind": i32, "activity_label": s, "ctx_a": s, "ctx_b": s, "ctx": s, "endings": pa.list_(s),
                      "source_id": s, "split": s, "split_type": s, "label": s},
        "arc_easy": arc_types, "arc_challenge": arc_types,
        "winogrande": {"sentence": s, "option1": s, "option2": s, "answer": s},
    }
    small = {"data_page_size": 512, "write_batch_size": 16, "row_group_size": 25}
    options = {
        "rte": {"compression": "snappy"},
        "mnli": {"compression": "zstd", "data_page_version": "2.0"} | small,
        "boolq": {"compression": "gzip", "use_dictionary": False},
        "hellaswag": {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"} | small,
        "arc_easy": {"compression": "snappy"} | small,
        "arc_challenge": {"compression": "zstd", "use_compliant_nested_type": False},
        "winogrande": {"compression": "snappy"},
    }
    for name, columns in types.items():
        docs = [{"idx": i} | d for i, d in enumerate(read(DATA, name))]
        os.makedirs(f"{PARQUET}/{name}", exist_ok=True)
        shards = 2 if name == "arc_challenge" else 1
        for k in range(shards):
            part = docs[k * len(docs) // shards:(k + 1) * len(docs) // shards]
            t = pa.Table.from_pylist([{c: d[c] for c in columns} for d in part], schema=pa.schema(list(columns.items())))
            pq.write_table(t, f"{PARQUET}/{name}/{SPLITS[name]}-{k:05}-of-{shards:05}.parquet", **options[name])


def write_tokenizers():
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    r = random.Random(7)
    texts = [passage(r, 20) for _ in range(20)] + ["Question: Answer: True False Neither yes no naïve café Straße"] * 5

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end_of_text|>"], show_progress=False))
    save(t, "nobos", {"eos_token": "<|end_of_text|>"})

    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    # Words are kept apart in training only: a token that goes over the end of a
    # context would leave its continuation without any, at which the harness stops.
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=560, special_tokens=special + [f"<0x{b:02X}>" for b in range(256)], show_progress=False))
    # The bytes were special only to get their places.
    j = json.loads(t.to_str())
    j["pre_tokenizer"] = None
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] in special]
    t = Tokenizer.from_str(json.dumps(j))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    save(t, "pieces", {"bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False},
                       "eos_token": "</s>", "unk_token": "<unk>"})


def save(t, name, config):
    d = f"{TOKENIZERS}/{name}"
    os.makedirs(d, exist_ok=True)
    t.save(d + "/tokenizer.json", pretty=False)
    with open(d + "/tokenizer_config.json", "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | config, f, indent=1)


def read(data, name):
    with open(f"{data}/{name}/{SPLITS[name]}.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def local_data(data):
    """Lets the harness's own, unchanged tasks find local files."""
    import datasets

    repos = {
        ("nyu-mll/glue", "rte"): "rte", ("nyu-mll/glue", "mnli"): "mnli", ("aps/super_glue", "boolq"): "boolq",
        ("Rowan/hellaswag", None): "hellaswag", ("allenai/ai2_arc", "ARC-Easy"): "arc_easy",
        ("allenai/ai2_arc", "ARC-Challenge"): "arc_challenge", ("allenai/winogrande", "winogrande_xl"): "winogrande",
    }

    def load(path, name=None, **_):
        task = repos[path, name]
        d = datasets.Dataset.from_list(read(data, task))
        return datasets.DatasetDict({SPLITS[task]: d, "train": d})

    datasets.load_dataset = load


def harness(model, tokenizer, data, bos, dtype, tasks, batch=8, limit=None):
    """The harness's results, and the seconds without loading."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    local_data(data)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, dtype=dtype, device="cpu", batch_size=batch,
              add_bos_token={"auto": None, "on": True, "off": False}[bos])
    start = time.perf_counter()
    out = lm_eval.simple_evaluate(lm, tasks=tasks, log_samples=True, bootstrap_iters=0, limit=limit)
    return lm, out, time.perf_counter() - start


def metrics(out, task):
    r = out["results"][task]
    return {m: r[m + ",none"] for m in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr") if m + ",none" in r}


def golden(name):
    import numpy as np
    from lm_eval.tasks import TaskManager

    tokenizer, bos, tasks = RUNS[name]
    lm, out, _ = harness(MODEL, tokenizer, DATA, bos, "float32", tasks)
    loaded = TaskManager().load(list(tasks))["tasks"]
    os.makedirs(GOLDEN, exist_ok=True)
    with gzip.GzipFile(f"{GOLDEN}/{name}.jsonl.gz", "wb", mtime=0) as f:
        def line(o):
            f.write((json.dumps(o) + "\n").encode())
        for task in tasks:
            line({"task": task} | metrics(out, task))
            for s in sorted(out["samples"][task], key=lambda s: s["doc_id"]):
                lls = [float(r[0][0]) for r in s["resps"]]
                choices = loaded[task].doc_to_choice(s["doc"])
                args = [(a["arg_0"], a["arg_1"]) for a in s["arguments"].values()] if isinstance(s["arguments"], dict) else s["arguments"]
                gold = loaded[task].doc_to_text(s["doc"]) if task == "winogrande" else s["target"]
                with np.errstate(divide="ignore"):
                    norm = int(np.argmax(np.array(lls) / np.array([float(len(c)) for c in choices])))
                pred = int(np.argmax(lls))
                assert s["acc"] == float(pred == int(gold)), (task, s["doc_id"])
                assert s.get("acc_norm", float(norm == int(gold))) == float(norm == int(gold)), (task, s["doc_id"])
                line({"task": task, "doc": s["doc_id"], "loglikelihood": [round(v, 6) for v in lls], "tokens": [len(tokens(lm, *a)) for a in args],
                      "pred": pred, "pred_norm": norm, "gold": int(gold)})


def tokens(lm, context, continuation):
    """The continuation's tokens, as loglikelihood has them."""
    if context != "":
        return lm._encode_pair(context, continuation)[1]
    enc = lm.tok_encode(continuation, add_special_tokens=False)
    return enc[1:] if enc[0] == lm.prefix_token_id else enc


def main():
    what, *args = sys.argv[1:] or ["help"]
    if what == "docs":
        write_docs()
    elif what == "parquet":
        write_parquet()
    elif what == "tokenizers":
        write_tokenizers()
    elif what == "golden":
        for name in args or RUNS:
            golden(name)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
