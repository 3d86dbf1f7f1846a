#!/usr/bin/env python3
"""hostile_ways.py HOST PORT SECONDS WAY,…: what hostile.py runs beside its ordinary clients.

Prints how often each way was taken. Each is a loop in a thread of its own, with an address of its own (127.0.1.N), and takes
its turns at a pace that leaves the machine to those who are measured.
"""
import contextlib
import gzip
import json
import random
import resource
import sys
import threading
import time

import talk

MIB = 1 << 20
FORM = [("Host", "x"), ("Content-Type", "application/json")]


def many_descriptors():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Way:
    """What one attacker has to work with; `turn` is how often it came round."""

    def __init__(self, address, source, until):
        self.address, self.source, self.until, self.turns = address, source, until, 0

    def left(self):
        return max(0.0, self.until - time.monotonic())

    def pause(self, seconds):
        time.sleep(min(seconds, self.left()))

    def ask(self, **how):
        return talk.ask(self.address, source=self.source, timeout=max(0.1, min(10, self.left())), **how)

    @contextlib.contextmanager
    def hold(self, count, seconds, data=b"", apart=0.0):
        """So many connections that each sent `data`, one `apart` from the other; all of them for so long."""
        held = []
        try:
            for _ in range(count):
                with contextlib.suppress(OSError):
                    held.append(talk.Talk(self.address, self.source, timeout=5))
                    held[-1].send(data)
                self.pause(apart)
            yield held
            self.pause(seconds)
        finally:
            for one in held:
                one.close()


def pages(way):
    """A page of another origin, and one under a rebound name."""
    for origin, host in (("https://evil.example", "127.0.0.1"), ("http://rebound.example", "rebound.example")):
        way.ask(fields=[("Origin", origin), ("Host", host), ("Content-Type", "text/plain")])
    way.pause(0.1)


def poison(way):
    """Requests at which each engine that is asked fails."""
    for fault in ("500", "reset"):
        way.ask(body=talk.chat(f"fault:{fault}", seed=random.randrange(1 << 30)))
    way.pause(0.2)


def withheld(way):
    """Large bodies whose last byte does not come."""
    size = 32 * MIB
    with way.hold(9, 8, talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", size)])) as held:
        for one in held:
            with contextlib.suppress(OSError):
                for _ in range(31):
                    one.send(b"[" * MIB)


def keys(way):
    """A body that is nothing but keys."""
    way.ask(body=b'{"messages":[],"x":{' + b",".join(b'"%d":0' % n for n in range(500_000)) + b"}}")
    way.pause(2)


def nested(way):
    """Brackets without an end, as JSON and as words."""
    for body in (b"[" * 500_000, b'{"messages":' + b'[{"a":' * 60_000, b'{"model":"' + b"\\u0000" * 50_000 + b'"}'):
        way.ask(body=body)
    way.pause(0.5)


def halves(way):
    """Answers that stop in the middle of an event."""
    body = talk.chat("fault:half", stream=True)
    with way.hold(6, 2, talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", len(body))]) + body, apart=0.4):
        pass
    way.pause(2)


def hang_ups(way):
    """Clients that hang up, after they sent more than their request."""
    body = talk.chat("fault:paced", stream=True, max_tokens=10_000)
    head = talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", len(body))])
    for extra in (b"x", b"\r\n", head + body):
        with contextlib.suppress(OSError), talk.Talk(way.address, way.source, timeout=5) as client:
            client.send(head + body + extra)
            client.socket.recv(1)
    way.pause(0.2)


def deaf(way):
    """Clients that do not read what they asked for."""
    body = talk.chat("fault:paced", stream=True, max_tokens=10_000)
    with way.hold(20, 5, talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", len(body))]) + body):
        pass


def idle(way):
    """Connections that do nothing, and heads that do not end."""
    with way.hold(300, 0), way.hold(300, 2, talk.head("POST", talk.CHAT, FORM)[:-2]):
        pass


def floods(way):
    """Connections that come and go."""
    for _ in range(50):
        with way.hold(1, 0, talk.head("GET", "/v1/models", FORM)):
            pass
    way.pause(0.5)


JUNK = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", 5), ("Content-Length", 6)]) + b"{}",
    talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", 5), ("Transfer-Encoding", "chunked")]) + b"0\r\n\r\n",
    talk.head("POST", talk.CHAT, [*FORM, ("Transfer-Encoding", "chunked")]) + b"fffffffffffffffff\r\n",
    talk.head("POST", talk.CHAT, [*FORM, ("Transfer-Encoding", "chunked")]) + b"-1\r\n{}\r\n",
    talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", "-1")]),
    talk.head("POST", talk.CHAT, [*FORM, ("Content-Length", "9" * 30)]),
    talk.head("POST", talk.CHAT, [*FORM, *(("X-Mainstay-Via", "a" * 200) for _ in range(90))]),
    talk.head("GET", "/" + "a" * 100_000, FORM), talk.head("OPTIONS", "*", FORM), talk.head("CONNECT", "10.0.0.1:22", FORM),
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000,
]


def junk(way):
    """What is not HTTP, or not quite."""
    for data in JUNK:
        with contextlib.suppress(OSError), talk.Talk(way.address, way.source, timeout=1) as client:
            client.send(data)
            client.socket.recv(4096)
    way.pause(0.2)


def odd(way):
    """Requests that are well formed, and meant badly."""
    for how in ({"path": "/sleep"}, {"path": "/v1/responses/../sleep"}, {"path": "/tokenize", "body": b"{" * 1000},
                {"fields": [("Content-Encoding", "gzip")], "body": gzip.compress(b"{" * 10 * MIB)},
                {"fields": [("X-Mainstay-Via", "me, you, me")]}, {"fields": [("X-Request-Id", "\x1b]0;x" + "a" * 5000)]},
                {"body": talk.chat(n=10**9, max_tokens=10**18, best_of=10**9)}, {"body": talk.chat(model="\u202e" * 10_000)}):
        with contextlib.suppress(UnicodeEncodeError):
            way.ask(**how)
    way.pause(0.3)


WAYS = {way.__name__: way for way in (pages, poison, withheld, keys, nested, halves, hang_ups, deaf, idle, floods, junk, odd)}


def loop(way, act):
    while way.left():
        with contextlib.suppress(OSError):
            act(way)
        way.turns += 1


def main():
    host, port, seconds, only = sys.argv[1:]
    many_descriptors()
    until = time.monotonic() + float(seconds)
    ways = {name: Way((host, int(port)), f"127.0.1.{number}", until)
            for number, name in enumerate(WAYS, 1) if name in only.split(",")}
    threads = [threading.Thread(target=loop, args=(way, WAYS[name]), daemon=True) for name, way in ways.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until + 20 - time.monotonic()))
    print(json.dumps({name: way.turns for name, way in ways.items()}), flush=True)


if __name__ == "__main__":
    main()
