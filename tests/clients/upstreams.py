#!/usr/bin/env python3
"""upstreams.py [--only nothing,ends,shapes,still,errors,scenes] [--row WORDS]: an upstream that does wrong.

Against the built program: each row of upstream_rows.py is asked for as a plain request and as a stream, above a healthy tier
and alone, once on a plain socket (wire.py) and once by the `openai` client; each of these must see what the row says. Prints
one line for each row and place, as they come: AT_ONCE rows are played at one time, each with agents of its own. The scenes of
upstream_scenes.py are about more than one request. No real engine is needed, only the Python of scripts/engines, which has
the `openai` client.
"""
import argparse
import asyncio
import concurrent.futures
import contextlib
import itertools
import os

import rig as rigs

PYTHON = rigs.engines()["MAINSTAY_PYTHON"]
if __name__ == "__main__" and os.environ.get("MAINSTAY_UPSTREAMS_SELF") is None:     # again, with the Python that has openai
    os.execve(PYTHON, [PYTHON, *os.sys.argv], {**os.environ, "MAINSTAY_UPSTREAMS_SELF": "1"})

import openai

import faulty
import upstream_rows
import upstream_scenes
import wire
from attacks import Rows

HEALTHY = "said by the healthy one"
PLACES = ("above", "alone")
PATIENCE = 10                          # seconds for one answer
AT_ONCE = 8
numbers = itertools.count()


def question():
    """A prompt that nobody else has."""
    return f"Tell me about supervisors, {next(numbers)}."


def named(row, text):
    """Whose answer this text is."""
    return "low" if text.strip() == HEALTHY else "top" if row.says(text) else f"other text {text[:30]!r}"


def on_a_socket(row, address, streaming):
    body = {"messages": [{"role": "user", "content": question()}], "max_tokens": 8, "stream": streaming}
    answer = asyncio.run(wire.ask(address, body, timeout=PATIENCE))
    if answer.status == 200 and streaming != answer.headers.get("content-type", "").startswith("text/event-stream"):
        return f"a {answer.headers.get('content-type')} for a {'stream' if streaming else 'plain request'}"
    if answer.ending == "done":
        return named(row, answer.text)
    if answer.ending == "error":
        return str(answer.status)
    if answer.ending == "done-without-finish":
        return "no finish_reason"
    return "cut" if answer.ending == "error-event" else answer.ending + (f" ({answer.detail})" if answer.detail else "")


def by_the_client(row, address, streaming):
    """What the `openai` client makes of it, in the same words."""
    url = f"http://{address[0]}:{address[1]}/v1"
    try:
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE) as client:
            answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": question()}], max_tokens=8,
                                                    stream=streaming)
            if not streaming:
                choice = answer.choices[0]
                return named(row, choice.message.content or "") if choice.finish_reason else "no finish_reason"
            chosen = [choice for chunk in answer for choice in chunk.choices or []]
            text = "".join(choice.delta.content or "" for choice in chosen)
            return named(row, text) if any(choice.finish_reason for choice in chosen) else "no finish_reason"
    except openai.APIStatusError as problem:
        return str(problem.status_code)
    except openai.APITimeoutError:
        return "timeout"
    except openai.APIConnectionError as problem:
        return f"connection error: {problem}"
    except openai.APIError:
        return "cut"
    except Exception as problem:       # whatever the client trips over is an outcome
        return f"{type(problem).__name__}: {problem}"


def tiers(row, place, top, low):
    found = [top.tier("top", **{"health": {"interval": "250ms", "failures": 1000}, **row.keys})]
    return found + ([low.tier("low")] if place == "above" else [])


def requests(row, place, address, pool):
    """The requests of a row in one place: (what it is, what is wanted, its outcome in the future)."""
    for kind, streaming in (("plain", False), ("stream", True)):
        if wanted := row.wanted(place, streaming):
            for how, ask in (("socket", on_a_socket), ("openai", by_the_client)):
                yield f"{kind} by {how}", wanted, pool.submit(ask, row, address, streaming)


def play(rows, group, row, low):
    """All requests of a row, in both places, at once."""
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(8))
        asked = {}
        for place in PLACES:
            top = stack.enter_context(faulty.Upstream(row.play))
            rig = stack.enter_context(rows.agent(tiers(row, place, top, low), row.server))
            asked[place] = top, list(requests(row, place, rig.address, pool))
        for place, (top, sent) in asked.items():
            outcomes = [(what, wanted, future.result()) for what, wanted, future in sent]
            wrong = [f"{what}: {got}, not {wanted}" for what, wanted, got in outcomes if got not in wanted.split("|")]
            if not top.asked():
                wrong.append("the upstream was not asked")
            seen = ", ".join(dict.fromkeys(f"{what.split()[0]} {got}" for what, _, got in outcomes))
            rows.that(not wrong, f"{group}: {row.name}, {place}: {'; '.join(wrong) or seen}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*upstream_rows.GROUPS, "scenes"]))
    parser.add_argument("--row", default="", help="only rows whose name holds this")
    asked = parser.parse_args()
    only = asked.only.split(",")
    rows, tasks = Rows(), []

    def play_row(group, row):
        try:
            play(rows, group, row, low)
        except rigs.Failed as problem:
            rows.that(False, f"{group}: {row.name}: {problem}")

    with faulty.Upstream(lambda connection, request: faulty.well(connection, request, HEALTHY)) as low, \
            concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        if "scenes" in only and not asked.row:                 # first, for they take longest
            tasks += [pool.submit(rows.play, number, scene) for number, scene in upstream_scenes.SCENES]
        tasks += [pool.submit(play_row, group, row) for group in upstream_rows.GROUPS if group in only
                  for row in upstream_rows.GROUPS[group] if asked.row in row.name]
        for task in concurrent.futures.as_completed(tasks):
            task.result()
    rows.end()


if __name__ == "__main__":
    main()
