"""What transformers renders of chat templates, for package internal/jinja.

    venv/bin/python tools/golden_chat.py [FOLDER CASES.json]

writes internal/jinja/testdata/cases.json: the snippets below, and the templates
of internal/jinja/testdata (written for crepe, with the constructs of the
published ones of Llama 3, Qwen 2.5 and 3, Gemma, Phi-4, Mistral and DeepSeek)
over conversations, each with the text or the fact that it is an error.

With a FOLDER of .jinja files, such as those of models that may not be
redistributed, it writes CASES.json of these instead. The test reads that file
if CREPE_CHAT_CASES names it.

Needs transformers (5.24.0) and jinja2 (3.1.6).
"""

import datetime
import glob
import json
import os
import sys

import jinja2
import transformers.utils.chat_template_utils as utils

NOW = datetime.datetime(2026, 3, 7, 9, 5, 30)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


utils.datetime = Clock

CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hello"}],
    "system": [
        {"role": "system", "content": "  Be brief. "},
        {"role": "user", "content": " Hi <b> & 'x' \"y\" é日🙂\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
        {"role": "user", "content": "More"},
    ],
    "ends with the assistant": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "two": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "{{ d }}"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    "twice the user": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "another role": [{"role": "x", "content": "a"}],
    "none": [{"role": "user", "content": None}],
    "no content": [{"role": "user"}],
    "tool": [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "123456789",
                    "type": "function",
                    "function": {"name": "f", "arguments": {"x": 1, "a": [1.5, None, True, "é\n"]}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "123456789", "name": "f", "content": "42"},
        {"role": "user", "content": "c"},
    ],
    "empty": [],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "d <é>",
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "number", "description": "n"}, "a": {"type": "string"}},
                "required": ["x"],
            },
        },
    }
]
VALUES = {
    "n": 7,
    "f": 2.5,
    "s": "  Ab c\n",
    "e": "",
    "t": True,
    "z": None,
    "l": [3, 1, 2],
    "w": ["b", "A", "a"],
    "d": {"b": 1, "a": [1, {"x": None}], "it's": "q\"'\\"},
    "m": [{"role": "user", "content": "x", "k": 2}, {"role": "system", "content": "y", "k": 1}],
    "u": "é日🙂\u00a0x",
}

