#!/usr/bin/env python3
"""The official openai package against `crepe serve`: every answer, error and
stream of the server is read by the client that most programs use.

    crepe serve MODEL --port 8080 --api-key secret &
    python tools/oracle_openai.py http://127.0.0.1:8080/v1 secret [--minutes 5]

MODEL needs a chat template. With --minutes it also soaks the server: 16
clients at a time, a third of which hang up in the middle, and it reports the
server's memory (crepe's /metrics) each minute.

Needs openai (3.57.0).
"""

import argparse
import random
import re
import threading
import time
import urllib.request

import openai


def check(what, ok):
    print(("ok    " if ok else "FAIL  ") + what)
    if not ok:
        raise SystemExit(1)


def refused(kind, f, code=None):
    try:
        f()
    except kind as e:
        return (code is None or e.code == code) and bool(e.message)
    return False


def answers(client):
    models = client.models.list().data
    check("models", len(models) >= 1 and client.models.retrieve(models[0].id).id == models[0].id)
    model = models[0].id
    talk = [{"role": "system", "content": "Answer in one sentence."}, {"role": "user", "content": "What is the capital of France?"}]

    def chat(**k):
        return client.chat.completions.create(model=model, messages=talk, **({"max_tokens": 24, "temperature": 0} | k))

    a = chat()
    text, u = a.choices[0].message.content, a.usage
    check("chat", bool(text) and a.choices[0].message.role == "assistant" and u.total_tokens == u.prompt_tokens + u.completion_tokens)
    print("      " + repr(text))
    pieces = list(chat(stream=True, stream_options={"include_usage": True}))
    joined = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    check("chat, streamed", joined == text and pieces[-1].usage.completion_tokens == u.completion_tokens)
    check("finish reason", pieces[-2].choices[0].finish_reason == a.choices[0].finish_reason)
    stop = text[4:7]
    b = chat(stop=[stop])
    check("stop", b.choices[0].message.content == text[: text.index(stop)] and b.choices[0].finish_reason == "stop")
    c = chat(logprobs=True, top_logprobs=3)
    log = c.choices[0].logprobs.content
    check("logprobs", len(log) in (c.usage.completion_tokens, c.usage.completion_tokens - 1)
          and all(len(t.top_logprobs) == 3 and t.top_logprobs[0].logprob == t.logprob <= 0 for t in log))
    check("logprobs' bytes", b"".join(bytes(t.bytes or []) for t in log).decode(errors="ignore").startswith(text))
    one, two, other = (chat(temperature=1, seed=s, max_tokens=30).choices[0].message.content for s in (1, 1, 2))
    check("seed", one == two != other)
    check("n", len(chat(n=3, temperature=1).choices) == 3)
    check("max_completion_tokens", chat(max_tokens=openai.NOT_GIVEN, max_completion_tokens=3).usage.completion_tokens <= 3)
    check("cached tokens", chat().usage.prompt_tokens_details.cached_tokens > 0)
    d = client.completions.create(model=model, prompt=["Once upon a time", "The end"], max_tokens=8, temperature=0, logprobs=2)
    check("completions", len(d.choices) == 2 and all(len(c.logprobs.tokens) == 8 for c in d.choices))
    e = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, temperature=0, stream=True)
    check("completions, streamed", "".join(p.choices[0].text for p in e) == d.choices[0].text)
    raw = client.chat.completions.with_raw_response.create(model=model, messages=talk, max_tokens=2)
    check("content type", raw.headers["content-type"].startswith("application/json"))

    check("no such model", refused(openai.NotFoundError, lambda: client.models.retrieve("none"), "model_not_found"))
    check("wrong key", refused(openai.AuthenticationError, lambda: client.with_options(api_key="x").models.list(), "invalid_api_key"))
    check("bad temperature", refused(openai.BadRequestError, lambda: chat(temperature=-1)))
    check("too long a prompt", refused(openai.BadRequestError, lambda: client.completions.create(model=model, prompt="word " * 200_000), "context_length_exceeded"))
    check("tools", refused(openai.BadRequestError, lambda: chat(tools=[{"type": "function", "function": {"name": "f"}}])))
    return model


def soak(client, base, key, model, minutes):
    """Clients that ask, of which some hang up, for so long."""
    end = time.time() + 60 * minutes
    counts = {"answers": 0, "hung up": 0, "errors": 0, "different": 0}
    lock = threading.Lock()
    prompts = [f"Tell me about the number {i}." for i in range(8)]

    def ask(i, **k):
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompts[i]}], max_tokens=32, temperature=0, **k)

    alone = [ask(i).choices[0].message.content for i in range(len(prompts))]

    def work(seed):
        rng = random.Random(seed)
        while time.time() < end:
            i = rng.randrange(len(prompts))
            try:
                if rng.random() < 1 / 3:
                    s = ask(i, stream=True)
                    for _, _ in zip(range(rng.randrange(10)), s):
                        pass
                    s.close()
                    kind = "hung up"
                else:
                    kind = "answers" if ask(i).choices[0].message.content == alone[i] else "different"
            except openai.APIError as e:
                kind = "errors"
                print(e)
            with lock:
                counts[kind] += 1

    def memory():
        r = urllib.request.Request(base.removesuffix("/v1") + "/metrics", headers={"Authorization": "Bearer " + key})
        text = urllib.request.urlopen(r).read().decode()
        return {n: float(re.search(rf"^{n}(?:{{.*}})? (\S+)", text, re.M).group(1)) for n in
                ("process_resident_memory_bytes", "go_goroutines", "crepe_generated_tokens_total")}

    threads = [threading.Thread(target=work, args=(s,)) for s in range(16)]
    for t in threads:
        t.start()
    start = time.time()
    while any(t.is_alive() for t in threads):
        m = memory()
        print(f"{time.time() - start:5.0f} s  {m['process_resident_memory_bytes'] / 2**20:.0f} MiB  "
              f"{m['go_goroutines']:.0f} goroutines  {m['crepe_generated_tokens_total']:.0f} tokens  {counts}", flush=True)
        time.sleep(min(60, max(1, end - time.time())))
    print(counts)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("base")
    p.add_argument("key")
    p.add_argument("--minutes", type=float, default=0)
    a = p.parse_args()
    client = openai.OpenAI(base_url=a.base, api_key=a.key, max_retries=0, timeout=600)
    model = answers(client)
    if a.minutes:
        soak(client, a.base, a.key, model, a.minutes)


if __name__ == "__main__":
    main()
