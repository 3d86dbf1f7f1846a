"""1.2 and 1.3: what secrets of tiers reach clients, and what secrets of clients reach upstreams."""
import json
import pathlib
import tempfile

import faulty
import talk

# The second one is written otherwise in JSON: a solidus may be escaped there.
KEYS = ["sk-attack-0123456789abcdefghij", "sk/attack+98765/43210zyxwvu=="]
WORDS = "XYZZY-words-of-the-engine"
TOKENIZE = {"path": "/tokenize", "body": b'{"prompt":"x"}'}
MODEL_PATH = "/srv/private/models/llama"


def echo(status, spelled=str, fields=()):
    """An upstream that tells what it was sent as a key."""
    def play(connection, request):
        key = spelled((request.field("authorization") or "").removeprefix("Bearer "))
        text = json.dumps(faulty.error(f"{WORDS} at {MODEL_PATH}: bad key KEY", status, "invalid_request_error"))
        connection.whole(text.replace("KEY", key).encode(), status, fields=[(name, key) for name in fields])
    return play


def echo_in_a_stream(content_first):
    def play(connection, request):
        connection.begin()
        if content_first:
            connection.events(faulty.event())
        connection.events(faulty.error(f"bad key {request.field('authorization')}", 500))
        connection.end()
    return play


def told_in_two_pieces(status):
    """The key is cut in two by the upstream's writes."""
    def play(connection, request):
        body = json.dumps(faulty.error(f"bad key {request.field('authorization')} given", status)).encode()
        middle = body.index(b" given") - 7
        connection.head(status, fields=[("Content-Length", len(body))])
        connection.send(body[:middle])
        connection.gone(0.05)
        connection.send(body[middle:])
    return play


def hidden(key, reply, *more):
    """No spelling of the key, nor of these words, is in the answer."""
    seen = [word for word in {key, key.replace("/", "\\/"), key[:14], *more} if reply.has(word)]
    return reply.status >= 400 and not seen, f"{reply} {'shows ' + ', '.join(seen) if seen else ''}"


def secrets(rows):
    """an upstream that tells the key which it was sent"""
    for number, key in enumerate(KEYS):
        with tempfile.NamedTemporaryFile("w") as file, faulty.Upstream() as upstream:
            file.write(key + "\n")
            file.flush()
            tier = upstream.tier("far", api_key={"file": file.name}, health={"interval": "250ms", "failures": 1000})
            with rows.agent([tier]) as rig:
                if number == 0:        # first, because of like failures only some are logged
                    texts(rows, rig, upstream)
                echoes(rows, rig, upstream, key, f"key {number + 1}")


def echoes(rows, rig, upstream, key, which):
    at = rig.address

    def row(what, play, **how):
        def judge():
            upstream.play = play
            upstream.requests.clear()
            reply = talk.ask(at, **how)
            if not any(request.field("authorization") == f"Bearer {key}" for request in upstream.requests):
                return False, f"{reply}; the upstream was not asked"
            return hidden(key, reply)
        rows.case(f"{what} ({which})", judge)

    row("in a 401", echo(401))
    row("in a 400 that is passed on", echo(400))
    row("in a 400, with escaped solidus", echo(400, lambda key: key.replace("/", "\\/")))
    row("in a 422 that is passed on, to a streaming client", echo(422), body=talk.chat(stream=True))
    row("in a 400, cut in two", told_in_two_pieces(400))
    row("in a 500", echo(500))
    row("in a 503", echo(503))
    row("in a header field of a 400", echo(400, fields=["x-debug-key", "www-authenticate"]))
    row("in a 401 of a pass-through path", echo(401), **TOKENIZE)
    row("in a 400 of a pass-through path", echo(400), **TOKENIZE)
    row("in a 500 of a pass-through path", echo(500), **TOKENIZE)
    row("in the first event of a stream", echo_in_a_stream(False), body=talk.chat(stream=True))

    def cut():
        upstream.play = echo_in_a_stream(True)
        reply = talk.ask(at, body=talk.chat(stream=True))
        return faulty.SAID in reply.text and not reply.has(key), f"{reply} {reply.text[-90:]!r}"
    rows.case(f"in an error event after content ({which})", cut)


def texts(rows, rig, upstream):
    """What a 503 says, and where the rest of it is."""
    at, mark = rig.address, "attack-request-4711"

    def quiet():
        upstream.play = echo(500)
        reply = talk.ask(at, fields=[("X-Request-Id", mark)])
        told = [word for word in (WORDS, MODEL_PATH, str(upstream.port), "127.0.0.1") if reply.has(word)]
        said = reply.error.get("message", "")
        return reply.status == 503 and "far" in said and not told, f"{reply} {said[:90]!r} tells {told}"
    rows.case("a 503 names the tier, not hosts, paths or words of the engine", quiet)

    def logged():
        log = rig.folder / "agent.log"
        lines = talk.within(3, lambda: [line for line in log.read_text().splitlines() if mark in line and WORDS in line])
        return bool(lines), lines[-1][:160] if lines else "no line has the request id and the engine's words"
    rows.case("the log has them, under the request id", logged)


# ---- 1.3 -------------------------------------------------------------------------------------------------------------------

CREDENTIALS = ["authorization", "api-key", "x-api-key", "x-goog-api-key", "x-auth-token", "x-access-token",
               "x-amz-security-token", "proxy-authorization", "cookie"]
