"""What an upstream does to more than one request: the scenes of upstreams.py."""
import email.utils
import json
import time

import faulty
import talk
import upstream_rows
from attacks import lost

PATIENT = {"health": {"interval": "250ms", "failures": 1000}}


def after(seconds):
    return str(seconds)


def on_a_date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def overload(spell, seconds, status=429):
    def play(connection, request):
        connection.whole(faulty.error("slow down", status, "rate_limit_error"), status, fields=[("Retry-After", spell(seconds))])
    return play


def later(reply, least, most):
    """A client is told to come again, in so many seconds."""
    value = reply.field("retry-after") or ""
    return reply.status in (429, 503) and value.isdigit() and least <= int(value) <= most, f"{reply}, Retry-After: {value}"


def overloads(rows):
    """Retry-After in seconds and as a date"""
    for spell, what in ((after, "seconds"), (on_a_date, "a date")):
        for status in (429, 503):
            with faulty.Upstream(overload(spell, 20, status)) as top, faulty.Upstream() as low:
                with rows.agent([top.tier("top", **PATIENT), low.tier("low")]) as rig:
                    replies, count = [talk.ask(rig.address) for _ in range(5)], len(top.asked())
                    rows.case(f"{status} with {what}: requests stay away until then", lambda: (
                        not lost(replies) and count == 1, f"the tier was asked {count} times by 5 requests"))
            with faulty.Upstream(overload(spell, 20, status)) as top, rows.agent([top.tier("top", **PATIENT)]) as rig:
                for turn in ("at first", "again"):
                    rows.case(f"{status} with {what}, alone, {turn}: it is passed on",
                              lambda: later(talk.ask(rig.address), 15, 20))
    with faulty.Upstream(overload(after, 90)) as top, faulty.Upstream(overload(on_a_date, 25)) as low:
        with rows.agent([top.tier("top", **PATIENT), low.tier("low", **PATIENT)]) as rig:
            for turn in ("at first", "again"):
                rows.case(f"two tiers, {turn}: the smallest is passed on", lambda: later(talk.ask(rig.address), 20, 25))
    with faulty.Upstream(overload(after, 2)) as top, faulty.Upstream() as low:
        with rows.agent([top.tier("top", **PATIENT), low.tier("low")]) as rig:
            talk.ask(rig.address)
            top.play = faulty.well
            rows.case("when the time is over it is asked again", lambda: (
                bool(talk.within(6, lambda: talk.ask(rig.address).tier == "top", 0.25)), str(talk.ask(rig.address).tier)))


def fail(status, message="told to fail"):
    return lambda connection, request: connection.whole(faulty.error(message, status), status)


AGAIN = {"500": (fail(500), 2), "502": (fail(502), 2), "504": (fail(504), 2), "503": (fail(503), 1), "501": (fail(501), 1),
         "400": (fail(400), 1), "401": (fail(401), 1), "a reset": (lambda connection, _: connection.reset(), 2),
         "empty choices": (upstream_rows.whole(faulty.completion(choices=[])), 1)}


def once_more(rows):
    """one more try at the same tier, after 100 ms"""
    for what, (play, wanted) in AGAIN.items():
        with faulty.Upstream(play) as top, rows.agent([top.tier("top", **PATIENT)]) as rig:
            talk.ask(rig.address)
            times = [request.at for request in top.asked()]
            apart = times[-1] - times[0] if times else 0.0
            rows.case(f"{what}, alone: it is asked {'twice' if wanted == 2 else 'once'}", lambda: (
                len(times) == wanted and (wanted == 1 or 0.1 <= apart < 1), f"{len(times)} times, {apart * 1000:.0f} ms apart"))
    with faulty.Upstream(lambda connection, request: connection.reset()) as top, faulty.Upstream() as low, \
            rows.agent([top.tier("top", **PATIENT), low.tier("low")]) as rig:
        reply = talk.ask(rig.address)
        rows.case("a reset, above a healthy tier", lambda: (
            by_low(reply)[0] and len(top.asked()) == 2, f"{reply} by {reply.tier}, asked {len(top.asked())} times"))


def temporary_first(rows):
    """a temporary failure above a permanent refusal"""
    tops = {"503": fail(503), "429": overload(after, 5), "500": fail(500), "a reset": lambda connection, _: connection.reset()}
    lows = {"400 of the context": fail(400, "This model's maximum context length is 8 tokens."), "402": fail(402),
            "404 of the model": fail(404, NO_MODEL)}
    for above, top_play in tops.items():
        with faulty.Upstream(top_play) as top, faulty.Upstream() as low, \
                rows.agent([top.tier("top", **PATIENT), low.tier("low", **PATIENT)]) as rig:
            for below, low_play in lows.items():
                low.play = low_play
                rows.case(f"{above} above {below}", lambda: later(talk.ask(rig.address), 0, 3600))
            low.play = fail(400, "messages: field required")
            rows.case(f"{above} above 400 of the client's own", lambda: (
                (reply := talk.ask(rig.address)).status == 400 and reply.has("field required"), str(reply)))


NO_MODEL = "The model `m` does not exist."
REFUSALS = {"401": fail(401), "402": fail(402), "403": fail(403), "404 of the model": fail(404, NO_MODEL), "500": fail(500),
            "empty choices": upstream_rows.whole(faulty.completion(choices=[]))}


