#!/usr/bin/env python3
"""Goldens for the patterns of pre-tokenizers: how Python cuts texts at them.

Made with tokenizers 0.23.3, Python 3.11, seed 0; the same bytes each time:

    python tools/golden_patterns.py tokenizer/testdata/patterns.gz

The patterns are those of published models, patterns for each construct of
Oniguruma's syntax, and random ones of its grammar. The file is a JSON object:

texts   strings
cases   {"pre": a pre_tokenizer, "cuts": for each text the lengths of its parts in
        bytes, null where Python's library panics since it took too many steps}
        or {"pre", "error": what Python says when it reads the pattern}
"""
import gzip, json, os, random, sys

from tokenizers import Regex, pre_tokenizers as P

CONTR = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?" + UP + "*" + LOW + "+" + CONTR + r"?|[^\r\n\p{L}\p{N}]?" + UP + "+" + LOW + "*" + CONTR
         + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
NO_HAN = "&&[^\\p{Han}]]"
KIMI = r"[\p{Han}]+|" + O200K.replace(r"\p{M}]", r"\p{M}" + NO_HAN).replace("[\\r\\n/]*", "[\\r\\n]*")

PUBLISHED = {
    "GPT-2, MPT, GPT-NeoX, BLOOM's bytes": GPT2,
    "GPT-4, DBRX, OLMo 2": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "Bailing": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "Llama 3, GLM 4": CONTR + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL,
    "Qwen 2, StableLM 2": CONTR + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL,
    "CodeQwen": CONTR + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|" + TAIL,
    "Qwen 3.5": CONTR + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Seed-OSS": CONTR + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}|" + TAIL,
    "GPT-4o, GPT-OSS, Llama 4": O200K,
    "Phi-4 mini": O200K.replace("[\\r\\n/]*", "[\\r\\n]*"),
    "Tekken, Nemotron, Apertus": O200K.replace(r"\p{N}{1,3}", r"\p{N}").replace(CONTR + "?", ""),
    "Kimi": KIMI,
    "Viking, Poro, BLOOM": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "GPT-3 Finnish": r" ?[^(\s|.,!?…。，、।۔،)]+",
    "Falcon": "[0-9][0-9][0-9]",
    "DeepSeek-V3 1": r"\p{N}{1,3}",
    "DeepSeek-V3 2": "[一-龥぀-ゟ゠-ヿ]+",
    "DeepSeek-V3 3": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    "DeepSeek-LLM 1": r"[\r\n]",
    "DeepSeek-LLM 2": r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-Ⴥ𐐀-𐑏ﬀ-ﬆＡ-Ｚａ-ｚ]+",
    "DeepSeek-LLM 3": r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    "DeepSeek-LLM 4": r"\s+$",
    "DeepSeek-LLM 5": "[一-龥ࠀ-一가-퟿]+",
    "DeepSeek-coder": r"\s?\p{P}+",
    "Hunyuan": r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Youtu 1": "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
    "Chameleon": r"<sentinel:[0-9]+>|(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z|([\t\n]|    |  )|\p{N}|[\p{P}!-/:-@\[-`{-~]|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    "SuperBPE": r"\d{1,3}(?=(?:\d{3})*\b)",
    "AFMoE": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    "EXAONE": r"(?:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    "Jais 2": r"'s|'t|'re|'ve|'m|'ll|'d|'S|'T|'RE|'VE|'M|'LL|'D| ?[\p{L}\p{M}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}\p{M}]+|\s{512}(?!\S)|\s{1,512}(?!\S)|\s{1,512}",
    "Gemma": " ",
    "Granite, SmolLM": r"\p{Nd}",
    "Trillion": r"[^\s\p{L}\p{N}]?[\p{L}\p{M}]+(?:['’][\p{L}]+)?|\p{N}{1,3}|[^\r\n\S]+(?=\s)|\S",
    "camelCase": r"(?<=[a-z])(?=[A-Z])|(?<=\p{L})(?=\p{N})|_+",
}