FORWARDING = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip"]
UNKNOWN = ["x-tenant-plan", "x-internal-user", "x-tenant-secret", "session-token", "referer"]
ALLOWED = {"accept": "text/x-attack", "user-agent": "attack/1",
           "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "tracestate": "a=b", "x-request-id": "attack-1", "openai-organization": "org-1", "anthropic-version": "2023-06-01"}
FORGED = "203.0.113.7-forged"
BACK = {"location": "https://evil.example/", "alt-svc": 'h3="evil.example:443"', "strict-transport-security": "max-age=1",
        "refresh": "0; url=https://evil.example/", "clear-site-data": '"*"', "set-cookie": "a=b"}


def sent():
    return [*((name, FORGED) for name in [*CREDENTIALS, *FORWARDING, *UNKNOWN]), *ALLOWED.items(), ("x-tenant", "t1")]


def reached(fields, names):
    return sorted({name for name, value in fields if name in names and FORGED in value})


def headers_rows(rows, where, fields, local):
    rows.case(f"credentials stay here, {where}", lambda: (not (found := reached(fields, CREDENTIALS)), f"sent on: {found}"))
    rows.case(f"forwarding fields stay here, {where}", lambda: (not (found := reached(fields, FORWARDING)), f"sent on: {found}"))
    if local:
        found, wanted = reached(fields, UNKNOWN), ["x-internal-user", "x-tenant-plan"]
        rows.case(f"unknown fields go on, {where}", lambda: (found == wanted, str(found)))
    else:
        rows.case(f"unknown fields stay here, {where}", lambda: (not (found := reached(fields, UNKNOWN)), f"sent on: {found}"))
    given = dict(fields)
    missing = [name for name, value in ALLOWED.items() if given.get(name) != value]
    rows.case(f"what is allowed goes on, {where}", lambda: (not missing, f"missing: {missing}"))


def to_upstreams(rows):
    """what of a client's header reaches an upstream"""
    with faulty.Upstream() as upstream, rows.agent([upstream.tier("far")]) as rig:
        for where, how in (("chat at a remote tier", {}), ("pass-through at a remote tier", TOKENIZE)):
            upstream.requests.clear()
            talk.ask(rig.address, fields=sent(), **how)
            headers_rows(rows, where, upstream.requests[-1].fields if upstream.requests else [], False)
        rows.case("content-type and accept-encoding: identity go on", lambda: (
            (given := dict(upstream.requests[-1].fields)).get("content-type") == "application/json"
            and given.get("accept-encoding") == "identity", str(given)[:120]))
    with tempfile.TemporaryDirectory() as folder:
        record = pathlib.Path(folder) / "requests"
        with rows.agent([faulty.engine("near", {"record": str(record)})]) as rig:
            talk.ask(rig.address, fields=sent())
            lines = record.read_text().splitlines() if record.exists() else []
            heads = [json.loads(line)["fields"] for line in lines]
            fields = next(([tuple(pair) for pair in head] for head in heads if ["x-request-id", "attack-1"] in head), [])
            headers_rows(rows, "at a local engine", fields, True)
            rows.case("x-request-id goes to a local engine", lambda: (bool(fields), f"{len(heads)} requests recorded"))


def forward_headers(rows):
    """`server.forward_headers` opens a field"""
    with faulty.Upstream() as upstream, rows.agent([upstream.tier("far")], {"forward_headers": ["x-tenant"]}) as rig:
        talk.ask(rig.address, fields=sent())
        given = dict(upstream.requests[-1].fields)
        rows.case("a field of forward_headers goes on, others do not", lambda: (
            given.get("x-tenant") == "t1" and not reached(given.items(), UNKNOWN), str(sorted(given))[:160]))


def redirect(status):
    fields = [("Location", "http://127.0.0.1:1/"), ("Upgrade", "x"), ("Connection", "keep-alive")]
    return lambda connection, _: connection.whole(b"", status, fields=fields)


def to_clients(rows):
    """what of an upstream's header reaches a client, and answers that are no answers"""
    def with_fields(connection, request):
        if request.stream:
            connection.begin(fields=BACK.items())
            connection.events(faulty.event(), faulty.event({}, "stop"), b"[DONE]")
            connection.end()
        else:
            connection.whole(faulty.completion(), fields=BACK.items())

    with faulty.Upstream() as top, faulty.Upstream() as low, \
            rows.agent([top.tier("top", health={"interval": "250ms", "failures": 1000}), low.tier("low")]) as rig:
        at = rig.address
        top.play = with_fields
        a_stream = {"body": talk.chat(stream=True)}
        for where, how in (("an answer", {}), ("a stream", a_stream), ("a pass-through answer", TOKENIZE)):
            def judge(how=how):
                reply = talk.ask(at, **how)
                found = [name for name in BACK if reply.field(name) is not None]
                return reply.status == 200 and not found, f"{reply} has {found}"
            rows.case(f"no field that moves a browser comes back with {where}", judge)
        for status in (101, 301, 302, 303, 307, 308, 304):
            top.play = redirect(status)
            rows.case(f"{status} above a healthy tier", lambda: (
                (reply := talk.ask(at, timeout=5)).status == 200 and reply.tier == "low", f"{reply} by {reply.tier}"))
        top.play = redirect(302)
        rows.case("302 at a pass-through path", lambda: (
            (reply := talk.ask(at, **TOKENIZE)).status in (200, 502, 503) and reply.field("location") is None, str(reply)))


SCENES = [("1.2", secrets), ("1.3", to_upstreams), ("1.3", forward_headers), ("1.3", to_clients)]
