"""The rows of upstreams.py: what an upstream does to a request, and what the client is to get of it.

Outcomes: `top` its own answer, whole; `low` the answer of the tier below; a status; `cut` an error event after content;
`no finish_reason` an answer without one.
`above` is with a healthy tier below it, `alone` without. Several that are right are divided by `|`.
"""
import dataclasses
import gzip
import json
import typing

from faulty import SAID, completion, error, event, stream, well

QUICK = {"timeouts": {"connect": "2s", "first_content": "1s", "between_chunks": "1s"}}
WORDS = "temperature must be below 2, said the engine"


@dataclasses.dataclass
class Row:
    """An expectation of None: such a request is not sent. `alone` is the same for both kinds unless it is a pair."""
    name: str
    play: typing.Callable
    plain: str | None = "low"          # above a healthy tier
    stream: str | None = "low"
    alone: tuple | str = "503"
    keys: dict = dataclasses.field(default_factory=dict)       # of the tier
    server: dict = dataclasses.field(default_factory=dict)
    text: str | typing.Callable = SAID

    def wanted(self, place, streaming):
        above = self.stream if streaming else self.plain
        if place == "above" or above is None:
            return above
        return self.alone[streaming] if isinstance(self.alone, tuple) else self.alone

    def says(self, text):
        return self.text(text) if callable(self.text) else text.strip() == self.text


def kept(name, play, plain="top", streaming="top", **more):
    """A row whose answers are whole in spite of all."""
    return Row(name, play, plain, streaming, more.pop("alone", (plain, streaming)), **more)


def both(plain, streaming):
    return lambda connection, request: (streaming if request.stream else plain)(connection)


def whole(value, status=200, **how):
    return lambda connection, *_: connection.whole(value, status, **how)


def events(*values, **how):
    return lambda connection, *_: stream(connection, *values, **how)


def choices(*given, stop=True):
    """The same choices in a whole answer, and in a stream that ends with [DONE]."""
    return both(whole(completion(choices=list(given))), events(event(choices=list(given))))


def raw(body, kind="text/event-stream"):
    """These bytes as the body of a stream."""
    def play(connection, *_):
        connection.begin(kind)
        connection.piece(body)
        connection.end()
    return play


def lines(*values, end=b"\n", begin=b"data: "):
    return b"".join(begin + json.dumps(value).encode() + end + end for value in values) + begin + b"[DONE]" + end + end


# ---- 200s without an answer ------------------------------------------------------------------------------------------------

NOTHING = [
    Row("empty choices", choices()),
    Row("choices without message", choices({"index": 0, "finish_reason": "stop"})),
    Row("choices with a message of null", choices({"index": 0, "message": None, "delta": None, "finish_reason": "stop"})),
    Row("choices of null", both(whole(completion(choices=None)), events(event(choices=None)))),
    Row("an object without choices", both(whole({"ok": True}), events({"ok": True}))),
    Row("an error in a 200", both(whole(error("the core died", 500)), events(error("the core died", 500)))),
    Row("an HTML page in a 200", whole(b"<html><body>Sign in</body></html>", kind="text/html")),
    Row("an empty body", both(whole(b""), raw(b""))),
    Row("null", both(whole(b"null"), events(None))),
    Row("a list", both(whole(b"[1]"), events([1]))),
    Row("half of an object", both(whole(json.dumps(completion())[:60].encode()),
                                  raw(b"data: " + json.dumps(event())[:60].encode() + b"\n\n"))),
    Row("only [DONE]", both(whole(b"[DONE]"), raw(b"data: [DONE]\n\n"))),
    Row("a role, then [DONE]", events(event({"role": "assistant"})), plain=None),
    Row("204", whole(b"", 204)),
]

# ---- where an answer ends --------------------------------------------------------------------------------------------------

DONE = event({}, "stop")
PART = {"index": 0, "delta": {"content": SAID}}


def then(after, finish=True):
    """A whole answer, and then what `after` does to its connection. A whole one without [DONE] where it is a stream."""
    def play(connection, request):
        if request.stream:
            connection.begin()
            connection.events(event(), *([DONE] if finish else []))
        else:
            connection.head(200, fields=[("Transfer-Encoding", "chunked")])
            connection.piece(json.dumps(completion()).encode())
        after(connection)
    return play


def reset(connection):
    connection.gone(0.2)               # what was sent is read by then
    connection.reset()


def too_short(connection, request):
    body = json.dumps(completion()).encode()
    connection.head(200, fields=[("Content-Length", len(body) + 10)])
    connection.send(body)
    connection.cut()


def unfinished(name, finish, plain="low", alone="503"):
    message = {"index": 0, "message": {"role": "assistant", "content": SAID}}
    return Row(name, both(whole(completion(choices=[{**message, **finish}])), events(event(choices=[{**PART, **finish}]))),
               plain, "cut", (alone, "cut"))