CONSTRUCTS = r"""
[a-z&&[^aeiou]]+
[\p{L}&&\p{Latin}]+
[\p{L}&&[^\p{Latin}\p{Han}]]+
[^\p{L}&&\p{Latin}]+
[a-w&&[^c-g]z]+
[\w&&[^\d_]]+
[&&a]
[a&&]+
[a&&&b]+
[a&b]+
[a-c&&b-d&&c-e]+
[[:alpha:]]+
[[:^alpha:]]+
[^[:space:]]+
[[:punct:]]+
\p{Punct}+
[\p{Punct}]+
[[:word:]]+
\w+
[\w]+
\W+
[^\W]+
[[:alnum:][:blank:]]+
[[:cntrl:]]
[[:graph:]]+
[[:print:]]+
[[:lower:]]+
[[:upper:]][[:lower:]]*
[[:xdigit:]]+
[[:digit:]]+
[[:ascii:]]+
[:alpha:]+
[[:alpha:]_-]+
[a[bc]d]+
[^a[^b]]+
[[a-z][A-Z]]+
[[^a-z]&&[^A-Z]]+
[a-z-[aeiou]]+
[a-[bc]]+
[a-c-e]+
[-a]+
[a-]+
[]a]+
[^]a]+
[(|)]+
[.$^*+?{}]+
[\]\[\\\-]+
[\n\r\t ]+
[\x41-\x5a]+
[\u4e00-\u9fff]+
[\x{1F600}-\x{1F64F}]+
[\xc3\xa9x]+
[\b\e\a\f\v]
[é-ü]+
[\P{L}\P{N}]+
[\P{L}\P{Lu}]+
[^\P{L}\P{Lu}]+
[\p{^L}\d]+
[\D\S]+
[^\D\S]+
[\h]+
\h+
\H+
\d+
\D+
\s+
\S+
\p{L}+
\P{L}+
\p{^L}+
\P{^L}+
\pL+
\p{Lu}\p{Ll}*
\p{lu}+
\p{Uppercase_Letter}+
\p{LC}+
\p{Lt}+
\p{M}+
\p{Mn}+
\p{N}+
\p{Nl}+
\p{No}+
\p{S}+
\p{Sc}+
\p{Sm}+
\p{So}+
\p{Z}+
\p{Zs}+
\p{C}+
\p{Cc}+
\p{Cf}+
\p{Cn}+
\p{Co}+
\p{Han}+
\p{Hiragana}+|\p{Katakana}+
\p{Hangul}+
\p{Arabic}+
\p{Cyrillic}+
\p{Greek}+
\p{Devanagari}+
\p{Thai}+
\p{Common}+
\p{Inherited}+
\p{Emoji}+
\p{Extended_Pictographic}+
\p{Alphabetic}+
\p{White_Space}+
\p{Ideographic}+
\p{ID_Start}\p{ID_Continue}*
\p{InCJK_Unified_Ideographs}+
\p{Any}
\p{IsHan}
\p{Script=Han}
\p{Nonsense}
.
.+
(?m:.+)
(?m).+$
\N+
\O
^.
^
$
.$
\A.
.\z
.\Z
\n\z
\Gab?
\b
\B
\bt\w+
\w\b
\R
\R+
(?i:abc)
(?i)k
(?i:[k])
(?i:[^k])
(?i:ss)
(?i:ß)
(?i:[ß])
(?i:strasse)
(?i:[a-f]+)
(?i:\x{c9})
(?i:fi)
(?i:\p{Lu}+)
(?i:[\p{Lu}]+)
(?i:σ)
(?i:i̇)
a(?i)b|C
(?-i:a)b
(?i-m:a.b)
(?i:(?-i:a)B)
(?x: a b # comment
 )
(?x)a\ b
(?#comment \) )a
(?W)\w+
(?W:\b\w)
(?D)\d+
(?S)\s+
(?P)[[:alpha:]]+
(?P:\p{Alpha}+)
a?
a??
a*?b
a+?
a?+a
a++b
.*+x
(?>a+)a
(?>ab|a)b
a{2}
a{2,}
a{,2}
a{1,2}
a{1,2}?
a{2}?
a{2}+
a{2,3}+
a{3,1}
a{1,2}{2}
(?:a{2})*
(?:a*)*
(?:a?){3}b?
(?:a|b|)+c
(?:a*?)+b
(?:ab?)*?c
a**
a+*
a?*
a+?+
a*??
a{,}
a{
a{x}
{
{2}
*a
(?=a)*
^*
(?:^)*a
a(?=b)
a(?!b)
(?<=a)b
(?<!a)b
(?<=a|bc)d
(?<=ab|c|)d
(?<=a+)b
(?<!\w)\w
(?<=\s)\S+
(?<=^|\s)a
(?<=\b)a
(?<=a(?=b))b
(?<!(a))b
(?<=(?<!a)b)c
(?<=[^\p{L}]{2})\p{L}
(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})
(\w)\1
(a|b)c\1
(?<x>\w)\k<x>
(?<x>\w)\k'x'
(?'x'\w)\k<x>
(?<x>a)|(?<x>b)\k<x>
(\w)\k<1>
(\w)\k<-1>
(\w)(?i)\1
(a\1)
(a)*\1
\1(a)
\2(a)
(?<x>a)\1
\k<none>
(?<x>a)(b)
a\Kb
(?<=a\Kb)c
\x61
\x{61}
\u0061
\141
\o{141}
\0
\xe4\xb8\xad
\xff
\cI
\t
\_\-\/\#\ \&
\q
\Q.\E
\é
(?:)
()
a|
|a
a||b
(?:
)
[
[]
[^]
[a-\d]
[\d-a]
[\d-]+
[z-a]
[[:foo:]]
[[:alpha:]-z]
[[.a.]]
\
\u12
\x{110000}
\x{}
\p{
(?s:.)
(?u:a)
(?P<x>a)
(?R)
\g<0>
(?<x>a\g<x>?)
(?(1)a|b)
(a)?(?(1)b|c)
(?~ab)
(?{a})
(*FAIL)
(?L)a|ab
(?y{w})\X
\X
\y.
(?i:a)(?i:b)
""".strip("\n").split("\n")
# Lines that belong together, or begin or end with white space.
CONSTRUCTS = [c for c in CONSTRUCTS if c not in ("(?x: a b # comment", " )")] + ["(?x: a b # comment\n)", " +", " ?\\S", "a\n"]

