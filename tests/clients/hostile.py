#!/usr/bin/env python3
"""hostile.py [--seconds 60] [--only pages,poison,…]: clients hostile in every way at once, beside twenty ordinary ones.

Ten streaming and ten other clients ask over and over, first alone and then beside all of hostile_ways.py, which runs in a
process of its own from addresses of its own. No ordinary request may be lost; the 99th percentile of their time may be twice
that of the calm (or FLOOR, on a machine that others use as well); the agent's memory must be back within a minute.
"""
import argparse
import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys

import faulty
import hostile_ways
import rig as rigs
import talk
import wire

CALM = 10                              # seconds
FLOOR = 0.25                           # seconds
BACK = 16                              # MiB over the calm that is not called a leak
WAYS = pathlib.Path(__file__).with_name("hostile_ways.py")


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default=",".join(hostile_ways.WAYS))
    return parser.parse_args()


def p99(answers):
    times = sorted(answer.seconds for _, answer in answers)
    return times[min(len(times) - 1, int(0.99 * len(times)))]


def lost(answers):
    """The endings of ordinary requests that did not get all of an answer, counted."""
    found = {}
    for _, answer in answers:
        if answer.ending != "done":
            word = f"{answer.ending} {answer.status or ''} {answer.error or answer.detail}".strip()
            found[word] = found.get(word, 0) + 1
    return found


async def crowd(address, seconds):
    clients = wire.Crowd(address, streaming=10, other=10, max_tokens=20, pause=0.25)
    await asyncio.sleep(seconds)
    return await clients.stop()


def attack(rig, seconds, only):
    """The ordinary answers beside the attack, what each way did, and the most memory that was seen."""
    words = [str(WAYS), rig.address[0], str(rig.address[1]), str(seconds), only]
    child = subprocess.Popen(["nice", "-n", "5", sys.executable, *words],
                             stdout=subprocess.PIPE, text=True, start_new_session=True)
    peak = [0.0]

    async def both():
        async def watch():
            while True:
                peak[0] = max(peak[0], rigs.memory(rig.agent.pid))
                await asyncio.sleep(0.25)
        watching = asyncio.create_task(watch())
        answers = await crowd(rig.address, seconds)
        watching.cancel()
        return answers
    try:
        answers = asyncio.run(both())
        told, _ = child.communicate(timeout=30)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return answers, json.loads(told or "{}"), peak[0]


def play(checks, rig, seconds, only):
    calm = asyncio.run(crowd(rig.address, CALM))
    before = rigs.memory(rig.agent.pid)
    runs = [tier["process"]["run"] for tier in rig.status()["tiers"]]
    answers, done, peak = attack(rig, seconds, only)
    print(f"  {len(calm)} ordinary requests when calm, {len(answers)} beside the attack; it did: "
          + ", ".join(f"{name} {count}" for name, count in done.items()))
    checks.that(not lost(calm), f"calm: no ordinary request was lost {lost(calm) or ''}")
    checks.that(not lost(answers), f"attacked: no ordinary request was lost {lost(answers) or ''}")
    quiet, loud = p99(calm), p99(answers)
    checks.that(loud < max(2 * quiet, FLOOR), f"p99 of ordinary requests: {quiet * 1000:.0f} ms when calm, "
                f"{loud * 1000:.0f} ms attacked, {loud / quiet:.2f} times")
    missing = [name for name in only.split(",") if not done.get(name)]
    checks.that(not missing, f"each way was taken {missing or ''}")
    talk.within(60, lambda: rigs.memory(rig.agent.pid) < before + BACK, 0.5)
    after = rigs.memory(rig.agent.pid)
    checks.that(after < before + BACK, f"memory: {before:.0f} MiB when calm, {peak:.0f} at most, {after:.0f} within a minute")
    checks.that([tier["process"]["run"] for tier in rig.status()["tiers"]] == runs, "no engine was restarted")
    checks.that(talk.ask(rig.address).tier == "one", "the best tier serves")


def main():
    asked = options()
    hostile_ways.many_descriptors()
    checks = rigs.Checks()
    tiers = [faulty.engine("one", {"pause": 0.01}), faulty.engine("two", {"pause": 0.01}), rigs.fake("three", {"token_ms": 10})]
    with checks.running(rigs.Rig(tiers, {"drain": "1s"}, quiet=True)) as rig:
        rig.until_ready("one", "two", "three", seconds=60)
        play(checks, rig, asked.seconds, asked.only)
    checks.end()


if __name__ == "__main__":
    main()