def refuses(what, play):
    def scene(rows):
        """a tier that refuses everything, while its /health says 200"""
        with faulty.Upstream(play) as top, rows.agent([top.tier("top")]) as rig:
            known(rows, rig, f"{what}, alone", 3)
            rows.case(f"{what}, alone: /health says 503", lambda: (
                (reply := talk.within(5, lambda: (r := talk.get(rig.address, "/health")).status == 503 and r)
                 or talk.get(rig.address, "/health")).status == 503, str(reply)))
            rows.case(f"{what}, alone: there is an incident", lambda: (
                "top" in (said := talk.within(5, lambda: (s := rig.command("incidents").stdout) and "top" in s and s) or ""),
                said.splitlines()[-1][:90] if said else "none"))
            top.play = faulty.well
            rows.case(f"{what}, alone: it serves again when it answers", lambda: (
                bool(talk.within(40, lambda: talk.ask(rig.address).status == 200, 0.5)), str(talk.ask(rig.address))))
        with faulty.Upstream(play) as top, faulty.Upstream() as low, rows.agent([top.tier("top"), low.tier("low")]) as rig:
            replies = known(rows, rig, f"{what}, above a healthy tier", 1)
            rows.case(f"{what}, above a healthy tier: all clients are answered", lambda: (
                not lost(replies), f"lost {lost(replies)[:3]}"))
    return scene


def overload_without_end(rows):
    """a tier that turns everybody away, which as a rule passes: it has a minute"""
    with faulty.Upstream(overload(after, 1)) as top, rows.agent([top.tier("top")]) as rig:
        known(rows, rig, "429 without end, alone", 3, 100)


def known(rows, rig, what, code, seconds=15):
    """Asks until `status` says that this tier does not serve, as its exit status."""
    replies = []

    def ask():
        replies.append(talk.ask(rig.address))
        return rig.command("status").returncode == code
    found, tier = talk.within(seconds, ask, 0.2), rig.tier("top")
    rows.case(f"{what}: `status` exits with {code}", lambda: (
        found, f"{found} after {len(replies)} requests, {tier['health']}, {tier['reason']!r}"[:140]))
    return replies


def by_low(reply):
    return reply.status == 200 and reply.tier == "low", f"{reply} by {reply.tier}"


def embeddings(rows):
    """embeddings, and a tier below with another model"""
    def ask(rig):
        return talk.ask(rig.address, path=faulty.PATHS[2], body=json.dumps({"input": "supervisors", "model": "m"}).encode())

    with faulty.Upstream(fail(500)) as top, faulty.Upstream() as low:
        with rows.agent([top.tier("top", **PATIENT), low.tier("low", model="other")]) as rig:
            reply = ask(rig)
            rows.case("another model below: 503, and it is not asked", lambda: (
                reply.status == 503 and not low.asked(), f"{reply}; asked {len(low.asked())} times"))
        low.requests.clear()
        with rows.agent([top.tier("top", **PATIENT), low.tier("low")]) as rig:
            for what, play in (("500", fail(500)), ("empty data", upstream_rows.whole({"object": "list", "data": []})),
                               ("no data", upstream_rows.whole({"object": "list"}))):
                top.play = play
                rows.case(f"{what}, the same model below", lambda: by_low(ask(rig)))
        with rows.agent([top.tier("top", **PATIENT)]) as rig:
            reply = ask(rig)
            rows.case("no data, alone", lambda: (reply.status == 503, str(reply)))


def completions(rows):
    """text completions without an answer"""
    def ask(rig):
        return talk.ask(rig.address, path=faulty.PATHS[1], body=json.dumps({"prompt": "supervisors", "max_tokens": 4}).encode())

    plays = {"empty choices": {"choices": []}, "choices without text": {"choices": [{"index": 0, "finish_reason": "stop"}]}}
    with faulty.Upstream() as top, faulty.Upstream() as low:
        with rows.agent([top.tier("top", **PATIENT), low.tier("low")]) as rig:
            for what, value in plays.items():
                top.play = upstream_rows.whole({**faulty.text_completion(), **value})
                rows.case(f"{what}, above a healthy tier", lambda: by_low(ask(rig)))


NUMBERS = ["0.10", "12345678901234567890123", "1e2", "-0.0", "3.141592653589793238462643"]


def as_they_came(rows):
    """the numbers of a request, and what may be compressed"""
    def ask(*numbers):
        body = '{"messages": [{"role": "user", "content": "supervisors"}], "max_tokens": 8, "x": [' + ", ".join(numbers) + "]}"
        top.requests.clear()
        reply = talk.ask(rig.address, body=body.encode())
        given = top.asked()[-1].body.decode() if top.asked() else ""
        changed = [number for number in numbers if number not in given]
        return reply.status == 200 and not changed, f"{reply}, changed: {changed}"

    with faulty.Upstream() as top, rows.agent([top.tier("top")]) as rig:
        rows.case("numbers go on as they came", lambda: ask(*NUMBERS))
        rows.case("one that no double holds is refused", lambda: ((reply := ask("1E400")[1]).startswith("400"), reply))
        talk.ask(rig.address)
        encoding = top.asked()[-1].field("accept-encoding")
        rows.case("accept-encoding: identity", lambda: (encoding == "identity", str(encoding)))


def long_stream(rows):
    """a stream that flows for longer than request_timeout"""
    with faulty.Upstream(lambda connection, request: faulty.paced(connection, request, 0.1, 40)) as top:
        with rows.agent([top.tier("top")], {"request_timeout": "2s"}) as rig:
            reply = talk.ask(rig.address, body=talk.chat(stream=True), timeout=15)
            rows.case("it is not cut", lambda: (reply.whole and "[DONE]" in reply.text, f"{reply} after {reply.seconds:.1f} s"))


# Those that take longest begin.
SCENES = [("3.6", overload_without_end), *(("3.6", refuses(what, play)) for what, play in REFUSALS.items()),
          ("3.8", overloads), ("3.9", once_more), ("3.5", temporary_first), ("3.10", embeddings), ("3.1", completions),
          ("3.10", as_they_came), ("4.3", long_stream)]