TEXTS = [
    "", " ", "a", "\n", "abc abc  ABC\n\nabC aab aaab aaaab bbc cabd", "Hello, world! It's 12:30; don't you'LL WE'VE they'RE I'M 'tis ''s",
    "I'm sure you've heard they'll say it's what we'd do. HE'S SHE'LL x'ſ k'K", "1 12 123 1234 12345 1,000,000 3.14 ½ ²³ Ⅷ १२३ ٣ ๓ 𝟘 ㊿ 0x1F",
    "Der Fluß führt Straße STRASSE straẞe ﬁn ﬀ ﬃ ﬆ ſt STſ SSS sſ", "İstanbul'da ığdır i̇ I ı İİ", "Ελληνικά: η γλώσσα Σίσυφος ΣΑΣ σας ΐ ΰ ᾳ ᾼ", "Сегодня холодно, ёлка Ё ѝ",
    "我们今天去公园散步,天气很好。English混合文字 龥䀀𠀀〇", "今日は良い天気ですね。カタカナｶﾞーひらがな々〆", "안녕하세요, 오늘은 각 ㄱㆎ 힣", "مرحبا بالعالم، كيف؟ ۔ ـَ ۝ ١٢٣", "שלום עוֹלם", "नमस्ते दुनिया। क़ आज मौसम", "สวัสดีชาวโลก วันนี้ ๑๒", "தமிழ் ಕನ್ನಡ ქართული ჯ Ⴀ Հայ ᏣᎳᎩ ꭰ ⴀ",
    "👩‍👩‍👧‍👦 👍🏽 🇫🇷🇩🇪 ❤️ ☃ 🎉🎉 ©® ™ ↔ ‼ 1️⃣ #️⃣", "e\u0301 \u00e9 a\u0323\u0307 \u0301\u0301 \u0345 x\u20dd \u200d\u200c\ufe0f",
    "a\r\nb\rc\n\nd\r\n\r\n  e \n  f\t\n", "  \t  x\u00a0y\u2003z\u3000w\u2028v\u2029u\x85t\x0bs\x0cr\u1680q\u180ep\u200bo\ufeffn\x1cm\u202fl   ", "trailing \n", "trailing\n\n", "   ",
    "\x00\x01\x07\x08\x1b\x7f\x80\x9f\u00ad\u2060\u0378\ue000\ufffd\uffff\U0010ffff\U000f0000\ufdd0\U0001fae9", "ꟋꟌ \u1c89 \U000105c0 \U00010d50 \U00016d40 \U0002ebf0 \u2427 \u0897 \U0001e5f1",
    "def f(x):\n    return x ** 2 + 1\n\n\nfor i in range(10):\n\tprint(f\"{i:>3d}\", end='\\r\\n')  # [a-z]{2}", "<p class=\"x\">a&amp;b</p> https://a.b/c?d=e&f=[g]|{h} $5 €6 £7 ^ ` ~ ¡¿ « » „“ …",
    "camelCase HTTPServer XMLHttpRequest snake_case __init__ x1y2 aB1_", "''\"\"--==//\\\\[[]]((|))...,,,!!!???", "a" * 70 + " " * 40 + "1" * 30 + "\n" * 20 + "=" * 25 + "中" * 30,
    "k K \u212a å Å \u212b µ μ Μ ǅ ǆ Ǆ ʰ ª º ⓐ Ⓐ ⅷ", "pL pLu qQ.E zZ _-/# &&[&] {2} a{2} a{ {x}", "-- [a-c] ^a$ b.d a|b *+?", "<sentinel:12>IMGIMGABCZ    x  y", "ab ba aa bb aba bab xx yxy 11 22", "Ab aB AB ab",
]