# Each is a template for VALUES.
SNIPPETS = r"""
{{ n }} {{ f }} {{ s }}|{{ e }}|{{ t }}|{{ z }}|{{ l }}|{{ d }}|{{ u }}|{{ missing }}|
{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 7.5 // 2 }} {{ 1e20 }} {{ 1.0 }} {{ 1e-5 }} {{ 100000000000000000.0 }}
{{ -n }} {{ +n }} {{ - f }} {{ -2 ** 2 }} {{ 2 ** -1 }} {{ 1_000 }} {{ 0.1 + 0.2 }} {{ -n | abs }}
{{ "a" + "b" ~ 1 ~ none ~ true }} {{ "ab" * 3 }} {{ 3 * "ab" }} {{ [1] * 2 + [2] }} {{ (1, 2) + (3,) }} {{ "a" "b" }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ "a" < "b" }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }} {{ none == missing }} {{ missing == other }}
{{ 1 in l }} {{ 9 not in l }} {{ "b" in "abc" }} {{ "a" in d }} {{ 1 in missing }} {{ not 1 in l }} {{ (1, 2) in [(1, 2)] }}
{{ "x" if t else "y" }} {{ "x" if not t }}|{{ "x" if e else "y" if z else "w" }} {{ t and n }} {{ e or "o" }} {{ not e }} {{ missing or 3 }}
{{ l[0] }} {{ l[-1] }} {{ l[9] }}| {{ s[2] }} {{ u[1] }} {{ d.b }} {{ d["a"][1].x }} {{ d.missing }}| {{ l.0 }} {{ d["missing"] }}|
{{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ l[::2] }} {{ u[1:3] }} {{ "abcdef"[4:1:-2] }} {{ l[5:] }} {{ l[-9:2] }} {{ "abc"[::-1] }} {{ l[None:2] }}
{{ {"a": 1, 2: "b", none: [], true: 1.5} }} {{ {} }} {{ [] }} {{ () }} {{ (1,) }} {{ {"a": 1, "a": 2} }} {{ {1: "a", 1.0: "b", true: "c"} }}
{{ "a\nb\t\\\'\"\x41\u00e9\q" }} {{ 'it''s' }} {{ ["it's", 'say "x"', "both ' and \"", "é\u200b\n\x01"] }}
{% for x in l %}{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.previtem }} {{ loop.nextitem }} {{ loop.cycle("a", "b") }};{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in u %}{{ c }}.{% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{% else %}none{% endfor %}{% for x in [] %}{% else %}none{% endfor %}{% for x in missing %}{% else %}none{% endfor %}
{% for x in l %}{% for y in l %}{{ loop.depth }}{% if y == 1 %}{% continue %}{% endif %}{{ y }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}{% endfor %}
{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}
{% for x in range(3) %}{{ x }}{% endfor %}{{ range(5, 1, -2) | list }}{{ range(2, 4) | list }}{{ range(0) | list }}
{% for x in l %}{{ loop.changed(x > 1) }}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}{% if t %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(a=1, b="c") %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}|
{% set a, b = 1, [2] %}{{ a }}{{ b }}{% set c %}x{{ a }}{% endset %}{{ c }}{% set c | upper | trim %} y {% endset %}{{ c }}
{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }}{{ varargs }}{{ kwargs }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=4, a=5) }}{{ m() }}{{ m.name }}
{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}
{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{{ n }}{% endcall %}{% macro k() %}{{ caller(1) }}{% endmacro %}{% call(x) k() %}<{{ x }}>{% endcall %}
{% macro m() %}{{ v }}{% endmacro %}{% set v = 1 %}{{ m() }}{% set v = 2 %}{{ m() }}
{% filter upper %}a{{ s }}{% endfilter %}{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}{% generation %}g{{ n }}{% endgeneration %}
{% raw %}{{ x }} {% if %}{% endraw %}{# comment {{ x }} #}x{#- y -#} z
  {% if t %}
  a
  {%- endif %}
 b   {{- n -}}   c
  {%+ if t %} d
{% endif +%}
e{% if t -%}
   f
{%- endif %}  g
  {# c #}
h {{ n }}
i
{{ s | trim }}|{{ s | upper }}|{{ s | length }}|{{ s | replace("b", "XX") }}|{{ s | title }}|{{ "hello-world (x)" | title }}|{{ "ABC d" | capitalize }}|{{ s | string }}|{{ s | lower }}
{{ l | sort }} {{ l | sort(reverse=true) }} {{ w | sort }} {{ w | sort(case_sensitive=true) }} {{ m | sort(attribute="k") | map(attribute="k") | list }} {{ l | first }} {{ l | last }} {{ [] | first }}| {{ l | min }} {{ l | max }} {{ l | sum }} {{ m | sum(attribute="k") }}
{{ l | join }} {{ l | join(", ") }} {{ m | join("-", attribute="role") }} {{ l | reverse | list }} {{ "abc" | reverse }} {{ w | unique | list }} {{ l | batch(2) | list }} {{ [1, 2, 3] | batch(2, "x") | list }}
{{ m | map(attribute="role") | list }} {{ m | map(attribute="q", default="D") | list }} {{ w | map("upper") | join }} {{ m | selectattr("role", "equalto", "user") | list | length }} {{ m | rejectattr("role", "eq", "user") | map(attribute="content") | list }} {{ l | select("odd") | list }} {{ l | reject("gt", 1) | list }} {{ m | selectattr("k") | list | count }} {{ ["", 1] | select | list }}
{{ missing | default("D") }} {{ e | default("D") }}| {{ e | default("D", true) }} {{ z | d("D") }} {{ missing | default(default_value=3) }} {{ missing | length }} {{ missing | upper }}| {{ d.q | default([]) }}
{{ "12" | int }} {{ "x" | int }} {{ "x" | int(5) }} {{ 3.9 | int }} {{ " 3.7 " | int }} {{ "1.5" | float }} {{ "q" | float }} {{ 2.5 | round }} {{ 2.567 | round(1) }} {{ 2.1 | round(0, "ceil") }} {{ 5 | round }} {{ "ff" | int(base=16) }} {{ -3 | abs }}
{{ "a<b>&'\"" | escape }} {{ "a" | safe }} {{ d | items | list }} {{ d | dictsort }} {{ d | list }} {{ "a b  c" | wordcount }} {{ m | groupby("role") | length }} {% for g, i in m | groupby("role") %}{{ g }}{{ i | length }}{% endfor %}
{{ "a\nb\n\nc" | indent }}|{{ "a\nb" | indent(2, true) }}|{{ "a\n\nb" | indent(2, blank=true) }}|{{ "a\nb" | indent("> ") }}
{{ d | tojson }} {{ d | tojson(indent=2) }} {{ [] | tojson(indent=4) }} {{ {} | tojson }} {{ u | tojson }} {{ u | tojson(ensure_ascii=true) }} {{ d | tojson(sort_keys=true) }} {{ l | tojson(separators=(",", ":")) }} {{ 1.0 | tojson }} {{ "<a>&\u0001\u007f\t" | tojson }} {{ {1: 2, none: 3, true: 1.5} | tojson }} {{ (1, 2) | tojson }} {{ 1e22 | tojson }}
{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ "xxaxx".strip("x") }}|{{ "a-b-c".split("-") }}|{{ "a-b-c".split("-", 1) }}|{{ "a-b-c".rsplit("-", 1) }}|{{ " a  b ".split() }}|{{ " a b  c ".split(none, 1) }}|{{ " a b  c ".rsplit(none, 1) }}|{{ "".split("x") }}|{{ "".split() }}
{{ "abc".startswith("ab") }} {{ "abc".endswith(("x", "bc")) }} {{ "abc".find("c") }} {{ "é日é".find("日") }} {{ "abc".find("x") }} {{ "abcab".rfind("ab") }} {{ "abab".count("ab") }} {{ "abab".replace("a", "x") }} {{ "abab".replace("a", "x", 1) }} {{ ",".join(["a", "b"]) }} {{ "ab".upper() }} {{ "Ab".lower() }} {{ "ab cd".title() }} {{ "aB".capitalize() }} {{ "12".isdigit() }} {{ "a1".isalnum() }} {{ "".isalpha() }} {{ "a\nb\r\nc".splitlines() }} {{ "abc".removeprefix("a") }} {{ "abc".removesuffix("c") }} {{ "a=b=c".partition("=") }} {{ "7".zfill(3) }} {{ "it's".title() }}
{{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | list }} {{ d.get("b") }} {{ d.get("q") }} {{ d.get("q", 5) }} {{ l.index(2) }} {{ l.count(1) }} {{ d.copy() == d }} {{ d["items"] is defined }} {{ dict(a=1, b=2) }} {{ dict(d, c=3) | length }}
{{ n is defined }} {{ missing is defined }} {{ missing is undefined }} {{ z is none }} {{ n is not none }} {{ s is string }} {{ n is number }} {{ t is number }} {{ t is boolean }} {{ n is integer }} {{ t is integer }} {{ f is float }} {{ d is mapping }} {{ l is sequence }} {{ s is iterable }} {{ n is iterable }} {{ d is sequence }} {{ range is callable }} {{ t is true }} {{ n is true }} {{ t is false }}
{{ 3 is odd }} {{ 3 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ "A" is upper }} {{ "a" is lower }} {{ "1" is upper }} {{ 1 is eq 1 }} {{ 1 is ne(1) }} {{ 1 is lt 2 }} {{ 3 is ge 3 }} {{ 1 is in [1, 2] }} {{ none is sameas none }} {{ 1 is sameas true }} {{ n is not defined and t }} {{ "upper" is filter }} {{ n is number if t else 2 }}
{{ strftime_now("%d %b %Y") }} {{ strftime_now("%A %B %-d %H:%M:%S %y %j %I %p %%") }}
{{ "%s-%d-%.2f-%5s-%-4s|%05d %x %r %%" | format("a", 3, 1.005, "b", "c", 42, 255, "q") }} {{ "%(a)s" | format(a=1) }} {{ "%s %s" % (1, "b") }} {{ "%s" % l }} {{ "%d%%" % 3.7 }}
{{ "a" + 1 }}
{{ missing.x }}
{{ missing() }}
{{ missing + 1 }}
{{ z.x }}|{{ z["x"] }}|
{{ z.x.y }}
{{ n() }}
{{ 1 < "a" }}
{{ l + 1 }}
{{ s | nofilter }}
{{ s is notest }}
{{ raise_exception("no " ~ n) }}
{{ l.append(4) }}
{{ d.update({"q": 1}) }}
{{ "a".nomethod() }}
{% for x in n %}{% endfor %}
{{ 1 / 0 }}
{{ {[]: 1} }}
{{ {} | tojson(1, 2, 3, 4, 5) }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% set x.y = 1 %}
{% if t %}
{% endfor %}
{{ }}
{{ (1 }}
{% unknown %}
{{ "a }}
{% break %}
{{ "x" is string is string }}
{{ missing is in missing }}{{ [1] is in [[1]] }}
{{ range(200000) }}
{{ loop }}|{{ m }}
{{ "a" in 5 }}
{{ "%d" % "a" }}
{{ "%s" % (1, 2) }}
{{ [1, 2] | tojson | length }}{{ not not t }}{{ -(-3) }}{{ 1 if 0 }}
{% for x in l %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}{% for x in m | reverse %}{{ x.role }}{% endfor %}
{{ m[0].content + "\n" if m[0].content else "" }}{{ (m | length - 1) }}{{ m|length-1 }}{{ m[(m|length)-1]['role'] }}{{ m[-1:][0].role }}
"""


