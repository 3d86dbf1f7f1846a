#!/usr/bin/env python3
"""Engines that hang (SIGSTOP stands in for a stuck device), and one that is only busy.

  hangs.py [--only vllm-core,ollama-runner,llama-server,queue] [--queue-seconds 180]

Hung, with requests in flight: all of the engine's own health answers go on saying 200, and Ollama's runner then blocks every
load. Prints when traffic moved to another tier (meant: `silence` + 6 s) and when the engine, or just its runner, was killed
(meant: `suspect` after that, and 5 s more where it gets TERM first and does not react) and replaced. Between the two the
tier must not come back, whatever its health answers say.
Busy: llama-server with one slot and 40 long requests in its queue must never be DOWN and never be restarted.
"""
import argparse
import asyncio
import dataclasses
import os
import signal
import time

import faults
import rig as rigs
import wire

SILENCE, SUSPECT = 5, 10
TIMES = {"silence": f"{SILENCE}s", "suspect": f"{SUSPECT}s"}
MEANT = SILENCE + 6
GRACE_OF_A_FAILURE = 5                 # as src/policy/engine/stopping.rs has it: between TERM and KILL of an engine that failed
SLACK = 45                             # for a loaded machine: without its guard none of this would ever happen


@dataclasses.dataclass
class Hang:
    name: str
    tier: str
    victim: object
    above: tuple = ()
    long: int = 1000                   # tokens of a stream that is not over before the hang is proven
    inner: bool = False                # replacing the victim alone is right as well: it is killed at once

    @property
    def killed(self):
        """Seconds after which the victim is meant to be killed. One that is stopped does not react to TERM."""
        return MEANT + SUSPECT + (0 if self.inner else GRACE_OF_A_FAILURE)


HANGS = [
    Hang("vllm-core", "primary", faults.child_of("primary", "VLLM::EngineCor"), long=3500),
    Hang("ollama-runner", "small", faults.child_of("small", "llama-server"), above=("primary",), inner=True),
    Hang("llama-server", "cpu", faults.main_of("cpu"), above=("primary", "small")),
]


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join([*(hang.name for hang in HANGS), "queue"]))
    parser.add_argument("--queue-seconds", type=float, default=180)
    parser.add_argument("--keep", action="store_true", help="keep the agent's folder")
    return parser.parse_args()


def ask(rig, **request):
    return asyncio.create_task(wire.ask(rig.address, wire.chat("assistant", **request), timeout=300))


def alive(pid, began):
    stat = rigs.stat_of(pid)
    return stat is not None and stat[1] != "Z" and stat[3] == began


class Watch:
    """What became of the tier and of the stopped process, and when, in seconds since the SIGSTOP."""

    def __init__(self, rig, case, victim):
        self.rig, self.case, self.victim = rig, case, victim
        self.began = rigs.stat_of(victim)[3]
        self.run = rig.tier(case.tier)["process"]["run"]
        self.stopped = time.monotonic()
        self.out = self.killed = self.replaced = None
        self.relapses = 0              # times that the tier was in the routes again with the stopped process in it
        self._routable = True

    def over(self):
        """Looks once; true when the tier is whole again."""
        tier, now = self.rig.tier(self.case.tier), time.monotonic() - self.stopped
        hung = alive(self.victim, self.began)
        if not tier["routable"]:
            self.out = self.out or now
        elif hung and not self._routable:
            self.relapses += 1
        self._routable = tier["routable"]
        if not hung:
            self.killed = self.killed or now
            ready = tier["process"]["state"] == "ready" and tier["routable"]
            if ready and (self.case.inner or tier["process"]["run"] > self.run):
                self.replaced = now
        return self.replaced is not None


async def hang(rig, case):
    """Stops the victim with requests in flight; returns the Watch and the answers: to clients that had no content yet, to
    clients that had some, and to clients that came later."""
    reached = []
    streams = [asyncio.create_task(wire.ask(rig.address, wire.chat("assistant", stream=True, max_tokens=case.long), timeout=300,
                                            on_content=reached.append)) for _ in range(2)]
    await faults.wait_for(rig, f"{case.tier} streams", lambda: any(answer.tier == case.tier for answer in list(reached)), 60)
    waiting = [ask(rig, stream=False, max_tokens=100) for _ in range(2)]
    await asyncio.sleep(0.1)           # they are at the engine, and not answered yet
    victim = case.victim(rig)
    os.kill(victim, signal.SIGSTOP)
    watch, later = Watch(rig, case, victim), []

    async def ask_on():                # new clients, one a second
        while True:
            later.append(ask(rig, stream=True, max_tokens=20))
            await asyncio.sleep(1)

    asking = asyncio.create_task(ask_on())
    try:
        await faults.wait_for(rig, f"{case.tier} is replaced", watch.over, 300)
    finally:
        asking.cancel()
    return watch, *[[await task for task in tasks] for tasks in (waiting, streams, later)]


