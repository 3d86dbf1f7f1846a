#!/usr/bin/env python3
"""prometheus.py: alert rules and metrics with the real Prometheus and promtool of scripts/engines.

First the rules alone: promtool checks them, and provokes each with alerts_test.yml. Then Prometheus scrapes a real
`mainstay run` over fake engines (cargo build --release --example fake_engine), with the same rules made impatient (every
`for` 1 s, every window a minute), while one thing after another goes wrong; each alert has to fire, and to be quiet before.
"""
import contextlib
import http.client
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

import rig as rigs

RULES = rigs.ROOT / "config/alerts.yml"
PATIENCE = 90                     # seconds; far more than any of it takes
QUICK = {"restart": {"base": "100ms", "max": "200ms"}, "stop_grace": "1s",
         "health": {"interval": "200ms", "timeout": "5s"}}
GPU_OOM = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory"


def fake(name, knobs):
    program = pathlib.Path(rigs.binary()).parent / "examples/fake_engine"
    if not program.exists():
        raise rigs.Failed(f"{program} is not there: cargo build --release --example fake_engine")
    return {"name": name, "engine": "llama-server", "model": f"{name}-model", "gpus": [], "command": [str(program)],
            "env": {"FAKE_ENGINE": json.dumps(knobs)}, **QUICK}


def call(address, method, path, body=None):
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def check_rules(tool, folder, checks):
    """promtool on the rules as they are, and on their cases."""
    def run(*arguments):
        done = subprocess.run([tool / "promtool", *arguments], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout + done.stderr)
        return done.returncode == 0
    checks.that(run("check", "rules", str(RULES)), "promtool check rules config/alerts.yml")
    # What a rule says is prose, which the cases need not repeat.
    (folder / "alerts.yml").write_text(re.sub(r" {8}annotations:\n(?: {10}.*\n)+", "", RULES.read_text()))
    shutil.copy(pathlib.Path(__file__).with_name("alerts_test.yml"), folder)
    checks.that(run("test", "rules", "alerts_test.yml"), "promtool test rules: each rule fires when it is provoked")


