"""2.6 and 2.7: clients that hung up, and clients that open too many connections."""
import contextlib
import time

import faulty
import rig as rigs
import talk

NEXT = talk.head("POST", talk.CHAT, [("Host", "x"), ("Content-Type", "application/json"), ("Content-Length", 2)]) + b"{}"
EXTRAS = [("nothing", b""), ("one byte", b"x"), ("CRLF", b"\r\n"), ("three CRLF", b"\r\n" * 3), ("a second request", NEXT),
          ("half of a second request", NEXT[:40]), ("100 kB", b"x" * 100_000)]
ASKED = [("plain", talk.chat()), ("streaming, no content yet", talk.chat(stream=True)),
         ("streaming, some content", talk.chat("begun", stream=True))]


def slow(connection, request):
    """Answers that do not come, and streams that do not go on; a prompt with "quick" is answered.

    Nothing is written to a client that hung up, so that no failed write can tell of its end."""
    if "quick" in request.prompt:
        return faulty.well(connection, request)
    if "begun" in request.prompt:
        connection.begin()
        connection.events(faulty.event())
    connection.silent()


def hang_up(rows):
    """a client that hangs up after it sent more than its request"""
    with faulty.Upstream(slow) as upstream, rows.agent([upstream.tier("far")]) as rig:
        for what, extra in EXTRAS:
            for kind, body in ASKED:
                rows.case(f"{kind}, {what} after the body", lambda: noticed(rig, upstream, extra, body))


def noticed(rig, upstream, extra, body):
    """How long after the client's end does the upstream's connection end?"""
    upstream.requests.clear()
    with talk.Talk(rig.address) as client:
        client.request(body=body)
        with contextlib.suppress(OSError):
            client.send(extra)
        if not talk.within(5, lambda: upstream.requests):
            return False, "the upstream was not asked"
        if b"begun" in body:
            client.socket.recv(65536)
        # The extra bytes are with the product before the end is.
        talk.within(0.2, lambda: False)
    closed = time.monotonic()
    request = upstream.requests[0]
    talk.within(8, lambda: request.ended)
    took = (request.ended or float("inf")) - closed
    if not request.ended:
        return False, "the upstream still works after 8 s"
    return took < 2, f"the upstream was let go after {took * 1000:.0f} ms"


def places(rows):
    """two clients that hung up, at a tier with two places"""
    for what, extra in EXTRAS[1:3]:
        with faulty.Upstream(slow) as upstream, rows.agent([upstream.tier("far", max_concurrent=2)]) as rig:
            for _ in range(2):
                with talk.Talk(rig.address) as client:
                    client.request(body=talk.chat("begun", stream=True))
                    client.send(extra)
                    client.socket.recv(65536)
            reply = talk.within(4, lambda: (found := talk.ask(rig.address, body=talk.chat("quick"))).status == 200 and found)
            rows.case(f"{what} after the body: a third is served within 4 s", lambda: (bool(reply), str(reply or "no")))


def patient(rows):
    """a client that sent more, and waits"""
    with rows.agent([rigs.fake("a", {"token_ms": 20})]) as rig:
        for what, extra in (("CRLF", b"\r\n"), ("a second request", NEXT)):
            with talk.Talk(rig.address) as client:
                client.request(body=talk.chat(stream=True))
                client.send(extra)
                reply = client.reply()
            rows.case(f"{what} after the body: it gets its answer whole", lambda: (
                reply.status == 200 and reply.whole and "[DONE]" in reply.text, str(reply)))
        with talk.Talk(rig.address) as client:
            client.request(body=talk.chat())
            client.send(b"\r\n")
            client.reply()
            again = client.request(body=talk.chat()).reply()
        rows.case("a next request on the same connection, after CRLF", lambda: (again.status == 200, str(again)))


# ---- 2.7 -------------------------------------------------------------------------------------------------------------------

BODY = talk.chat(stream=True, max_tokens=100_000)
STREAM = talk.head("POST", talk.CHAT, [("Host", "x"), ("Content-Type", "application/json"), ("Content-Length", len(BODY))]) + BODY
HALF = talk.head("POST", talk.CHAT, [("Host", "x")])[:-2]
FEW = {"max_connections": 60, "max_connections_per_client": 20}


class Many:
    """Connections from one address that stay open. Each sends the same and, if `read`, gets an answer first."""

    def __init__(self, address, count, source, data=b"", read=False):
        self.talks, self.over = [], set()
        for _ in range(count):
            with contextlib.suppress(OSError):
                one = talk.Talk(address, source, timeout=5)
                self.talks.append(one)
                one.send(data)
        self.statuses = [one.reply("GET").status for one in self.talks] if read else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.talks:
            one.close()

    def open(self):
        """How many the other side has neither ended nor refused; does not wait."""
        self.over |= {one for one in self.talks if one not in self.over and self._over(one)}
        return len(self.talks) - len(self.over)

    @staticmethod
    def _over(one):
        one.socket.setblocking(False)
        try:
            while data := one.socket.recv(65536):
                if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
                    return True
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True


def models():
    return talk.head("GET", "/v1/models", [("Host", "x")])


def served(address, source, seconds=3, **how):
    reply = talk.ask(address, source=source, timeout=seconds, **how)
    return reply.status == 200, f"{reply} in {reply.seconds:.1f} s"


def per_client(rows):
    """more connections of one address than one client may have"""
    with rows.agent([rigs.fake("a", {"tokens": 100_000, "token_ms": 100})], FEW) as rig:
        at, quick = rig.address, {"body": talk.chat(max_tokens=1)}
        for what, data in (("streams", STREAM), ("half a head", HALF), ("no byte", b"")):
            with Many(at, 40, "127.0.0.2", data) as many:
                rows.case(f"40 connections with {what}, 20 are allowed: as many stay open", lambda: (
                    bool(talk.within(3, lambda: many.open() <= 20)), f"{many.open()} are open"))
                rows.case(f"beside them ({what}), a client of another address", lambda: served(at, "127.0.0.3", **quick))
        with Many(at, 20, "127.0.0.2", models(), read=True):
            rows.case("20 idle of 20: a new one of the same address is served", lambda: served(at, "127.0.0.2"))
        # Served addresses are free again when their connections are gone.
        rows.case("the same address, when they are closed", lambda: (
            talk.within(5, lambda: served(at, "127.0.0.2", **quick)[0]), str(served(at, "127.0.0.2", **quick))))


def idle(rows):
    """idle connections, and a new client"""
    with rows.agent([rigs.fake("a")], {"max_connections": 60}) as rig:
        with contextlib.ExitStack() as stack:
            for number in range(3):
                stack.enter_context(Many(rig.address, 20, f"127.0.0.{number + 4}", models(), read=True))
            rows.case("60 idle of 60 in all: a new client is served", lambda: served(rig.address, "127.0.0.3"))
            rows.case("and one more", lambda: served(rig.address, "127.0.0.9"))


def by_default(rows):
    """2,000 connections of one address, with the defaults"""
    with rows.agent([rigs.fake("a")]) as rig:
        with Many(rig.address, 2000, "127.0.0.2", HALF) as many:
            rows.case("2,000 with half a head: 1,024 stay open", lambda: (
                bool(talk.within(5, lambda: many.open() <= 1024, 0.2)), f"{many.open()} are open"))
            rows.case("a client of another address", lambda: served(rig.address, "127.0.0.3"))


SCENES = [("2.6", scene) for scene in (hang_up, places, patient)] + [("2.7", scene) for scene in (per_client, idle, by_default)]