def report(case, checks, watch, waiting, streams, later):
    answered = [answer for answer in later if answer.first_content]
    moved = min((answer.first_content - watch.stopped for answer in answered), default=float("inf"))
    slowest = max((answer.first_content - answer.started for answer in answered), default=float("inf"))
    print(f"  {case.name}: traffic moved after {moved:.1f} s (meant: {MEANT} s), no new client waited longer than {slowest:.1f} s; "
          f"killed after {watch.killed:.1f} s (meant: {case.killed} s), whole again after {watch.replaced:.1f} s")
    print(f"  in flight: {[(answer.ending, answer.tier, round(answer.seconds, 1)) for answer in [*waiting, *streams]]}")
    checks.that(moved < MEANT + SLACK, f"{case.name}: traffic moved to another tier")
    checks.that(watch.relapses == 0, f"{case.name}: the hung tier stayed out of the routes ({watch.relapses} relapses)")
    checks.that(watch.killed < MEANT + SUSPECT + SLACK, f"{case.name}: what hung was killed")
    checks.that(all(answer.ending == "done" for answer in waiting), f"{case.name}: who had no content was answered by another tier")
    checks.that(all(answer.ending in ("done", "error-event") for answer in streams),
                f"{case.name}: who had content got the rest of it, or an error event")
    checks.that(all(answer.ending == "done" for answer in later), f"{case.name}: every new client was answered")


async def run_hangs(rig, cases, checks, names):
    for case in cases:
        print(f"SIGSTOP of {case.name}", flush=True)
        for name in case.above:
            if name in names and rig.state(name) != "stopped":
                rig.post(f"/v1/tiers/{name}/stop")
                await faults.wait_for(rig, f"{name} stopped", lambda name=name: rig.state(name) == "stopped", 90)
        await asyncio.to_thread(rig.until_ready, *(name for name in names if name not in case.above))
        report(case, checks, *await hang(rig, case))


async def run_queue(rig, checks, seconds):
    """40 long requests at a time at one slot, each longer than `silence`, for so many seconds."""
    await asyncio.to_thread(rig.until_ready, "cpu")
    before = rig.tier("cpu")["process"]
    answers, healths, until = [], {}, time.monotonic() + seconds

    async def client():
        while time.monotonic() < until:
            answers.append(await wire.ask(rig.address, wire.chat("assistant", stream=False, max_tokens=300), timeout=600))

    clients = [asyncio.create_task(client()) for _ in range(40)]
    # On a machine that is loaded by others even the first answer may take longer than the time that was asked for.
    while time.monotonic() < until or (not answers and time.monotonic() < until + 120):
        tier = await asyncio.to_thread(rig.tier, "cpu")
        healths[tier["health"]] = healths.get(tier["health"], 0) + 1
        await asyncio.sleep(0.25)
    after = rig.tier("cpu")["process"]
    for task in clients:               # the rest of the queue hangs up
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    print(f"  {len(answers)} answered in {seconds:.0f} s with 40 asking; health seen: {healths}")
    checks.that("down" not in healths, "queue: never DOWN")
    checks.that(after["run"] == before["run"] and after["restarts"] == before["restarts"], "queue: never restarted")
    checks.that(answers and all(answer.ending == "done" for answer in answers), "queue: whoever's turn came was answered")


def main():
    asked = options()
    only = asked.only.split(",")
    cases = [case for case in HANGS if case.name in only]
    checks = rigs.Checks()
    if cases:
        chain = [rigs.vllm("primary", **TIMES), rigs.ollama("small", model="slow", **TIMES),
                 rigs.llama("cpu", model="slow", **TIMES), rigs.llama("floor", **TIMES)]
        best = min(index for index, tier in enumerate(chain) if any(tier["name"] == case.tier for case in cases))
        chain = chain[best:]           # those above would only be stopped
        chain[0]["aliases"] = ["assistant"]
        names = [tier["name"] for tier in chain]
        with checks.running(rigs.Rig(chain, keep=asked.keep)) as rig:
            asyncio.run(run_hangs(rig, cases, checks, names))
    if "queue" in only:
        print(f"40 long requests at one slot, {asked.queue_seconds:.0f} s", flush=True)
        tier = rigs.llama("cpu", model="slow", slots=1, aliases=["assistant"], **TIMES)
        with checks.running(rigs.Rig([tier], keep=asked.keep)) as rig:
            asyncio.run(run_queue(rig, checks, asked.queue_seconds))
    checks.end()


if __name__ == "__main__":
    main()