class Prometheus:
    """A real one, that looks at `target` every half second."""

    def __init__(self, tool, folder, target):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = ("127.0.0.1", probe.getsockname()[1])
        impatient = re.sub(r"\bfor: \S+", "for: 1s", RULES.read_text())
        impatient = re.sub(r"\[\d+[mh]\]", "[1m]", impatient)
        (folder / "impatient.yml").write_text(impatient)
        (folder / "prometheus.yml").write_text(
            "global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }\n"
            "rule_files: [impatient.yml]\nscrape_configs:\n  - job_name: mainstay\n    static_configs:\n"
            f"      - targets: [\"{target[0]}:{target[1]}\"]\n")
        self.log = folder / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [tool / "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address={self.address[0]}:{self.address[1]}", "--log.level=warn"], stdout=log, stderr=log)
        self.until("Prometheus answers", lambda: call(self.address, "GET", "/-/ready")[0] == 200)

    def until(self, what, condition):
        began = time.monotonic()
        while True:
            if self.process.poll() is not None:
                raise rigs.Failed(f"Prometheus ended:\n{self.log.read_text()}")
            with contextlib.suppress(OSError):
                if found := condition():
                    return found
            if time.monotonic() - began > PATIENCE:
                raise rigs.Failed(f"not within {PATIENCE} s: {what}; firing: {sorted(self.firing())}")
            time.sleep(0.1)

    def ask(self, path, **query):
        code, body = call(self.address, "GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        if code != 200:
            raise rigs.Failed(f"{path}: {code} {body.decode(errors='replace')}")
        return json.loads(body)["data"]

    def firing(self):
        """(alert, tier) of each alert that fires."""
        alerts = (alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing")
        return {(alert["labels"]["alertname"], alert["labels"].get("tier", "")) for alert in alerts}

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Scenes:
    """What goes wrong, one after the other, and what has to fire."""

    def __init__(self, rig, prometheus, checks):
        self.rig, self.prometheus, self.checks = rig, prometheus, checks

    def fires(self, alert, tier=""):
        self.prometheus.until(f"{alert} {tier} fires", lambda: (alert, tier) in self.prometheus.firing())
        self.checks.that(True, f"{alert} {tier} fires".replace("  ", " "))

    def settles(self, alert, tier=""):
        self.prometheus.until(f"{alert} {tier} ends", lambda: (alert, tier) not in self.prometheus.firing())

    def turn(self, tier, **knobs):
        url = urllib.parse.urlsplit(self.rig.tier(tier)["url"])
        code, body = call((url.hostname, url.port), "POST", "/knobs", knobs)
        if code != 200:
            raise rigs.Failed(f"the engine does not take {knobs}: {body}")

    def order(self, command, *tiers):
        for tier in tiers:
            self.rig.post(f"/v1/tiers/{tier}/{command}")

    def chat(self, stream=False):
        with contextlib.suppress(http.client.HTTPException):
            call(self.rig.address, "POST", "/v1/chat/completions",
                 {"stream": stream, "messages": [{"role": "user", "content": "hi"}]})

    def a_clean_scrape(self):
        """With the agent away there is one alert; with it there, none that is about the two good tiers."""
        self.fires("MainstayAbsent")
        self.rig.start()
        self.rig.until_ready("best", "spare", seconds=60)
        self.settles("MainstayAbsent")
        target, = self.prometheus.ask("targets")["activeTargets"]
        self.checks.that((target["health"], target["lastError"]) == ("up", ""), f"the scrape is clean: {target['lastError']!r}")
        found = self.prometheus.ask("query", query='scrape_samples_scraped{job="mainstay"}')
        samples = int(found["result"][0]["value"][1])
        self.checks.that(samples > 150, f"{samples} samples are taken in")
        kinds = {name: kinds[0]["type"] for name, kinds in self.prometheus.ask("metadata").items()}
        known = [kinds.get(f"mainstay_{name}") for name in ("requests", "first_content_seconds", "tier_rank", "build")]
        self.checks.that(known == ["counter", "histogram", "gauge", "info"], f"types are known: {known}")

    def engines_that_end(self):
        self.fires("MainstayGpuOutOfMemory", "oom")
        self.fires("MainstayEngineHeld", "oom")
        self.fires("MainstayCrashLoop", "looping")
        self.fires("MainstayMailFailing")          # nobody listens where the relay should be
        quiet = {(alert, tier) for alert, tier in self.prometheus.firing() if tier in ("best", "spare")}
        self.checks.that(not quiet, f"nothing is said of tiers that are well: {quiet}")

    def answers(self):
        self.turn("best", cut_at=2)
        self.chat(stream=True)
        self.fires("MainstayAnswersCut", "best")
        self.turn("best", cut_at=None)
        self.turn("spare", health_ms=2500)
        self.fires("MainstayTierDegraded", "spare")
        self.turn("spare", health_ms=0)

    def tiers_that_go(self):
        self.order("stop", "best")
        self.fires("MainstayLowerTier", "spare")
        others = [tier["name"] for tier in self.rig.status()["tiers"][1:] if tier["process"]["state"] != "stopped"]
        self.order("stop", *others)
        self.fires("MainstayNoTier")
        for _ in range(20):
            self.chat()
        self.fires("MainstayClientsRefused")
        self.order("start", "best", "spare")
        self.rig.until_ready("best", "spare", seconds=60)
        self.settles("MainstayNoTier")
        self.settles("MainstayLowerTier", "spare")
        self.checks.that(True, "and they end when the tiers are back")

    def a_wrong_file(self):
        good = self.rig.config.read_text()
        self.rig.config.write_text(good + "\nno_such_key = 1\n")
        self.rig.agent.send_signal(signal.SIGHUP)
        self.fires("MainstayConfigProblem")
        self.rig.config.write_text(good)
        self.rig.agent.send_signal(signal.SIGHUP)
        self.settles("MainstayConfigProblem")

    def a_stuck_agent(self):
        self.rig.post("/v1/faults/stuck-loop")
        self.fires("MainstayHeartLate")
        self.rig.agent.kill()
        self.rig.agent.wait()
        self.fires("MainstayAbsent")
        began = time.monotonic()
        while rigs.marked(self.rig.mark) and time.monotonic() - began < PATIENCE:
            time.sleep(0.1)           # its shims end the engines
        self.rig.start()
        self.settles("MainstayAbsent")

    def every_rule_was_understood(self):
        rules = [rule for group in self.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        sick = [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
        self.checks.that(rules and not sick, f"{len(rules)} rules are evaluated without errors {sick or ''}")
        said = self.prometheus.log.read_text()
        self.checks.that(not said, "Prometheus warns of nothing")
        print(said, end="")


class LateRig(rigs.Rig):
    """A rig whose agent is started by the first scene, because somebody has to miss it before."""

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.log = open(self.folder / "agent.log", "ab")
        return self


def main():
    tool = pathlib.Path(rigs.engines()["MAINSTAY_PROMETHEUS"])
    if not (tool / "promtool").exists():
        raise SystemExit(f"{tool} is not there: scripts/engines prometheus")
    checks = rigs.Checks()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mainstay-prometheus-"))
    tiers = [fake("best", {}), fake("spare", {}), fake("looping", {"exit_code": 3, "exit_after": 3}),
             fake("oom", {"exit_code": 3, "exit_after": 3, "print_err": [GPU_OOM]})]
    try:
        check_rules(tool, folder, checks)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            mail = {"relay": f"smtp://127.0.0.1:{nobody.getsockname()[1]}", "from": "mainstay@gpu1.example.org",
                    "to": ["oncall@example.org"]}
        with checks.running(LateRig(tiers, server={"drain": "1s"}, mail=mail)) as rig:
            prometheus = Prometheus(tool, folder, rig.address)
            try:
                scenes = Scenes(rig, prometheus, checks)
                scenes.a_clean_scrape()
                scenes.engines_that_end()
                scenes.answers()
                scenes.tiers_that_go()
                scenes.a_wrong_file()
                scenes.a_stuck_agent()
                scenes.every_rule_was_understood()
            finally:
                prometheus.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    checks.end()


if __name__ == "__main__":
    main()
