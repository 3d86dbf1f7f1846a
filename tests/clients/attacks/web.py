"""1.1: which web pages may reach an engine."""
import socket

import rig as rigs
import talk

EVIL = "https://evil.example"
APP = "https://app.example"
PREFLIGHT = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")]
PRIVATE = ("Access-Control-Request-Private-Network", "true")


def page(origin, host=None, kind="application/json", *more):
    """The fields of a page's request."""
    fields = [("Origin", origin)] if origin else []
    fields += [("Host", host)] if host else []
    return [*fields, ("Content-Type", kind), *more]


def refused(reply, *words, status=(403,)):
    return reply.status in status and all(word in reply.text for word in words), f"{reply} {reply.text[:60]!r}"


def answered(reply):
    return reply.status == 200, str(reply)


def generations(rig):
    """How many completions the fake engine has given."""
    host, port = rig.tier("a")["url"].removeprefix("http://").split(":")
    return talk.get((host, int(port)), "/knobs").value["answered"]


def early(address, fields):
    """The answer to a head whose body does not come."""
    with talk.Talk(address, timeout=3) as client:
        client.request(fields=[*fields, ("Content-Length", "1000000")])
        return client.reply()


def pages(rows):
    """pages of origins that nobody listed"""
    with rows.agent([rigs.fake("a")]) as rig:
        at, port = rig.address, rig.address[1]
        before = generations(rig)

        def refuse(what, fields, *words, status=(403,), **how):
            rows.case(what, lambda: refused(talk.ask(at, fields=fields, **how), *words, status=status))

        own, rebound = f"127.0.0.1:{port}", f"rebound.example:{port}"
        refuse("a foreign page, JSON", page(EVIL), "cors_origins")
        refuse("a foreign page, text/plain", page(EVIL, kind="text/plain"))
        refuse("a foreign page, no content type", [("Origin", EVIL), ("Content-Type", "")])
        rows.case("a foreign page is refused before its body is read", lambda: refused(early(at, page(EVIL)), "cors_origins"))
        refuse("a page under a rebound name", page(f"http://{rebound}", rebound), "hosts")
        refuse("a page under a rebound name, text/plain", page(f"http://{rebound}", rebound, "text/plain"))
        refuse("a page under a rebound name, port 80", page("http://rebound.example", "rebound.example"))
        refuse("Origin: null", page("null"))
        refuse("another port of this address", page("http://127.0.0.1:1", own))
        refuse("an origin that begins like the endpoint's own", page(f"http://{own}.evil.example", own))
        refuse("two Origins, the own one last", [("Origin", EVIL), ("Origin", f"http://{own}")], status=(400, 403))
        for path in ("/v1/models", "/metrics"):
            rows.case(f"a foreign page reads {path}", lambda: refused(talk.get(at, path, [("Origin", EVIL)])))
        refuse("a foreign page at a pass-through path", page(EVIL, kind="text/plain"), path="/tokenize")
        # A page of the endpoint's own, or one whose browser sends no Origin, still cannot post without a preflight.
        media = (400, 403, 415)
        forms = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
        for kind in ("text/plain", *forms, "text/plain;application/json"):
            refuse(f"the own page, {kind}", page(f"http://{own}", own, kind), status=media)
        for site in ("cross-site", "same-site", "same-origin", "none"):
            refuse(f"no Origin, Sec-Fetch-Site: {site}, text/plain", page(None, None, "text/plain", ("Sec-Fetch-Site", site)),
                   status=media)
        refuse("no Origin, Sec-Fetch-Mode: no-cors, text/plain", page(None, None, "text/plain", ("Sec-Fetch-Mode", "no-cors")),
               status=media)
        reached = generations(rig) - before
        rows.case("none of all these reached the engine", lambda: (reached == 0, f"{reached} did"))

        for name in ("127.0.0.1", "localhost", socket.gethostname()):
            host = f"{name}:{port}"
            rows.case(f"the own page, as {'this host' if name not in ('127.0.0.1', 'localhost') else name}",
                      lambda: answered(talk.ask(at, fields=page(f"http://{host}", host))))
        rows.case("the own page, application/json; charset=utf-8",
                  lambda: answered(talk.ask(at, fields=page(f"http://{own}", own, "application/json; charset=utf-8"))))


def programs(rows):
    """clients without an Origin, and how many Hosts there may be"""
    with rows.agent([rigs.fake("a")]) as rig:
        at = rig.address
        for host in ("llm.internal", "rebound.example:8000", "10.0.0.7", "x"):
            rows.case(f"an SDK, Host: {host}", lambda: answered(talk.ask(at, fields=[("Host", host)])))
        rows.case("curl -d, without -H", lambda: answered(
            talk.ask(at, fields=[("Content-Type", "application/x-www-form-urlencoded")])))
        rows.case("no Host", lambda: refused(talk.ask(at, host=False), status=(400,)))
        rows.case("two Hosts", lambda: refused(talk.ask(at, fields=[("Host", "a"), ("Host", "b")]), status=(400,)))
        rows.case("two Hosts that are the same", lambda: refused(
            talk.ask(at, fields=[("Host", "a"), ("Host", "a")]), status=(400,)))
        rows.case("no Host at /health", lambda: refused(talk.get(at, "/health", host=False), status=(400,)))


def preflights(rows):
    """preflights, and what `cors_origins` and `hosts` open"""
    with rows.agent([rigs.fake("a")], {"cors_origins": [APP], "hosts": ["llm.example"]}) as rig:
        at, port = rig.address, rig.address[1]

        def flight(origin, *more):
            return talk.ask(at, "OPTIONS", fields=[("Origin", origin), *PREFLIGHT, *more], body=None)

        def closed(reply):
            opened = [name for name, _ in reply.fields if name.startswith("access-control-allow")]
            return not opened, f"{reply} {opened}"

        def opened(reply, name, value):
            return reply.field(name) == value, f"{reply} {name}: {reply.field(name)}"

        rows.case("the preflight of a foreign page", lambda: closed(flight(EVIL)))
        rows.case("the private-network preflight of a foreign page", lambda: closed(flight(EVIL, PRIVATE)))
        rows.case("the preflight of a listed page", lambda: opened(flight(APP), "access-control-allow-origin", APP))
        rows.case("the private-network preflight of a listed page",
                  lambda: opened(flight(APP, PRIVATE), "access-control-allow-private-network", "true"))
        rows.case("a listed page, JSON", lambda: answered(talk.ask(at, fields=page(APP))))
        rows.case("a listed page may read the answer",
                  lambda: opened(talk.ask(at, fields=page(APP)), "access-control-allow-origin", APP))
        rows.case("a listed page, text/plain", lambda: refused(
            talk.ask(at, fields=page(APP, kind="text/plain")), status=(400, 403, 415)))
        rows.case("a page beside a listed one", lambda: refused(talk.ask(at, fields=page(f"{APP}.evil.example"))))
        host = f"llm.example:{port}"
        rows.case("a page under a name of `hosts`", lambda: answered(talk.ask(at, fields=page(f"http://{host}", host))))
        rebound = f"other.example:{port}"
        rows.case("a page under another name", lambda: refused(talk.ask(at, fields=page(f"http://{rebound}", rebound)), "hosts"))


SCENES = [("1.1", pages), ("1.1", programs), ("1.1", preflights)]
