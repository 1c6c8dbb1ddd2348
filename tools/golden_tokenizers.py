#!/usr/bin/env python3
"""Goldens for package tokenizer.

Trains small tokenizers that are put together like well-known ones, writes
nasty strings, and what Python makes of them. Made with tokenizers 0.23.3,
transformers 5.23.0, sentencepiece 0.2.3, Python 3.11, seed 0:

    python tools/golden_tokenizers.py demo/data tokenizer/testdata

(Python's library panics on a few strings and says so on stderr.) The result is
the same bytes each time.

strings.txt.gz       the strings, one JSON string a line
NAME.json.gz         a tokenizer.json
NAME.model           a SentencePiece model, in place of a tokenizer.json
NAME.ids.gz          for each string: its ids as varints, each + 1, then 0; strings at
                     odd places are encoded without special tokens
eval.txt             "NAME count sha256" of the ids (int32, little-endian) of the
                     first 300,000 characters of the evaluation text, and of
                     all of it with the demo's own tokenizer
NAME.dec             for each string two bytes: crc32 & 255 of what the ids
                     decode to, with special tokens and without
"""
import collections, gzip, hashlib, io, json, random, struct, sys, zlib

import sentencepiece as spm
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CONTR = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTR + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTR + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CODEQWEN = CONTR + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = CONTR + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (r"[^\r\n\p{L}\p{N}]?" + UP + "*" + LOW + "+" + CONTR + r"?|[^\r\n\p{L}\p{N}]?" + UP + "+" + LOW + "*" + CONTR
         + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = O200K.replace(r"\p{N}{1,3}", r"\p{N}").replace(CONTR + "?", "")
DEEPSEEK3 = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
             r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Letters with case, as DeepSeek-LLM lists them (shortened: the test is of the shape).
CASED = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-Ⴥ𐐀-𐑏ﬀ-ﬆＡ-Ｚａ-ｚ]+"
CJK = "[一-龥ࠀ-一가-퟿]+"

WORLD = """Der Fluß führt im Frühling viel Wasser; die Straße ist naß. Çok güzel bir gün, İstanbul'da ığdır.
Сегодня холодно, но солнечно — ёлка стоит у дома. Ελληνικά: η γλώσσα είναι όμορφη, Σίσυφος.
今日は良い天気ですね。明日も晴れるでしょう。東京は大きな都市です。我们今天去公园散步,天气很好。
안녕하세요, 오늘은 날씨가 좋습니다. 감사합니다. مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם, מה שלומך?
नमस्ते दुनिया, आज मौसम अच्छा है। สวัสดีชาวโลก วันนี้อากาศดี 👩‍👩‍👧‍👦 👍🏽 🎉 café naïve résumé
def f(x):\n    return x ** 2 + 1\n\n\nfor i in range(10):\n\tprint(f"{i:>3d}", end="\\r\\n")
I'm sure you've heard they'll say it's what we'd do, don't you? HE'S, SHE'LL. 1234567 3.14159 1,000,000
"""

SPECIALS = ["<|endoftext|>", "<|begin_of_text|>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<mask>", "<tool_call>",
            "<|assistant|>", "<|end|>", "Word", "quick brown", "[PAD]", "<pad>", "<0x41>", "<0x0A>", "▁the", "\n\n"]


