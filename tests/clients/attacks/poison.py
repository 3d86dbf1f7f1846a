"""2.2: requests that make an engine fail, beside requests that do not."""
import json
import threading
import time

import faulty
import rig as rigs
import talk

from . import lost

SLOW = "an ordinary question, fault:slow"      # half a second each, so that most that happens is not theirs


def poison(kind, **more):
    return talk.chat(f"fault:{kind}", **more)


class Beside:
    """Clients that ask for something ordinary, over and over, until the block ends."""

    def __init__(self, address, clients=4, pause=0.05, text="an ordinary question"):
        self.address, self.pause, self.text, self.replies, self._over = address, pause, text, [], threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(clients)]

    def _ask(self, number):
        while not self._over.wait(self.pause):
            self.replies.append(talk.ask(self.address, body=talk.chat(self.text, seed=number)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        talk.within(10, lambda: len(self.replies) >= len(self.threads))
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self.threads:
            thread.join(15)

    @property
    def lost(self):
        return lost(self.replies)

    def verdict(self):
        words = f"{len(self.replies)} ordinary requests, lost {len(self.lost)} {sorted(set(self.lost)) or ''}"
        return self.replies and not self.lost, words


def every(seconds, a_second, send):
    """Calls `send` so often, in threads; returns what came of each."""
    replies, threads, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until:
        threads.append(threading.Thread(target=lambda: replies.append(send()), daemon=True))
        threads[-1].start()
        time.sleep(1 / a_second)
    for thread in threads:
        thread.join(15)
    return replies


def counted(replies):
    found = {}
    for reply in replies:
        found[str(reply)] = found.get(str(reply), 0) + 1
    return ", ".join(f"{count} × {what}" for what, count in sorted(found.items()))


def downs(rig):
    """Tiers that were said to be down, and whether all were, since the agent's start."""
    rows = [json.loads(line) for line in rig.command("events", "--json").stdout.splitlines()]
    return [f"{row['kind']} {row.get('tier') or ''} {row.get('to') or ''}".strip() for row in rows
            if row["kind"] in ("all-down", "failover") or (row["kind"] == "health" and row.get("to") == "down")]


def never_down(rig):
    found = downs(rig)
    return not found, f"events: {found[:6]}"


def one_tier(rows):
    """one tier, and bad requests beside ordinary ones"""
    for fault in ("500", "reset"):
        with rows.agent([faulty.engine("only", health={"interval": "10s"})]) as rig:
            with Beside(rig.address, clients=2, text=SLOW) as beside:
                replies = every(4, 10, lambda: talk.ask(rig.address, body=poison(fault)))
            rows.case(f"{fault} beside others: the others", beside.verdict)
            rows.case(f"{fault} beside others: the tier was never down", lambda: never_down(rig))
            rows.case(f"{fault}: what the bad client got", lambda: (
                all(reply.status >= 400 for reply in replies), counted(replies)))


def one_tier_alone(rows):
    """one tier, and bad requests with nobody beside"""
    with rows.agent([faulty.engine("only", health={"interval": "10s"})]) as rig:
        replies = every(2, 4, lambda: talk.ask(rig.address, body=poison("500")))
        first = talk.ask(rig.address, body=talk.chat("an ordinary question"))
        rows.case("an ordinary client right after them", lambda: (first.status == 200, f"{first}; before: {counted(replies)}"))
        rows.case("the tier was never down", lambda: never_down(rig))


def three_tiers(rows):
    """three tiers, and a bad request twenty times a second beside ordinary ones"""
    for fault in ("500", "reset"):
        with rows.agent([faulty.engine(name) for name in ("one", "two", "three")]) as rig:
            with Beside(rig.address, text=SLOW) as beside:
                replies = every(5, 20, lambda: talk.ask(rig.address, body=poison(fault)))
            rows.case(f"{fault}: ordinary clients", beside.verdict)
            rows.case(f"{fault}: no tier was down", lambda: never_down(rig))
            if fault == "500":
                # At first it may not be known yet that others are answered meanwhile.
                late = replies[len(replies) * 2 // 3:]
                rows.case("500: the client is told so, with the engine's words, as 400", lambda: (
                    all(reply.status == 400 and "_M_range_check" in reply.text for reply in late), counted(replies)))
            else:
                rows.case("reset: the client gets an error", lambda: (all(r.status >= 400 for r in replies), counted(replies)))


def failing_tiers(rows):
    """tiers that fail every request"""
    def fail(connection, request):
        connection.whole(faulty.error("vector::_M_range_check", 500), 500)

    with faulty.Upstream(fail) as top, faulty.Upstream(fail) as low:
        with rows.agent([top.tier("top"), low.tier("low")]) as rig:
            replies = [talk.ask(rig.address, body=talk.chat(f"question {n}")) for n in range(6)]
            rows.case("it is theirs: 503, never a permanent 400", lambda: (
                all(reply.status == 503 and reply.field("retry-after") for reply in replies), counted(replies)))


def dead(pids):
    """How many of these processes have ended."""
    return sum((stat := rigs.stat_of(pid)) is None or stat[1] == "Z" for pid in pids)


def until_back(rig, pids):
    """Engines that died are replaced, and all can answer."""
    gone = {pid for pid in pids if dead([pid])}

    def back():
        tiers = rig.status()["tiers"]
        return all(tier["routable"] and tier["process"]["pid"] not in gone for tier in tiers)
    rig.until("all tiers are back", back, 30)


def deadly(rows):
    """a request at which engines die"""
    names = ("one", "two", "three")
    with rows.agent([faulty.engine(name) for name in names]) as rig:
        pids = [rig.pid(name) for name in names]
        reply = talk.ask(rig.address, body=poison("die"), timeout=20)
        rows.case("the client is refused with 422", lambda: (reply.status == 422, f"{reply} {reply.text[:80]!r}"))
        rows.case("two engines died of it, not three", lambda: (dead(pids) == 2, f"{dead(pids)} died"))
        until_back(rig, pids)
        said = rig.command("status").stdout.replace(str(rig.folder), "")
        line = next((line.strip() for line in said.splitlines() if "refused" in line or "422" in line), None)
        rows.case("status shows it", lambda: (bool(line), line or "no word of it"))
        pids = [rig.pid(name) for name in names]
        with Beside(rig.address, clients=2) as beside:
            again = [talk.ask(rig.address, body=poison("die"), timeout=20) for _ in range(3)]
            until_back(rig, pids)
        rows.case("sent again three times: refused each time, nobody dies", lambda: (
            all(reply.status == 422 for reply in again) and dead(pids) == 0, f"{counted(again)}; {dead(pids)} died"))
        rows.case("sent again: ordinary clients", beside.verdict)


def deadly_for_one(rows):
    """a request at which the only engine dies, sent until it is refused"""
    with rows.agent([faulty.engine("only")]) as rig:
        replies, deaths = [], 0
        for _ in range(3):
            pid = rig.pid("only")
            replies.append(talk.ask(rig.address, body=poison("die"), timeout=20))
            deaths += dead([pid])
            until_back(rig, [pid])
        rows.case("two deaths, then 422", lambda: (
            replies[-1].status == 422 and deaths == 2, f"{counted(replies)}; {deaths} deaths"))
        rows.case("others are answered", lambda: ((reply := talk.ask(rig.address)).status == 200, str(reply)))


SCENES = [("2.2", scene) for scene in (one_tier, one_tier_alone, three_tiers, failing_tiers, deadly, deadly_for_one)]