ENDS = [
    kept('finish_reason "" until the end', events(event(finish=""), event({"content": ""}, ""), DONE), plain=None),
    unfinished('finish_reason "", then [DONE]', {"finish_reason": ""}),
    # In one piece nothing of it can be missing, and some servers never say why they ended.
    unfinished("no finish_reason, then [DONE]", {}, "no finish_reason", "no finish_reason"),
    unfinished("finish_reason null, then [DONE]", {"finish_reason": None}),
    kept("all of it, then a reset", then(reset)),
    kept("all of it, then the connection is closed", then(lambda connection: connection.cut())),
    kept("all of it, then silence", then(lambda connection: connection.silent(30)), plain=None),
    kept("all of it, then an error event", events(event(), DONE, error("too late", 500)), plain=None),
    kept("all of it, then a clean end without [DONE]", raw(b"data: " + json.dumps(event()).encode() + b"\n\ndata: "
                                                           + json.dumps(DONE).encode() + b"\n\n"), plain=None),
    kept("all of it, and a length that says more", too_short, streaming=None),
    Row("some of it, then a reset", then(reset, finish=False), None, "cut", "cut"),
    Row("some of it, then the connection is closed", then(lambda connection: connection.cut(), finish=False), None, "cut", "cut"),
    Row("some of it, then an error event and [DONE]", events(event(), error("the core died", 500)), None, "cut", "cut"),
]

# ---- other shapes ----------------------------------------------------------------------------------------------------------

EVENTS = events(event({"role": "assistant"}), event({"content": SAID[:9]}), event({"content": SAID[9:]}), DONE)
BOM = "\ufeff".encode()


def typed(kind):
    return both(whole(completion(), kind=kind), events(event(), DONE, kind=kind))


def zipped(connection, request):
    body = json.dumps(completion()).encode() if not request.stream else lines(event(), DONE)
    connection.whole(gzip.compress(body), kind="text/event-stream" if request.stream else "application/json",
                     fields=[("Content-Encoding", "gzip")])


def with_bytes(old, new, text):
    """`old` in the JSON of an answer is replaced by bytes that JSON, or UTF-8, does not allow."""
    plain = json.dumps(completion(text=text, x="X")).encode().replace(old, new)
    streamed = lines(event({"content": text}, x="X"), DONE).replace(old, new)
    return both(whole(plain), raw(streamed))


def around(text):
    return text.startswith("before") and text.rstrip().endswith("after")


def repaired(name, play, **more):
    """Of a whole answer it is not said that it can be mended."""
    return Row(name, play, "top|low", "top", ("top|503", "top"), **more)


def early_hints(connection, request):
    connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
    well(connection, request, SAID)


def in_single_bytes(connection, request):
    body = json.dumps(completion("é€😀"), ensure_ascii=False).encode()
    if request.stream:
        body = b"data: " + json.dumps(event({"content": "é€😀"}), ensure_ascii=False).encode() + b"\n\n" + lines(DONE)
    connection.begin("text/event-stream" if request.stream else "application/json")
    for at in range(len(body)):
        connection.piece(body[at:at + 1])
    connection.end()


def until_closed(connection, request):
    connection.head(200, "text/event-stream" if request.stream else "application/json", [("Connection", "close")])
    connection.send(lines(event(), DONE) if request.stream else json.dumps(completion()).encode())
    connection.cut()


NOISE = b": hello\nevent: message\nid: 7\nretry: 10\n"
TOOL = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


def only(**message):
    """An answer without a word of content."""
    whole_message = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": "stop"}
    return both(whole(completion(choices=[whole_message])), events(event(message), DONE))


SHAPES = [
    kept("JSON for a stream", whole(completion()), plain=None),
    kept("a stream for a plain request", EVENTS, streaming=None),
    *(kept(f"content type {kind or 'missing'}", typed(kind))
      for kind in ("application/json", "text/event-stream", "text/plain", "application/octet-stream", None)),
    kept("a stream for a plain request, without a content type", events(event(), DONE, kind=None), streaming=None),
    Row("gzip", zipped, "top|low", "top|low", "top|503"),
    kept("a BOM in front", both(whole(BOM + json.dumps(completion()).encode()), raw(BOM + lines(event(), DONE)))),
    kept("a BOM in front of each event's data", raw(lines(event(), DONE, begin=b"data: " + BOM)), plain=None),
    repaired("NaN", with_bytes(b'"X"', b"NaN", SAID)),
    repaired("-Infinity", with_bytes(b'"X"', b"-Infinity", SAID)),
    repaired("half of a surrogate pair", with_bytes(b"HERE", b"\\ud83d", "before HERE after"), text=around),
    repaired("bytes that are not UTF-8", with_bytes(b"HERE", b"\xff\xc3", "before HERE after"), text=around),
    kept("lines that end in CRLF", raw(lines(event(), DONE, end=b"\r\n")), plain=None),
    kept("lines that end in CR", raw(lines(event(), DONE, end=b"\r")), plain=None),
    kept("data: without a blank", raw(lines(event(), DONE, begin=b"data:")), plain=None),
    kept("comments, names and ids of events", raw(lines(event(), DONE, begin=NOISE + b"data: ")), plain=None),
    kept("data on two lines", raw(lines(event(), DONE).replace(b', "object"', b',\ndata: "object"')), plain=None),
    kept("a byte at a time", in_single_bytes, text="é€😀"),
    kept("an end by closing", until_closed),
    kept("103 first", early_hints),
    kept("only a tool call", only(**TOOL), text=""),
    kept("only reasoning", only(reasoning_content="hm"), text=""),
    kept("only a refusal", only(refusal="no"), text=""),
]

