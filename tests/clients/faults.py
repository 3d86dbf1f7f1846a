#!/usr/bin/env python3
"""kill -9 of each real engine, and of its inner process, under 20 streaming and 20 other clients.

One agent with vLLM, Ollama and llama-server, and a second llama-server below them, so that each of the three can be the tier
that serves and still has one to move to: the tiers above it are stopped through the control socket first. For every request
the client notes status, characters of content and ending (wire.py). Wrong is: a request that got no content and a status
other than 200; a stream that was cut and ends cleanly, with [DONE], or without a word; anything left behind.

  faults.py [--seconds 60] [--only vllm-main,ollama,…] [--record FILE] [--no-failover]

With --no-failover the agent's failover is switched off (a fault that only MAINSTAY_TEST_FAULTS=1 allows), and it is the
other way round: the run is good only if those figures are not zero.
"""
import argparse
import asyncio
import contextlib
import dataclasses
import os
import signal
import typing

import rig as rigs
import wire

MUST_BE_ZERO = ("unanswered", "empty", "false ends", "bare cuts", "timeout")


@dataclasses.dataclass
class Fault:
    name: str
    tier: str
    victim: typing.Callable            # rig → the pid to kill
    above: tuple = ()                  # tiers that are stopped meanwhile
    kills: int = 2                     # vLLM takes half a minute to come back, so it is killed once
    inner: bool = False                # the engine's main process may live on


def main_of(tier):
    return lambda rig: rig.pid(tier)


def child_of(tier, comm):
    def find(rig):
        found = rigs.children(rig.pid(tier), comm)
        if not found:
            raise rigs.Failed(f"no {comm} under {tier}")
        return found[0]
    return find


FAULTS = [
    Fault("vllm-main", "primary", main_of("primary"), kills=1),
    Fault("vllm-core", "primary", child_of("primary", "VLLM::EngineCor"), kills=1),
    Fault("ollama", "small", main_of("small"), above=("primary",)),
    Fault("ollama-runner", "small", child_of("small", "llama-server"), above=("primary",), inner=True),
    Fault("llama-server", "cpu", main_of("cpu"), above=("primary", "small")),
]


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of load for each fault")
    parser.add_argument("--only", default=",".join(fault.name for fault in FAULTS))
    parser.add_argument("--record", help="write one line per request to this file")
    parser.add_argument("--no-failover", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the agent's folder")
    return parser.parse_args()


async def wait_for(rig, what, condition, seconds):
    """Rig.until beside the clients."""
    return await asyncio.to_thread(rig.until, what, condition, seconds)


def streams_on(crowd, tier):
    return sum(answer.tier == tier for answer in list(crowd.in_flight.values()))


async def strike(rig, crowd, fault):
    """Kills the victim while it serves streams; returns its pid, how many streams it met, and the condition of being back."""
    await wait_for(rig, f"{fault.tier} serves streams",
                   lambda: rig.status()["serving"] == fault.tier and streams_on(crowd, fault.tier) >= 2, 60)
    before = rig.tier(fault.tier)["process"]["run"]
    pid = fault.victim(rig)
    met = streams_on(crowd, fault.tier)
    os.kill(pid, signal.SIGKILL)

    def back():
        tier = rig.tier(fault.tier)
        process = tier["process"]
        if process["state"] != "ready" or not tier["routable"]:
            return False
        if not fault.inner:
            return process["run"] > before
        with contextlib.suppress(rigs.Failed):
            return fault.victim(rig) != pid
        return False
    return pid, met, back


async def run_fault(rig, fault, seconds, names):
    running = [name for name in names if name not in fault.above]
    for name in fault.above:
        if name in names and rig.state(name) != "stopped":
            rig.post(f"/v1/tiers/{name}/stop")
            await wait_for(rig, f"{name} stopped", lambda name=name: rig.state(name) == "stopped", 90)
    await asyncio.to_thread(rig.until_ready, *running)

    crowd = wire.Crowd(rig.address, model="assistant", streaming=20, other=20, max_tokens=100)
    load_ends = asyncio.create_task(asyncio.sleep(seconds))
    load_ends.add_done_callback(lambda _: crowd.enough())
    struck = 0
    try:
        while struck < fault.kills and not load_ends.done():
            pid, met, back = await strike(rig, crowd, fault)
            struck += 1
            took = await wait_for(rig, f"{fault.tier} is back after kill -9 of {fault.name}", back, 240)
            print(f"  kill -9 of {fault.name} (pid {pid}) met {met} streams; back after {took:.1f} s", flush=True)
        await load_ends
    finally:
        load_ends.cancel()
        answers = await crowd.stop()
    return answers


def report(fault, answers):
    figures = wire.judge(answers)
    slowest = max((answer.seconds for _, answer in answers), default=0.0)
    served = ", ".join(f"{key[3:]} {count}" for key, count in sorted(figures.items()) if key.startswith("on "))
    print(f"  {fault.name}: {figures['requests']} requests, {figures['streams']} of them streams; served by {served}; "
          f"moved unseen {figures['moved']}, whole {figures['done']}, ended by an error event {figures['error-event']}; "
          f"slowest {slowest:.1f} s")
    print("  " + ", ".join(f"{name} {figures[name]}" for name in MUST_BE_ZERO), flush=True)
    odd = [answer for _, answer in answers if answer.ending not in ("done", "error-event")]
    for answer in odd[:5]:
        print(f"    e.g. status {answer.status}, {answer.content} characters, {answer.ending} on {answer.tier} "
              f"after {answer.seconds:.2f} s {answer.error or answer.detail}")
    return figures


def record(path, fault, answers):
    with open(path, "a") as file:
        for stream, answer in answers:
            file.write("\t".join(map(str, (fault.name, "stream" if stream else "whole", answer.status, answer.content,
                                           answer.ending, answer.tier, answer.attempts, f"{answer.seconds:.3f}"))) + "\n")


async def run(rig, chosen, checks, asked, names):
    for fault in chosen:
        print(f"{fault.name}, {asked.seconds:.0f} s of load", flush=True)
        answers = await run_fault(rig, fault, asked.seconds, names)
        figures = report(fault, answers)
        if asked.record:
            record(asked.record, fault, answers)
        wrong = sum(figures[name] for name in MUST_BE_ZERO)
        if asked.no_failover:
            checks.that(wrong > 0, f"{fault.name} without failover: {wrong} requests came to harm, and are seen")
        else:
            checks.that(wrong == 0 and figures["requests"] > 0, f"{fault.name}: no request came to harm")


def main():
    asked = options()
    chosen = [fault for fault in FAULTS if fault.name in asked.only.split(",")]
    chain = [rigs.vllm("primary"), rigs.ollama("small", parallel=4), rigs.llama("cpu"), rigs.llama("floor")]
    # Tiers above the first that is faulted would only be stopped; without failover nobody would get past them.
    best = min(index for index, tier in enumerate(chain) if any(tier["name"] == fault.tier for fault in chosen))
    chain = chain[best:]
    chain[0]["aliases"] = ["assistant"]
    names = [tier["name"] for tier in chain]
    checks = rigs.Checks()
    with checks.running(rigs.Rig(chain, keep=asked.keep)) as rig:
        if asked.no_failover:
            rig.post("/v1/faults/no-failover")
        asyncio.run(run(rig, chosen, checks, asked, names))
    checks.end()


if __name__ == "__main__":
    main()
