#!/usr/bin/env python3
"""Does the `openai` client see the same through mainstay as from the engine itself?

Runs outcomes.py against the very engines of a running agent, each asked directly and through the endpoint, for vLLM and for
llama-server. The difference must be empty but for the field that the contract adds, `_backend`.

  same.py [--only vllm,llama-server]
"""
import argparse
import difflib
import json
import pathlib
import subprocess

import rig as rigs

ADDED = {"_backend"}                   # of answers that are not weakened
OUTCOMES = pathlib.Path(__file__).with_name("outcomes.py")


def without_added(value):
    if isinstance(value, dict):
        return {key: without_added(item) for key, item in value.items() if key not in ADDED}
    if isinstance(value, list):
        return [without_added(item) for item in value if not (isinstance(item, str) and item in ADDED)]
    return value


def outcomes(base_url, model, flags):
    run = subprocess.run([rigs.engines()["MAINSTAY_PYTHON"], OUTCOMES, base_url + "/v1", model, *flags],
                         capture_output=True, text=True, timeout=600)
    if run.returncode:
        raise rigs.Failed(f"outcomes.py at {base_url}: {run.stderr[-2000:]}")
    return [json.loads(line) for line in run.stdout.splitlines()], run.stderr


def lines(scenes):
    return [json.dumps(without_added(scene), ensure_ascii=False, indent=1) for scene in scenes]


def compare(rig, checks, name, tier, flags=()):
    found = rig.tier(tier)
    front = f"http://{rig.address[0]}:{rig.address[1]}"
    outcomes(found["url"], found["model"], flags)              # fills the engine's own prompt cache
    (direct, took), (through, took_through) = (outcomes(url, found["model"], flags) for url in (found["url"], front))
    difference = list(difflib.unified_diff("\n".join(lines(direct)).splitlines(), "\n".join(lines(through)).splitlines(),
                                           f"{name}, asked directly", f"{name}, through mainstay", lineterm="", n=2))
    raised = sorted({scene["raised"] for scene in through if "raised" in scene})
    print(f"  {name}: {len(direct)} scenes, exceptions among them: {', '.join(raised)}")
    print("\n".join("    " + line for line in difference[:80]), end="\n" if difference else "")
    if difference:
        print(f"how long each scene took, asked directly:\n{took}and through mainstay:\n{took_through}", end="")
    checks.that(not difference, f"{name}: the client sees the same through mainstay")
    marked = [scene for scene in through if any(field in json.dumps(scene) for field in ADDED)]
    checks.that(marked, f"{name}: answers name the tier")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="vllm,llama-server")
    only = parser.parse_args().only.split(",")
    checks = rigs.Checks()
    tiers = [tier for name, tier in (("vllm", rigs.vllm("primary")), ("llama-server", rigs.llama("cpu"))) if name in only]
    with checks.running(rigs.Rig(tiers)) as rig:
        rig.until_ready(*(tier["name"] for tier in tiers))
        if "vllm" in only:
            compare(rig, checks, "vLLM", "primary")
        if "llama-server" in only:
            if "vllm" in only:
                rig.post("/v1/tiers/primary/stop")
                rig.until("primary is stopped", lambda: rig.state("primary") == "stopped", 90)
            compare(rig, checks, "llama-server", "cpu", ["--any-model"])
    checks.end()


if __name__ == "__main__":
    main()