# ---- no progress -----------------------------------------------------------------------------------------------------------

def drip(first, piece, kind=None):
    """Says `first`, and then `piece` ten times a second for ever."""
    def play(connection, request):
        connection.begin(kind or ("text/event-stream" if request.stream else "application/json"))
        if first:
            connection.piece(first)
        for _ in range(300):
            connection.piece(piece if request.stream else b" \n")
            if connection.gone(0.1):
                connection.cut()
    return play


def data(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def still(name, play, plain="low", streaming="low", alone="503|504"):
    """Alone, the only tier is not left because it is slow: request_timeout ends it there."""
    return Row(name, play, plain, streaming, alone, QUICK, {"request_timeout": "4s"})


BEGUN = data(event())
STILL = [
    still("pings only", drip(b"", b"event: ping\ndata: {}\n\n")),
    still("pings of a type only", drip(b"", b'event: ping\ndata: {"type": "ping"}\n\n'), None),
    still("blanks only", drip(b"", b"\n"), None),
    still("comments only", drip(b"", b": still here\n\n"), None),
    still("half a MiB of comments", drip(b"", b": " + b"x" * (64 << 10) + b"\n\n"), None),
    still("empty deltas only", drip(b"", data(event({"content": ""}))), None),
    still("nothing at all", lambda connection, _: connection.silent(30)),
    still("some of it, then pings only", drip(BEGUN, b"event: ping\ndata: {}\n\n"), None, "cut", "cut"),
    still("some of it, then blanks only", drip(BEGUN, b"\n"), None, "cut", "cut"),
    still("some of it, then comments only", drip(BEGUN, b": still here\n\n"), None, "cut", "cut"),
    still("some of it, then nothing", then(lambda connection: connection.silent(30), finish=False), None, "cut", "cut"),
]

# ---- errors ----------------------------------------------------------------------------------------------------------------

def refuse(status, message="told to fail", code=None, kind="invalid_request_error", **fields):
    return whole(error(message, code, kind), status, fields=[(name.replace("_", "-"), value) for name, value in fields.items()])


def once(first):
    """Fails each prompt once, and then answers it."""
    seen = set()

    def play(connection, request):
        if request.prompt in seen:
            return well(connection, request)
        seen.add(request.prompt)
        return first(connection, request)
    return play


HTML = b"<html><head><title>Error</title></head><body><h1>nginx</h1></body></html>"
UNKNOWN_MODELS = [
    (404, "The model `m` does not exist.", "model_not_found"), (404, "model 'm' not found", None),
    (400, "Invalid model name passed in model=m", None), (400, "m is not a valid model ID", None),
    (404, "No endpoints found for m.", None), (422, "unknown model: m", None),
]
ERRORS = [
    *(Row(f"{status}, our account or configuration", refuse(status)) for status in (401, 402, 407, 410, 421)),
    *(Row(f"{status}, overload", refuse(status, retry_after="7"), alone=f"{status}") for status in (409, 425, 429)),
    *(Row(f"{status}, another tier may take it", refuse(status), alone=f"{status}") for status in (413, 414, 431)),
    *(Row(f"{status} with an HTML page", whole(HTML, status, kind="text/html"), alone=alone)
      for status, alone in ((400, "400"), (403, "503"), (404, "404"), (413, "413"), (500, "503"), (502, "503"))),
    Row("400 with plain text", whole(b"upstream connect error", 400, kind="text/plain"), alone="400"),
    *(Row(f"{status}, {message!r}", refuse(status, message, code)) for status, message, code in UNKNOWN_MODELS),
    Row("400 of the client's own", refuse(400, WORDS), "400", "400", "400"),
    Row("422 of the client's own", refuse(422, WORDS), "422", "422", "422"),
    *(kept(f"{status} once", once(refuse(status, kind="server_error"))) for status in (500, 502, 504)),
    kept("a reset once", once(lambda connection, _: connection.reset())),
    kept("a close without a byte, once", once(lambda connection, _: connection.cut())),
    *(Row(f"{status} always", refuse(status, kind="server_error")) for status in (500, 502, 504, 508, 520)),
    Row("501 always", refuse(501), alone="501"),
    Row("a reset always", lambda connection, _: connection.reset()),
    *(Row(f"{status}", whole(b"", status, fields=[("Location", "http://127.0.0.1:1/"), ("Upgrade", "x")]))
      for status in (101, 302, 304, 307)),
    Row("what is not HTTP", lambda connection, _: (connection.send(b"SSH-2.0-OpenSSH_9.2\r\n"), connection.cut())),
]

GROUPS = {"nothing": NOTHING, "ends": ENDS, "shapes": SHAPES, "still": STILL, "errors": ERRORS}
