"""2.1: hosts that are each other's fallback, and one that is its own."""
import contextlib
import json
import os
import socket
import threading

import rig as rigs
import talk

BOUNDS = {"max_connections": 2000, "drain": "1s"}      # a loop that is not seen is bounded by this, for the machine's sake
REFUSALS = (503, 508)


class Forwarder:
    """Another address of an endpoint: what a balancer or a second name of the host is. Counts connections."""

    def __init__(self, port):
        self.target, self.count = ("127.0.0.1", port), 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self.listener.accept()
                self.count += 1
                with contextlib.suppress(OSError):
                    onward = socket.create_connection(self.target, 5)
                    self.pairs.append((taken, onward))
                    for one, other in ((taken, onward), (onward, taken)):
                        threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for end in [end for pair in self.pairs for end in pair]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def peer(name, url, **more):
    return {"name": name, "engine": "remote", "url": url, "model": "m", "health": {"interval": "250ms", "timeout": "2s"}, **more}


def agent(tiers, port):
    return rigs.Rig(tiers, BOUNDS, quiet=True, port=port)


def requests(rig):
    return sum(tier["traffic"]["requests"] for tier in rig.status()["tiers"])


def figures(rig):
    return requests(rig), len(os.listdir(f"/proc/{rig.agent.pid}/fd")), round(rigs.memory(rig.agent.pid))


def small(figures_of):
    return all(count <= 3 and descriptors < 200 and mib < 60 for count, descriptors, mib in figures_of)


def one_request(rows, what, rigs_of, address):
    """One request to a loop: refused at once, and nothing grew."""
    def judge():
        before = [requests(rig) for rig in rigs_of]
        reply = talk.ask(address, timeout=4)
        after = [figures(rig) for rig in rigs_of]
        grown = [(now[0] - then, *now[1:]) for now, then in zip(after, before)]
        return reply.status in REFUSALS and small(grown), \
            f"{reply} in {reply.seconds:.1f} s; (attempts, descriptors, MiB) of each: {grown}"
    rows.case(what, judge)


def health(rig):
    return talk.get(rig.address, "/health", timeout=5).status


def ill(rows, what, *rigs_of, seconds=12):
    rows.case(what, lambda: (talk.within(seconds, lambda: all(health(rig) == 503 for rig in rigs_of), 0.25),
                             f"/health says {[health(rig) for rig in rigs_of]}"))


def two_hosts(rows):
    """two hosts that are each other's fallback"""
    ports = [rigs.free_port(), rigs.free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with agent([peer("b", urls[1])], ports[0]) as one, agent([peer("a", urls[0])], ports[1]) as other:
        ill(rows, "both without engines: both /health say 503", one, other)
        one_request(rows, "both without engines: one request", (one, other), one.address)
        one_request(rows, "both without engines: one request to the other", (one, other), other.address)
        ill(rows, "both without engines: /health after it", one, other)
        rows.case("both without engines: `status` of each exits with 3", lambda: (
            (codes := [rig.command("status").returncode for rig in (one, other)]) == [3, 3], str(codes)))
    rows.nothing_left(one)
    rows.nothing_left(other)


def with_an_engine(rows):
    """two hosts that are each other's fallback, one with an engine"""
    ports = [rigs.free_port(), rigs.free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with agent([rigs.fake("near"), peer("a", urls[0])], ports[1]) as other, agent([peer("b", urls[1])], ports[0]) as one:
        other.until_ready("near", seconds=30)
        talk.within(15, lambda: talk.ask(one.address).status == 200)
        rows.case("the host without an engine is answered by the other", lambda: (
            (reply := talk.ask(one.address)).status == 200, f"{reply} by {reply.tier}"))
        rows.case("both /health say 200", lambda: (
            (found := talk.within(10, lambda: health(one) == health(other) == 200)), f"{[health(one), health(other)]} {found}"))

        def known():
            # The first line names this agent's own version.
            below = one.command("status").stdout.split("\n", 1)[1].replace(str(one.folder), "")
            line = next((line for line in below.splitlines() if "mainstay" in line.lower()), "no line says so")
            return "mainstay" in below.lower() or "mainstay" in json.dumps(one.tier("b")).lower(), line.strip()
        rows.case("the peer is shown as a mainstay", known)
        for via in ("somebody", "somebody, \t,,%%", "a" * 5000):
            rows.case(f"a client's own x-mainstay-via, {via[:20]!r}, harms nobody else", lambda: (
                (reply := talk.ask(one.address, fields=[("X-Mainstay-Via", via)])).status in (200, 400)
                and talk.ask(one.address).status == 200, str(reply)))
        stop(other, "near")
        ill(rows, "the engine is stopped: both /health say 503", one, other)
        one_request(rows, "the engine is stopped: one request", (one, other), one.address)
        other.post("/v1/tiers/near/start")
        other.until_ready("near", seconds=30)
        rows.case("the engine is back: both are answered", lambda: (
            talk.within(35, lambda: talk.ask(one.address).status == talk.ask(other.address).status == 200, 0.25),
            f"{talk.ask(one.address)}, {talk.ask(other.address)}"))
    rows.nothing_left(one)
    rows.nothing_left(other)


def itself(rows):
    """a host that is its own fallback under another address"""
    port = rigs.free_port()
    forwarder = Forwarder(port)
    try:
        with agent([rigs.fake("near"), peer("far", forwarder.url)], port) as rig:
            stop(rig, "near")
            ill(rows, "/health says 503", rig)
            count = forwarder.count
            one_request(rows, "one request", (rig,), rig.address)
            # A check of the tier may have been among them.
            rows.case("and it went out a few times at most", lambda: (
                forwarder.count - count <= 10, f"{forwarder.count - count} connections"))
        rows.nothing_left(rig)
    finally:
        forwarder.close()


def three_hosts(rows):
    """a ring of three hosts, one with an engine"""
    ports = [rigs.free_port() for _ in range(3)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        tiers = [[peer("next", urls[(n + 1) % 3])] for n in range(3)]
        tiers[0].insert(0, rigs.fake("near"))
        ring = [stack.enter_context(agent(tiers[n], ports[n])) for n in range(3)]
        rows.case("all are answered", lambda: (
            bool(talk.within(15, lambda: all(talk.ask(rig.address).status == 200 for rig in ring), 0.25)),
            ", ".join(str(talk.ask(rig.address)) for rig in ring)))
        stop(ring[0], "near")
        ill(rows, "the engine is stopped: all /health say 503", *ring, seconds=20)
        for n in range(3):
            one_request(rows, f"the engine is stopped: one request to host {n + 1}", ring, ring[n].address)
    for rig in ring:
        rows.nothing_left(rig)


def stop(rig, name):
    rig.until_ready(name, seconds=30)
    # The hosts have had time to know each other as healthy.
    talk.within(3, lambda: all(tier["routable"] for tier in rig.status()["tiers"]))
    rig.post(f"/v1/tiers/{name}/stop")
    rig.until(f"{name} is stopped", lambda: rig.state(name) == "stopped", 30)


SCENES = [("2.1", two_hosts), ("2.1", with_an_engine), ("2.1", itself), ("2.1", three_hosts)]