def snippets():
    """The snippets: a line each, but for those that begin with two blanks, which
    go with what follows up to "i"."""
    lines = SNIPPETS.strip("\n").split("\n")
    out = []
    while lines:
        line = lines.pop(0)
        if line.startswith("  "):
            while lines[0] != "i":
                line += "\n" + lines.pop(0)
            line += "\n" + lines.pop(0) + "\n"
        out.append(line)
    return out


def case(name, source, values):
    c = {"name": name, "source": source, "values": values}
    try:
        c["text"] = utils._compile_jinja_template(source).render(**values)
    except jinja2.exceptions.TemplateError as e:
        c["error"] = str(e)
    except Exception as e:
        c["error"] = f"{type(e).__name__}: {e}"
    return c


def conversations(folder):
    for path in sorted(glob.glob(os.path.join(folder, "*.jinja"))):
        with open(path, newline="", encoding="utf-8") as f:
            source = f.read()
        for name, messages in CONVERSATIONS.items():
            for prompt in (True, False):
                for extra in ({}, {"tools": TOOLS}, {"enable_thinking": False}):
                    values = {
                        "messages": messages,
                        "add_generation_prompt": prompt,
                        "bos_token": "<s>",
                        "eos_token": "</s>",
                        "tools": None,
                        "documents": None,
                    } | extra
                    yield case(f"{os.path.basename(path)}: {name}", source, values)


def main():
    target = "internal/jinja/testdata/cases.json"
    if len(sys.argv) > 1:
        folder, target = sys.argv[1:]
        cases = list(conversations(folder))
    else:
        cases = [case("snippet", s, VALUES) for s in snippets()]
        cases += conversations("internal/jinja/testdata")
    sources = sorted({c["source"] for c in cases})
    for c in cases:
        c["source"] = sources.index(c["source"])
    values = []
    for c in cases:
        if c["values"] not in values:
            values.append(c["values"])
        c["values"] = values.index(c["values"])
    with open(target, "w", encoding="utf-8") as f:
        f.write('{"sources": ')
        json.dump(sources, f, ensure_ascii=False, indent=0)
        f.write(', "values": ')
        json.dump(values, f, ensure_ascii=False)
        f.write(', "cases": ')
        json.dump(cases, f, ensure_ascii=False, indent=0)
        f.write("}\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
