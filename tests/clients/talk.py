"""A client that sends any bytes over a socket of its own, and reads what comes back as HTTP.

`wire.py` tells endings of a well-formed request apart; here the request itself is what may be wrong.
"""
import contextlib
import dataclasses
import http.client
import json
import socket
import time

CHAT = "/v1/chat/completions"


def chat(text="Tell me about supervisors.", **more):
    """The body of a chat request."""
    return json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}).encode()


@dataclasses.dataclass
class Reply:
    """`status` 0: no status line came. `whole`: the body ended as its framing says."""
    status: int = 0
    fields: list = dataclasses.field(default_factory=list)     # (name in lower case, value)
    body: bytes = b""
    whole: bool = False
    seconds: float = 0.0
    problem: str = ""

    def field(self, name):
        return next((value for key, value in self.fields if key == name.lower()), None)

    def has(self, text):
        """Is this text anywhere in the answer, fields included?"""
        return text in self.text or any(text in f"{name}: {value}" for name, value in self.fields)

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def value(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def error(self):
        """The error object of the answer, or {}."""
        found = self.value.get("error") if isinstance(self.value, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def tier(self):
        return self.field("x-mainstay-tier")

    def __str__(self):
        words = [str(self.status or "no answer"), str(self.error.get("code") or ""), self.problem]
        return " ".join(word for word in words if word)


def head(method, path, fields, version="HTTP/1.1"):
    return "\r\n".join([f"{method} {path} {version}", *(f"{name}: {value}" for name, value in fields), "", ""]).encode("latin-1")


class Talk:
    """One connection. `source` is the client's own address."""

    def __init__(self, address, source=None, timeout=10.0):
        self.address = address
        self.socket = socket.create_connection(address, timeout, source_address=(source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def request(self, method="POST", path=CHAT, fields=(), body=None, *, host=True, version="HTTP/1.1"):
        """Sends a request. Host, Content-Type and Content-Length are added unless `fields` name them."""
        given = {name.lower() for name, _ in fields}
        own = [("Host", f"{self.address[0]}:{self.address[1]}")] if host and "host" not in given else []
        if body is not None:
            own += [(name, value) for name, value in (("Content-Type", "application/json"), ("Content-Length", len(body)))
                    if name.lower() not in given]
        self.began = time.monotonic()
        self.send(head(method, path, [*own, *fields], version) + (body or b""))
        return self

    def reply(self, method="POST", most=None):
        """Reads one answer whole, or the first `most` bytes of its body; never raises for what the other side does."""
        got = Reply()
        answer = http.client.HTTPResponse(self.socket, method=method)
        try:
            answer.begin()
            got.status, got.fields = answer.status, [(name.lower(), value) for name, value in answer.getheaders()]
            got.body = answer.read() if most is None else answer.read(most)
            got.whole = True
        except http.client.IncompleteRead as problem:
            got.body, got.problem = problem.partial, "cut"
        except (OSError, http.client.HTTPException) as problem:
            got.problem = type(problem).__name__
        got.seconds = time.monotonic() - self.began
        return got

    def ended(self, seconds):
        """Does the other side close within so many seconds? What it says before is dropped."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False


def ask(address, method="POST", path=CHAT, fields=(), body=chat(), *, source=None, timeout=10.0, **how):
    """One request on a connection of its own."""
    try:
        with Talk(address, source, timeout) as talk:
            with contextlib.suppress(OSError):             # it may be answered before all of it was read
                talk.request(method, path, fields, body, **how)
            return talk.reply(method)
    except OSError as problem:
        return Reply(problem=type(problem).__name__)


def get(address, path, fields=(), **how):
    return ask(address, "GET", path, fields, None, **how)


def within(seconds, condition, every=0.05):
    """Polls until the condition gives something true, and returns that; else what it gave last."""
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(every)
    return found