def random_patterns(n):
    """Patterns of Oniguruma's grammar, few of which anyone would write."""
    rng = random.Random(0)
    literals = list("abcABsSßkK éÉ1२-_'.,/") + [r"\n", r"\r\n", r"\.", r"\-", r"\x41", r"\x{e9}", "\\u00e9", r"\t", "ss", "ſ", "ﬁ", "fi", "İ", "ab"]
    types = [r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"\h", r"\H", r"\p{L}", r"\p{Lu}", r"\P{L}", r"\p{^N}", r"\p{M}", r"\p{Han}", r"\p{Greek}", r"\p{Alpha}", r"\p{Punct}", r"\P{^Ll}", r"\p{Word}"]
    places = ["^", "$", r"\A", r"\z", r"\Z", r"\b", r"\B", r"\G"]
    groups = ["(?:%s)", "(?:%s)", "(%s)", "(?i:%s)", "(?i:%s)", "(?>%s)", "(?=%s)", "(?!%s)", "(?<=%s)", "(?<!%s)", "(?m:%s)", "(?-i:%s)", "(?W:%s)", "(?i)%s", "(?#c)%s", "(?x: %s )", "(?D:%s)", "(?P:%s)", "(?S:%s)"]
    repeats = ["", "", "", "", "?", "*", "+", "??", "*?", "+?", "?+", "*+", "++", "{2}", "{1,2}", "{,2}", "{2,}", "{2,1}", "{1,2}?", "{2}?", "{2}+", "{0,1}*", "+*"]
    members = list("abcsSkK éß1'-(|.$^&{") + [r"\]", r"\-", r"\n", "a-f", "A-Z", "0-9", "à-ÿ", "一-龥", "!-/", "a-z-", "&&", "[:alpha:]", "[:^space:]", "[:punct:]", "[:word:]", "[:upper:]"]

    def brackets(depth):
        one = lambda: brackets(depth + 1) if depth < 2 and rng.random() < .15 else rng.choice(members if rng.random() < .7 else types)
        return "[" + rng.choice(["", "^"]) + "".join(one() for _ in range(rng.randint(1, 4))) + "]"

    def atom(depth):
        kind = rng.random()
        if kind < .35: return rng.choice(literals)
        if kind < .55: return rng.choice(types + [".", r"\N", r"\O", r"\R"])
        if kind < .7: return brackets(0)
        if kind < .75: return rng.choice(places)
        return rng.choice(groups) % either(depth - 1) if depth else rng.choice(literals)

    def sequence(depth):
        return "".join(atom(depth) + rng.choice(repeats) for _ in range(rng.randint(1, 3)))

    def either(depth):
        return "|".join(sequence(depth) for _ in range(rng.choice([1, 1, 1, 2, 3])))

    return [either(2) for _ in range(n)]


def cuts(pre, text):
    try:
        return [len(part.encode()) for part, _ in pre.pre_tokenize_str(text)]
    except BaseException:  # a panic: too many steps
        return None


def main(path):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the panics
    split = lambda p: {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
    pres = [split(p) for p in [*PUBLISHED.values(), *CONSTRUCTS, *random_patterns(250)]]
    pres.append({"type": "Sequence", "pretokenizers": [split(PUBLISHED[f"DeepSeek-V3 {i}"]) for i in (1, 2, 3)]})
    pres.append({"type": "Sequence", "pretokenizers": [split(PUBLISHED["Viking, Poro, BLOOM"]), {"type": "Digits", "individual_digits": True}]})
    pres.append({"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")]})
    for behavior in "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous":
        for invert in False, True:
            pres.append(split(r"[\p{L}&&[^aeiou]]|\d?") | {"behavior": behavior, "invert": invert})
    cases = []
    for pre in pres:
        try:
            made = P.PreTokenizer.from_str(json.dumps(pre)) if hasattr(P.PreTokenizer, "from_str") else load(pre)
        except Exception as e:
            cases.append({"pre": pre, "error": str(e)})
            continue
        cases.append({"pre": pre, "cuts": [cuts(made, t) for t in TEXTS]})
    data = json.dumps({"texts": TEXTS, "cases": cases}, separators=(",", ":"))
    with open(path, "wb") as f, gzip.GzipFile(filename="", mode="wb", fileobj=f, compresslevel=9, mtime=0) as z:
        z.write(data.encode())
    print(len(TEXTS), "texts,", len(cases), "cases,", sum("error" in c for c in cases), "refused,", sum(c is None for x in cases for c in x.get("cuts", [])), "panics")


def load(pre):
    from tokenizers import Tokenizer, models
    j = json.loads(Tokenizer(models.BPE()).to_str())
    j["pre_tokenizer"] = pre
    return Tokenizer.from_str(json.dumps(j)).pre_tokenizer


if __name__ == "__main__":
    main(*sys.argv[1:])