def strings():
    rng = random.Random(0)
    pools = [
        list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), list("0123456789"), list("0123456789²½Ⅷ١๓𝟘㊿"),
        [" ", " ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\u1680", "\u200b", "\u180e", "\ufeff", "\u202f", "\x1c"],
        list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"), ["'s", "'S", "'ſ", "'t", "'RE", "'re", "'Ve", "'ll", "'LL", "'lL", "'d", "'D", "'m", "’s", "''s", "'K", "'ſſ", "'", "'v", "'l", "'L"],
        list("ſKİıßŉﬆÅΩµſǅǈʰªºˢ"), list("我们今天东京都市語龥一가힣각각각"), list("日本のこんにちはカタカナｶﾞ々〆ー・。、「」！？：～"),
        ["e\u0301", "\u00e9", "\u0301", "\u0300\u0323", "a\u0323\u0307", "\u1e69", "s\u0307\u0323", "\u0345", "\u0338", "\u05b0", "\u093c", "क\u093c", "\u0958", "\u0f73", "\u20dd", "\ufe0f", "\u0344", "\u1100\u1161\u11a8", "\u1112\u1161", "Å", "Ω", "①", "ﬁ", "㌀", "½"],
        ["👩‍👩‍👧‍👦", "👍🏽", "🇫🇷", "🏴\U000e0067\U000e0062\U000e007f", "❤️", "☃", "🎉", "\u200d", "𝔸", "𐐀", "𐑏", "\U0001f1e6"],
        list("شكراالعربيةשלום") + ["\u0640", "\u064e", "\u200f", "\u202e", "؟", "۝"], list("ñüøæœđłžğşЯжЁёЙйΣσςΆ") + ["नमस्ते", "สวัสดี", "தமிழ்", "ไทย"],
        ["\x00", "\x01", "\x07", "\x1b", "\x7f", "\x80", "\x9f", "\u00ad", "\u2060", "\u0378", "\ue000", "\ufffd", "\uffff", "\U0010ffff", "\U000f0000", "\ufdd0"],
        ["ꟋꟌ", "\u1c89", "\U000105c0", "\U00010d40", "\U00010d50", "\U00016d40", "\U0002ebf0", "\U0001ccf0", "\u0897", "\U0001e5f1", "\u2427", "\U00011de0"],
        SPECIALS, SPECIALS, ["▁", "▁▁", "▁a", " ▁", "Ġ", "ĠA", "Ċ"],
        ["the", " the", " of", "The", " and", "ing", "tion", "and the ", "Hello", " world", "don't", "I'll", "DON'T", "camelCase", "HTTPServer", "x1y2", "1234567890", "3.14", "/usr/bin/\n", "://", "...", "--", "==", "🙂🙂"],
    ]
    out = ["", " ", "  ", "\n", "a", "\x00", "'", "'s", " 's", "▁", " ▁", "▁ ", "<s>", "<s> a", "a <s>", " <s> ", "<unk>", "<0x41>"]
    out += [s * n for s in ["a", " ", "\n", "\r\n", "1", "=", "ab", "é", "🎉", "▁", "\u0301", "中", "' ", "a ", " \n", "\t", "-", "/", "the", "<s>", "\x00", "'s", "한", "aA", "ʰ"] for n in (2, 3, 7, 33, 70)]
    out += [a + b for a in ["a", " ", "1", "\n", "!", "'s", "é", "中", "\u0301", "<s>", "Word", "\u00a0", "A", "ʰ"] for b in ["a", " ", "1", "\n", "!", "'s", "é", "中", "\u0301", "<s>", "Word", "\u00a0", "A", "ʰ"]]
    out += [a + " " + b for a in SPECIALS for b in ["x", " x", "<s>"]]
    out += [a + b + c for a in "aA\u0301ʰ中'.1 " for b in "aA\u0301ʰ中" for c in "aA\u0301 "]
    out += [a + b + c + d for a in ["<|im_start|>", "<|im_end|>", "x <|end|>"] for b in ["\n\n", " \n\n ", "\n\n\n\n\n"] for c in ["<|im_start|>", "x"] for d in ["\n", ""]]
    out += WORLD.split("\n")
    while len(out) < 1500:
        few = rng.sample(pools, rng.randint(1, 4))
        out.append("".join(rng.choice(rng.choice(few)) for _ in range(rng.randint(2, 9))))
    return out


def train(corpus, normalizer, pre, size, specials=(), alphabet=(), limit=256):
    t = Tokenizer(models.BPE(unk_token=None))
    if normalizer: t.normalizer = normalizer
    if pre: t.pre_tokenizer = pre
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), initial_alphabet=list(alphabet), limit_alphabet=limit, show_progress=False))
    return t


