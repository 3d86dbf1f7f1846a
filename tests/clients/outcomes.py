#!/usr/bin/env python3
"""outcomes.py BASE_URL MODEL [--any-model]: what the `openai` client makes of this endpoint, one JSON line per scene.

Run by the Python of scripts/engines. What differs from one call to the next anyway (ids, times) is masked; everything else is
printed, so that two endpoints that behave alike print the same lines. --any-model leaves out the scene with a wrong model
name, for an engine that does not look at the name.
"""
import asyncio
import json
import sys
import time

import openai
from httpcore2._backends import sync

MASKED = {"id", "created", "timings", "system_fingerprint", "cached_tokens", "request_id"}
QUESTION = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Tell me about supervisors."}]
GREEDY = {"temperature": 0, "seed": 7}

# As the client does by default: llama-server closes idle connections, and asked directly it may do so just as it is asked.
RETRIES = 2

TRIES = 10                             # of a scene in which the machine did not keep the client's time
LATE = 0.5                             # seconds after a read's own limit
overslept = []


def plain(value):
    """A response object as JSON, without what no two calls share."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {key: "…" if key in MASKED and item is not None else plain(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def joined(chunks):
    """A stream as one value: how the text is cut into chunks is chance, all else is not."""
    chunks = [plain(chunk) for chunk in chunks]
    if not chunks:
        return {"chunks": 0}
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join((choice.get("delta") or {}).get("content") or choice.get("text") or "" for choice in choices)
    return {
        "text": text,
        "roles": [choice["delta"]["role"] for choice in choices if (choice.get("delta") or {}).get("role")],
        "finish": [choice["finish_reason"] for choice in choices if choice.get("finish_reason")],
        "usage": [chunk["usage"] for chunk in chunks if chunk.get("usage")],
        "models": sorted({chunk["model"] for chunk in chunks}),
        "objects": sorted({chunk["object"] for chunk in chunks}),
        "fields": sorted({key for chunk in chunks for key in chunk}),
    }


def failure(error, whose_words):
    """An exception of the client. Where mainstay answers itself, the words are its own and only the kind is compared."""
    outcome = {"raised": type(error).__name__, "status": getattr(error, "status_code", None)}
    if whose_words == "engine":
        outcome["body"] = plain(getattr(error, "body", None))
    return outcome


def scenes(client, model):
    """name → (call, whose words an error has)."""
    def chat(**more):
        return client.chat.completions.create(**{"model": model, "messages": QUESTION, "max_tokens": 16, **GREEDY, **more})

    def complete(**more):
        return client.completions.create(model=model, prompt="The supervisor", max_tokens=16, **GREEDY, **more)

    return {
        "chat": (chat, "engine"),
        "chat, stream": (lambda: joined(chat(stream=True)), "engine"),
        "chat, stream with usage": (lambda: joined(chat(stream=True, stream_options={"include_usage": True})), "engine"),
        "chat, max_completion_tokens": (lambda: chat(max_tokens=None, max_completion_tokens=5), "engine"),
        "chat, stop": (lambda: chat(stop=["is"], max_tokens=40), "engine"),
        "chat, two choices": (lambda: chat(n=2), "engine"),
        "chat, logprobs": (lambda: len(chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content), "engine"),
        "chat, one token": (lambda: chat(max_tokens=1), "engine"),
        "completion": (complete, "engine"),
        "completion, stream": (lambda: joined(complete(stream=True)), "engine"),
        "content type": (lambda: client.chat.completions.with_raw_response.create(
            model=model, messages=QUESTION, max_tokens=1).headers["content-type"].split(";")[0], "engine"),
        "content type of a stream": (lambda: client.chat.completions.with_raw_response.create(
            model=model, messages=QUESTION, max_tokens=1, stream=True).headers["content-type"].split(";")[0], "engine"),
        "the model is listed": (lambda: model in [entry.id for entry in client.models.list()], "engine"),
        "context too long": (lambda: chat(messages=[{"role": "user", "content": "word " * 20000}]), "engine"),
        "bad temperature": (lambda: chat(temperature="hot"), "engine"),
        "bad messages": (lambda: chat(messages="hello"), "engine"),
        "bad messages, stream": (lambda: joined(chat(messages="hello", stream=True)), "engine"),
        "unknown model": (lambda: chat(model="no-such-model"), "own"),
        "unknown path": (lambda: client.post("/no/such/path", cast_to=object, body={}), "own"),
        "out of time": (lambda: client.with_options(timeout=0.2, max_retries=0).chat.completions.create(
            model=model, messages=QUESTION, max_tokens=3000), "own"),
    }


def show(name, outcome):
    print(json.dumps({"scene": name, **outcome}, ensure_ascii=False), flush=True)


def play(name, call, whose_words):
    for _ in range(TRIES):
        overslept.clear()
        began = time.monotonic()
        try:
            outcome = {"result": plain(call())}
        except openai.OpenAIError as error:
            outcome = failure(error, whose_words)
        # Not compared; for whoever wonders about a difference.
        print(f"{time.monotonic() - began:8.3f} s  {name}", file=sys.stderr, flush=True)
        if not overslept:
            break
        print(f"            asked again: the machine woke the client {max(overslept):.1f} s after its own time limit",
              file=sys.stderr, flush=True)
    show(name, outcome)


def watch_the_clock():
    """Notes each read that came back with data although its own time limit was over by then.

    No endpoint can cause that, also none that trickles: the kernel ends a read at its limit, whoever is at the other end. A
    machine with two cores that compute can: here plain reads with a limit of 0.2 s were seen to be woken after ten seconds.
    Such a scene says nothing of the endpoint.
    """
    read = sync.SyncStream.read

    def measured(stream, max_bytes, timeout=None):
        began = time.monotonic()
        data = read(stream, max_bytes, timeout)
        late = time.monotonic() - began - (timeout if timeout is not None else float("inf"))
        if late > LATE:
            overslept.append(late)
        return data
    sync.SyncStream.read = measured


async def asynchronous(base_url, model):
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=RETRIES, timeout=120) as client:
        request = {"model": model, "messages": QUESTION, "max_tokens": 16, **GREEDY}
        show("async chat", {"result": plain(await client.chat.completions.create(**request))})
        stream = await client.chat.completions.create(**request, stream=True)
        show("async chat, stream", {"result": joined([chunk async for chunk in stream])})
        stream = await client.chat.completions.create(**{**request, "max_tokens": 2000}, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()
        show("async chat, stream closed early", {"result": "closed"})
        many = await asyncio.gather(*(client.chat.completions.create(**request) for _ in range(6)))
        show("async chat, six at once", {"result": sorted({answer.choices[0].finish_reason for answer in many})})
        try:
            await client.chat.completions.create(**{**request, "messages": "hello"})
        except openai.OpenAIError as error:
            show("async chat, bad messages", failure(error, "engine"))


def main():
    base_url, model, *flags = sys.argv[1:]
    watch_the_clock()
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=RETRIES, timeout=120)
    for name, (call, whose_words) in scenes(client, model).items():
        if name != "unknown model" or "--any-model" not in flags:
            play(name, call, whose_words)
    asyncio.run(asynchronous(base_url, model))


if __name__ == "__main__":
    main()
