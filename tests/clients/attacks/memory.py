"""2.3 to 2.5: bodies that are withheld, bodies that are hard to parse, answers that stop, and memory that is to come back."""
import contextlib
import threading
import time

import faulty
import rig as rigs
import talk

from . import lost
from .poison import Beside

MIB = 1 << 20
BODY = 32 * MIB                        # as `max_body` is by default
BLOCK = b"x" * MIB
SOURCES = [f"127.0.0.{n}" for n in range(2, 18)]


def large(size, stop_before=0):
    """The head and the pieces of a body of this size; the last bytes may be left out."""
    begin, end = b'{"messages":[{"role":"user","content":"a large question"}],"max_tokens":2,"user":"', b'"}'
    head = talk.head("POST", talk.CHAT, [("Host", "x"), ("Content-Type", "application/json"), ("Content-Length", size)])
    left = size - len(begin) - len(end)
    pieces = [head + begin, *([BLOCK] * (left // MIB)), BLOCK[:left % MIB], end]
    if stop_before:
        pieces[-1] = end[:-stop_before]
    return pieces


class Withheld:
    """Connections whose bodies do not end; `drip` sends a byte a second instead of none."""

    def __init__(self, address, count, drip=False):
        self.talks = [talk.Talk(address, SOURCES[n % len(SOURCES)], timeout=8) for n in range(count)]
        self.drip, self.over, self.replies = drip, threading.Event(), []
        self.senders = [threading.Thread(target=self._send, args=(one,), daemon=True) for one in self.talks]

    def _send(self, one):
        with contextlib.suppress(OSError):
            # A drip has the last piece of the filling to come.
            for piece in large(BODY, 1)[:-2 if self.drip else None]:
                one.send(piece)
            while self.drip and not self.over.wait(1):
                one.send(b"x")

    def __enter__(self):
        for sender in self.senders:
            sender.start()
        if not self.drip:
            for sender in self.senders:
                sender.join(20)
        else:
            self.over.wait(5)
        return self

    def __exit__(self, *_):
        self.over.set()
        for one in self.talks:
            one.close()

    def outcomes(self, seconds):
        """The status that each connection got, or 0, after at most so long."""
        until, found = time.monotonic() + seconds, []
        for one in self.talks:
            one.socket.settimeout(max(0.05, until - time.monotonic()))
            found.append(one.reply().status)
        return found


def held_bodies(rows):
    """16 bodies of 32 MiB whose last byte does not come"""
    with rows.agent([rigs.fake("a")]) as rig:
        at = rig.address
        with Withheld(at, 16) as withheld, Beside(at, clients=2, pause=0.2) as beside:
            replies = [talk.ask(at, body=talk.chat("an ordinary question"), timeout=5) for _ in range(20)]
            rows.case("20 ordinary requests", lambda: none_lost(replies))
            padded = [talk.ask(at, body=talk.chat("x" * 200_000), timeout=5) for _ in range(5)]
            rows.case("5 requests of 200 kB", lambda: none_lost(padded))
            rows.case("a body of 8 MiB that flows", lambda: flows(at))
            rows.case("/health says 200", lambda: ((reply := talk.get(at, "/health")).status == 200, str(reply)))
            found = withheld.outcomes(45)
        rows.case("each was told 408 (or 503 when it had to go) within 45 s",
                  lambda: (408 in found and set(found) <= {408, 413, 429, 503}, f"{found}"))
        rows.case("ordinary requests all the while", beside.verdict)


def none_lost(replies):
    return not lost(replies), f"lost {len(lost(replies))} of {len(replies)} {sorted(set(lost(replies)))}"


def flows(address):
    with talk.Talk(address, timeout=15) as client:
        for piece in large(8 * MIB):
            client.send(piece)
        reply = client.reply()
    return reply.status == 200, f"{reply} in {reply.seconds:.1f} s"


def dripping_bodies(rows):
    """16 bodies of 32 MiB that come to an end a byte a second"""
    with rows.agent([rigs.fake("a")]) as rig:
        with Withheld(rig.address, 16, drip=True), Beside(rig.address, clients=2, pause=0.2) as beside:
            rows.case("a body of 8 MiB that flows", lambda: flows(rig.address))
            replies = [talk.ask(rig.address, body=talk.chat("an ordinary question"), timeout=5) for _ in range(20)]
            rows.case("20 ordinary requests", lambda: none_lost(replies))
        rows.case("ordinary requests all the while", beside.verdict)


# ---- 2.4 -------------------------------------------------------------------------------------------------------------------

class Pace:
    """A stream with a token every 20 ms; the largest pause between two that came."""

    def __init__(self, address):
        self.talk = talk.Talk(address, timeout=30)
        self.talk.request(body=talk.chat(stream=True, max_tokens=100_000))
        self.largest, self.total, self._over = 0.0, 0, False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        last = time.monotonic()
        with contextlib.suppress(OSError):
            while self.talk.socket.recv(65536):
                now = time.monotonic()
                if self.total:
                    self.largest = max(self.largest, now - last)
                last, self.total = now, self.total + 1

    def over(self, seconds, until=lambda: False):
        """The largest pause from now on, in seconds."""
        self.largest = 0.0
        talk.within(seconds, until)
        return self.largest


def large_json(rows):
    """two bodies of 23 MB with two million keys, beside a stream"""
    keys = b",".join(b'"%07d":0' % n for n in range(2_000_000))
    body = b'{"messages":[{"role":"user","content":"keys"}],"max_tokens":2,"metadata":{' + keys + b"}}"
    with rows.agent([rigs.fake("a", {"tokens": 100_000, "token_ms": 20})]) as rig:
        pace = Pace(rig.address)
        talk.within(10, lambda: pace.total > 10)
        calm, before = pace.over(3), rigs.memory(rig.agent.pid)
        replies, peaks = [], [before]
        senders = [threading.Thread(target=lambda: replies.append(talk.ask(rig.address, body=body, timeout=60)), daemon=True)
                   for _ in range(2)]
        for sender in senders:
            sender.start()

        def done():
            peaks.append(rigs.memory(rig.agent.pid))
            return len(replies) == 2
        largest, total = pace.over(60, done), pace.total
        rows.case("the stream goes on", lambda: (
            largest < max(1.0, 2 * calm) and total > 10, f"largest gap {largest * 1000:.0f} ms, {calm * 1000:.0f} ms when calm"))
        rows.case("the memory for them", lambda: (
            max(peaks) - before < 512, f"{max(peaks) - before:.0f} MiB more for {2 * len(body) // MIB} MiB of bodies"))
        rows.case("both clients are answered", lambda: (
            len(replies) == 2 and all(reply.status for reply in replies), ", ".join(map(str, replies))))
        pace.talk.close()


# ---- 2.5 -------------------------------------------------------------------------------------------------------------------

def connections(rows):
    """the memory of 8,000 connections that are closed"""
    with rows.agent([rigs.fake("a")]) as rig:
        pid, opened = rig.agent.pid, []
        before = rigs.memory(pid)
        try:
            for number in range(8000):
                one = talk.Talk(rig.address, SOURCES[number % len(SOURCES)], timeout=20)
                opened.append(one)
                one.request("GET", "/v1/models")
            answered = sum(one.reply("GET").status == 200 for one in opened)
            peak = rigs.memory(pid)
        finally:
            for one in opened:
                one.close()
        back = before + 40
        began = time.monotonic()
        fell = talk.within(60, lambda: rigs.memory(pid) < back, 0.25)
        took = time.monotonic() - began
        rows.case("back within a minute", lambda: (
            fell and answered == 8000,
            f"{before:.0f} MiB before, {peak:.0f} with {answered}, {rigs.memory(pid):.0f} after {took:.0f} s"))


def halves(rows):
    """100 answers that stop in the middle of an event of almost 8 MiB"""
    begun = []

    def play(connection, request):
        if "half" in request.prompt:
            faulty.half_an_event(connection, lambda: begun.append(request))
        faulty.well(connection, request)

    with faulty.Upstream(play) as upstream, rows.agent([upstream.tier("far", timeouts={"first_content": "60s"})]) as rig:
        pid, peak, clients = rig.agent.pid, [], []
        before = rigs.memory(pid)
        try:
            for _ in range(100):
                clients.append(talk.Talk(rig.address, timeout=10).request(body=talk.chat("half an answer", stream=True)))

            def all_sent():
                peak.append(rigs.memory(pid))
                return len(begun) >= 100
            talk.within(30, all_sent, 0.1)
            reply = talk.ask(rig.address)
            held = max(peak) - before
            # Their budget is 256 MiB; what is in the middle of growing comes on top.
            rows.case("what they hold", lambda: (held < 512, f"{held:.0f} MiB for {len(begun)} answers"))
            rows.case("an ordinary client beside them", lambda: (reply.status == 200, str(reply)))
        finally:
            for client in clients:
                client.close()
        fell = talk.within(60, lambda: rigs.memory(pid) < before + 40, 0.25)
        rows.case("back within a minute", lambda: (fell, f"{rigs.memory(pid):.0f} MiB, {before:.0f} before"))


SCENES = [("2.3", held_bodies), ("2.3", dripping_bodies), ("2.4", large_json), ("2.5", connections), ("2.5", halves)]