def bos(token, id):
    return processors.TemplateProcessing(single=token + " $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, id)])


def byte_level(corpus, pre, specials=("<|endoftext|>",), normalizer=None, size=540, post=None, model=None, added=(), add_prefix=False, use_regex=False):
    """A byte-level tokenizer; pre: the stages before ByteLevel."""
    seq = [p for p in pre] + [pre_tokenizers.ByteLevel(add_prefix_space=add_prefix, use_regex=use_regex)]
    t = train(corpus, normalizer, pre_tokenizers.Sequence(seq) if len(seq) > 1 else seq[0], size, specials, pre_tokenizers.ByteLevel.alphabet())
    t.decoder = decoders.ByteLevel()
    t.post_processor = post or processors.ByteLevel(trim_offsets=False)
    for a in added: t.add_tokens([a]) if not a.special else t.add_special_tokens([a])
    return edit(t, model or {})


def edit(t, model, **top):
    j = json.loads(t.to_str())
    j["model"].update(model)
    j.update(top)
    return j


def spm_like(corpus, normalizer, pre, dec, added=(), size=620, post=True, model=None, drop_bytes=()):
    """Byte fallback as in Llama 2."""
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    # The trainer's own limit_alphabet breaks ties differently in each run.
    count = collections.Counter("".join(corpus))
    keep = set(sorted(count, key=lambda c: (-count[c], c))[:110])
    corpus = ["".join(c for c in line if c in keep) for line in corpus]
    pretrain = pre_tokenizers.Metaspace(prepend_scheme="first" if pre is not None else "always", split=True)
    t = train(corpus, None, pretrain, size, specials, ["▁"])
    j = json.loads(t.to_str())
    for b in drop_bytes:
        j["model"]["vocab"]["gone%02X" % b] = j["model"]["vocab"].pop(f"<0x{b:02X}>")
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    j["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    j["model"].update(model or {})
    t = Tokenizer.from_str(json.dumps(j))
    if normalizer: t.normalizer = normalizer
    if pre is not None: t.pre_tokenizer = pre
    else: t.pre_tokenizer = None
    t.decoder = dec
    if post: t.post_processor = bos("<s>", 1)
    for a in added: t.add_tokens([a]) if not a.special else t.add_special_tokens([a])
    return edit(t, {})


def tokenizers(corpus):
    S = lambda p, b="isolated", inv=False: pre_tokenizers.Split(Regex(p), b, inv)
    llama_norm = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    llama_dec = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    sp = lambda c, **k: AddedToken(c, special=True, normalized=False, **k)
    ad = lambda c, **k: AddedToken(c, special=False, **k)
    y = {}
    j = byte_level(corpus, [], use_regex=True)
    j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]  # as files before 2024 have them
    j["model"].update(continuing_subword_prefix="", end_of_word_suffix="")
    y["gpt2"] = j
    y["roberta"] = byte_level(corpus, [], use_regex=True, add_prefix=True, specials=("<s>", "</s>", "<unk>"), added=[sp("<mask>", lstrip=True)], post=bos("<s>", 0))
    y["llama3"] = byte_level(corpus, [S(LLAMA3)], specials=("<|begin_of_text|>", "<|endoftext|>"), model={"ignore_merges": True},
                             post=processors.Sequence([processors.ByteLevel(trim_offsets=False), bos("<|begin_of_text|>", 0)]))
    # Tokens that no merge reaches, which ignore_merges finds whole.
    for w in ["Ġworld", "HTTPServer", "ĠĠĠĠĠĠĠ", "xyz"]:
        y["llama3"]["model"]["vocab"].setdefault(w, len(y["llama3"]["model"]["vocab"]))
    y["qwen2"] = byte_level(corpus, [S(QWEN2)], normalizer=normalizers.NFC(), added=[sp("<|im_start|>"), sp("<|im_end|>"), ad("<tool_call>", normalized=False)])
    y["codeqwen"] = byte_level(corpus, [S(CODEQWEN)], normalizer=normalizers.NFKC(), added=[ad("ﬁ½"), ad("Word", single_word=True)])
    y["qwen35"] = byte_level(corpus, [S(QWEN35)], normalizer=normalizers.NFC())
    y["deepseek-llm"] = byte_level(corpus, [S("[\r\n]"), S(CASED), S(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), S(r"\s+$"), S(CJK), pre_tokenizers.Digits(True)], post=bos("<|endoftext|>", 0))
    y["deepseek-coder"] = byte_level(corpus, [S("[\r\n]"), S(r"\s?\p{L}+"), S(r"\s?\p{P}+"), S(CJK), pre_tokenizers.Digits(True)], added=[ad("quick brown"), ad("\n\n", normalized=False)])
    y["deepseek-v3"] = byte_level(corpus, [S(r"\p{N}{1,3}"), S("[一-龥぀-ゟ゠-ヿ]+"), S(DEEPSEEK3)])
    y["phi4"] = byte_level(corpus, [S(CL100K)], added=[sp("<|im_start|>", lstrip=True, rstrip=True), sp("<|im_end|>", rstrip=True), ad("\n\n", normalized=False, lstrip=True)])
    y["o200k"] = byte_level(corpus, [S(O200K)])
    y["tekken"] = byte_level(corpus, [S(TEKKEN)], model={"ignore_merges": True})
    y["falcon"] = byte_level(corpus, [pre_tokenizers.Punctuation("contiguous")])
    y["falcon"]["pre_tokenizer"] = as_json(pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(False), S("[0-9][0-9][0-9]")]))  # stages after ByteLevel see stand-ins
    y["starcoder"] = byte_level(corpus, [pre_tokenizers.Digits(True)], use_regex=True)
    y["whole"] = byte_level(corpus, [S(QWEN2)])
    y["whole"]["pre_tokenizer"] = as_json(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    y["lookahead"] = byte_level(corpus, [S(r"(?=[A-Z])|\d+(?!\d)|[aeiou]{2}", "merged_with_next"), S(r"\s+(?=\S)|z$|^t", "contiguous", True)])
    y["llama2"] = spm_like(corpus, llama_norm, None, llama_dec)
    y["llama2-old"] = spm_like(corpus, llama_norm, None, llama_dec, added=[ad("<pad>"), ad("Word"), ad("quick brown", single_word=True)], drop_bytes=[0, 0xE4, 0xF0])
    for a in y["llama2-old"]["added_tokens"]: a["normalized"] = True
    y["phi3"] = spm_like(corpus, llama_norm, None, llama_dec, added=[sp("<|endoftext|>"), sp("<|assistant|>", rstrip=True), sp("<|end|>", rstrip=True), sp("<|im_start|>", rstrip=True)], post=False)
    y["mistral"] = spm_like(corpus, None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), llama_dec)
    y["metaspace"] = spm_like(corpus, None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True), decoders.Metaspace(), model={"byte_fallback": False, "fuse_unk": False})
    y["fuse-unk"] = spm_like(corpus, normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()]), pre_tokenizers.Metaspace(prepend_scheme="never", split=True), decoders.Sequence([decoders.Metaspace(prepend_scheme="never")]), model={"byte_fallback": False})
    y["gemma"] = spm_like(corpus, normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]), added=[ad("\n\n", normalized=False), ad("▁▁", normalized=False)])
    y["words"] = spm_like(corpus, normalizers.Sequence([normalizers.Strip(), normalizers.NFKD(), normalizers.Replace(Regex(" {2,}|ss"), "▁")]),
                          pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("e", "merged_with_previous"), pre_tokenizers.Digits(False)]), decoders.Fuse(), model={"unk_token": None, "byte_fallback": False})
    y["removed"] = spm_like(corpus, None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_next"), pre_tokenizers.Split(Regex("[a-z]+|[A-Z]"), "removed", True)]), decoders.Strip("a", 1, 1) )
    return y


def as_json(pre):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    return json.loads(t.to_str())["pre_tokenizer"]


def sentencepieces(corpus, out):
    """SentencePiece models, encoded by sentencepiece itself after cutting out
    control tokens, as transformers' LlamaTokenizer does; see llama.go."""
    base = dict(model_type="bpe", sentence_iterator=None, vocab_size=560, byte_fallback=True, character_coverage=0.99, num_threads=1,
                max_sentence_length=100000, minloglevel=2, add_dummy_prefix=True, remove_extra_whitespaces=False, normalization_rule_name="identity")
    kinds = {
        "sp-llama": dict(split_digits=True, allow_whitespace_only_pieces=True),
        "sp-user": dict(user_defined_symbols=["<tool_call>", "quick brown", "Word", "<pad>", "▁▁"], allow_whitespace_only_pieces=True, split_by_whitespace=True),
        "sp-plain": dict(byte_fallback=False, remove_extra_whitespaces=True, vocab_size=300),
        "sp-noprefix": dict(add_dummy_prefix=False, split_by_whitespace=False, split_by_unicode_script=False, allow_whitespace_only_pieces=True),
    }
    for name, over in kinds.items():
        buf = io.BytesIO()
        spm.SentencePieceTrainer.train(**{**base, **over, "sentence_iterator": iter(corpus), "model_writer": buf})
        open(f"{out}/{name}.model", "wb").write(buf.getvalue())
        yield name, spm.SentencePieceProcessor(model_proto=buf.getvalue())


def sp_encode(sp, s, special):
    """Like LlamaTokenizer with legacy true: control tokens cut out, each part encoded by itself."""
    ids = [sp.bos_id()] if special else []
    marks = [sp.id_to_piece(i) for i in (sp.unk_id(), sp.bos_id(), sp.eos_id())]
    while s:
        at, m = min(((s.find(m) if m in s else len(s)), m) for m in marks)
        if at: ids += sp.encode(s[:at])
        if at < len(s): ids.append(sp.piece_to_id(m))
        s = s[at + len(m):]
    return ids


def varint(n):
    b = b""
    while n > 127:
        b += bytes([n & 127 | 128]); n >>= 7
    return b + bytes([n])


def write(path, data):
    with open(path, "wb") as f, gzip.GzipFile(filename="", mode="wb", fileobj=f, compresslevel=9, mtime=0) as z:
        z.write(data)


def summary(name, ids):
    return f"{name} {len(ids)} {hashlib.sha256(struct.pack(f'<{len(ids)}i', *ids)).hexdigest()}\n"


def main(demo, out):
    docs = [json.loads(l)["text"] for l in open(demo + "/calibration.jsonl", encoding="utf8")][:12]
    corpus = [line for d in docs for line in d[:20000].split("\n")] + WORLD.split("\n") * 40
    texts = strings()
    evaluation = open(demo + "/wikitext-2-test.txt", encoding="utf8", newline="").read()
    sums = summary("demo", Tokenizer.from_file(demo + "/model/tokenizer.json").encode(evaluation).ids)
    write(out + "/strings.txt.gz", "\n".join(json.dumps(s) for s in texts).encode())
    for name, j in tokenizers(corpus).items():
        text = json.dumps(j, ensure_ascii=False, separators=(",", ":"))
        t = Tokenizer.from_str(text)
        write(f"{out}/{name}.json.gz", text.encode())
        sums += summary(name, t.encode(evaluation[:300000]).ids)
        ids, dec = b"", b""
        for i, s in enumerate(texts):
            e = encode(t, s, i % 2 == 0)
            ids += b"".join(varint(x + 1) for x in e) + b"\0"
            for skip in (False, True):
                dec += bytes([zlib.crc32(decode(t, e, skip)) & 255])
        write(f"{out}/{name}.ids.gz", ids)
        open(f"{out}/{name}.dec", "wb").write(dec)
    for name, sp in sentencepieces([c for c in corpus if c], out):
        ids = b""
        for i, s in enumerate(texts):
            ids += b"".join(varint(x + 1) for x in sp_encode(sp, s, i % 2 == 0)) + b"\0"
        write(f"{out}/{name}.ids.gz", ids)
        sums += summary(name, sp_encode(sp, evaluation[:300000], True))
    open(out + "/eval.txt", "w").write(sums)


PANIC = 1 << 20  # in place of ids where Python panics: a token of white space inside what rstrip took


def encode(t, s, special):
    try:
        return t.encode(s, add_special_tokens=special).ids
    except BaseException:
        return [PANIC]


def decode(t, ids, skip):
    try:
        return t.decode(ids, skip_special_tokens=skip).encode()
    except BaseException:  # a panic of the Strip decoder on tokens that are too short
        return b"panic"


if __name__ == "__main__":
    main(*sys.argv[1:])
