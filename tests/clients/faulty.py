#!/usr/bin/env python3
"""An upstream of OpenAI's form that does wrong as it is told, on plain sockets, with a thread for each connection.

Inside a test it is an `Upstream` (a remote tier) whose `play` answers each request. As a program it is a local engine
(`engine()` gives the tier): a prompt that holds `fault:NAME` gets that fault, any other an answer.
`FAULTY` in its environment is a JSON object: `log_prompts`, `record` (a file for the head of each request, one JSON line each),
`pause` (seconds for a word).
"""
import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import socket
import struct
import sys
import threading
import time

SAID = "said by the upstream"
MOST = 4 << 20
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


# ---- what is said ----------------------------------------------------------------------------------------------------------

def completion(text=SAID, finish="stop", **more):
    """A whole chat answer; `choices` in `more` replaces its choices."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}, **more}


def event(delta=None, finish=None, **more):
    """One chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": SAID} if delta is None else delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def text_completion(text=SAID, finish="stop"):
    return {"id": "x", "object": "text_completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def error(message="told to fail", code=None, kind="server_error"):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def embeddings(model="m"):
    return {"object": "list", "model": model, "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def encoded(value):
    return value if isinstance(value, bytes) else json.dumps(value).encode()


# ---- one request and its connection ----------------------------------------------------------------------------------------

@dataclasses.dataclass
class Request:
    method: str
    path: str
    fields: list                       # (name in lower case, value)
    body: bytes
    at: float = dataclasses.field(default_factory=time.monotonic)
    ended: float | None = None         # when its connection was seen to end before the answer was whole

    def field(self, name):
        return next((value for key, value in self.fields if key == name), None)

    @functools.cached_property
    def value(self):
        """The body as an object. A huge one is not read: it would take the time of all other connections."""
        try:
            value = json.loads(self.body or b"{}") if len(self.body) < MOST else {}
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def stream(self):
        return self.value.get("stream") is True

    @property
    def prompt(self):
        """What a client of these tests asked; a trial of the product asks something else."""
        asked = self.value
        return json.dumps(asked.get("messages") or asked.get("prompt") or asked.get("input") or "")


class Over(Exception):
    """The connection is not to be used again."""


class Connection:
    def __init__(self, taken):
        self.socket = taken
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = taken.makefile("rb")
        self.chunked = False

    def read(self):
        """The next request, or None when there is none."""
        line = self.reader.readline().decode("latin-1").split()
        if len(line) < 3:
            return None
        fields, body = [], b""
        while (row := self.reader.readline().decode("latin-1").rstrip("\r\n")):
            name, _, value = row.partition(":")
            fields.append((name.lower(), value.strip()))
        given = dict(fields)
        if "chunked" in given.get("transfer-encoding", ""):
            while size := int(self.reader.readline().split(b";")[0], 16):
                body += self.reader.read(size)
                self.reader.readline()
            self.reader.readline()
        elif length := int(given.get("content-length", 0)):
            body = self.reader.read(length)
        return Request(line[0], line[1], fields, body)

    def send(self, data):
        self.socket.sendall(data)

    def head(self, status=200, kind="application/json", fields=()):
        rows = [f"HTTP/1.1 {status} Told", *([f"Content-Type: {kind}"] if kind else []), *(f"{n}: {v}" for n, v in fields)]
        self.send("\r\n".join([*rows, "", ""]).encode("latin-1"))

    def whole(self, value, status=200, kind="application/json", fields=()):
        body = encoded(value)
        self.head(status, kind, [*fields, ("Content-Length", len(body))])
        self.send(body)

    def begin(self, kind="text/event-stream", fields=()):
        self.head(200, kind, [*fields, ("Transfer-Encoding", "chunked")])
        self.chunked = True

    def piece(self, data):
        """Bytes of a stream's body."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def events(self, *values):
        for value in values:
            self.piece(b"data: " + encoded(value) + b"\n\n")

    def end(self):
        self.send(b"0\r\n\r\n")

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Over

    def cut(self):
        raise Over

    def gone(self, seconds):
        """Does the other side end the connection within so many seconds?"""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(None)

    def silent(self, seconds=600):
        """Says nothing more, until the other side has had enough."""
        self.gone(seconds)
        raise Over


def stream(connection, *values, kind="text/event-stream"):
    connection.begin(kind)
    connection.events(*values, b"[DONE]")
    connection.end()


def well(connection, request, text=SAID, pause=0.0):
    """As a healthy engine answers; `pause` is how long a word takes."""
    model = request.value.get("model") or "m"
    chat = request.path not in (PATHS[1], "/completion")         # llama-server has both
    if request.path == PATHS[2]:
        connection.whole(embeddings(model))
    elif not request.stream:
        time.sleep(pause * len(text.split()))
        connection.whole(completion(text, model=model) if chat else text_completion(text))
    elif not chat:
        stream(connection, text_completion(text, None), text_completion("", "stop"))
    else:
        connection.begin()
        for word in text.split():
            time.sleep(pause)
            connection.events(event({"content": word + " "}, model=model))
        connection.events(event({}, "stop", model=model), b"[DONE]")
        connection.end()


class Upstream:
    """A server with a port of its own. `play(connection, request)` answers what is not asked about health."""

    def __init__(self, play=well, port=0, models=("m",)):
        self.play, self.models = play, models
        self.requests = []             # all but those for health and counters, trials of the product included
        self.health = 200
        self.listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._sockets, self._lock = set(), threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def tier(self, name, **more):
        """A remote tier with this upstream."""
        return {"name": name, "engine": "remote", "url": self.url, "model": "m",
                "health": {"interval": "250ms", "timeout": "2s"}, **more}

    def asked(self, words="supervisors"):
        """The requests of clients, told by a word of their prompts."""
        return [request for request in list(self.requests) if words in request.prompt]

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            for taken in self._sockets:
                with contextlib.suppress(OSError):
                    taken.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self.listener.accept()
                threading.Thread(target=self._converse, args=(taken,), daemon=True).start()

    def _converse(self, taken):
        with self._lock:
            self._sockets.add(taken)
        connection, request = Connection(taken), None
        try:
            while request := connection.read():
                if not self._own(connection, request):
                    self.requests.append(request)
                    self.play(connection, request)
                if request.field("connection") == "close":
                    break
        except (OSError, Over, ValueError):
            if request:
                request.ended = time.monotonic()
        finally:
            with self._lock:
                self._sockets.discard(taken)
            connection.reader.close()
            taken.close()

    def _own(self, connection, request):
        """Health, models and counters; the counters move whenever they are read."""
        path = request.path.split("?")[0]
        if request.method != "GET":
            return False
        if path == "/health":
            connection.whole({"status": "ok"}, self.health)
        elif path == "/v1/models":
            connection.whole({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        elif path == "/metrics":
            moved = time.monotonic_ns()
            connection.whole(f"llamacpp:prompt_tokens_total {moved}\nllamacpp:tokens_predicted_total {moved}\n"
                             f"llamacpp:n_decode_total {moved}\n".encode(), kind="text/plain")
        else:
            return False
        return True


# ---- as a local engine -----------------------------------------------------------------------------------------------------

HALF = b"7a1200\r\n" + b'data: {"choices":[{"index":0,"delta":{"content":"'.ljust(8_000_000, b"x") + b"\r\n"


def half_an_event(connection, sent=lambda: None):
    """An event that begins, almost as long as one may be, and does not go on; `sent` is called when the half is out."""
    connection.begin()
    connection.send(HALF)
    sent()
    connection.silent()


def paced(connection, request, pause=0.05, tokens=10_000):
    """A stream of one word after the other, until nobody listens."""
    connection.begin()
    for number in range(tokens):
        connection.events(event({"content": f"w{number} "}, model=request.value.get("model") or "m"))
        if connection.gone(pause):
            raise Over
    connection.events(event({}, "stop"), b"[DONE]")
    connection.end()


def die(*_):
    """As llama.cpp does at a failed assertion."""
    print("/src/llama-batch.cpp:42: GGML_ASSERT(n_tokens > 0) failed", flush=True)
    os.abort()


ENGINE_FAULTS = {
    "die": die,
    "500": lambda connection, _: connection.whole(error("vector::_M_range_check: __n (which is 7) >= this->size()", 500), 500),
    "reset": lambda connection, _: connection.reset(),
    "half": lambda connection, _: half_an_event(connection),
    "paced": paced,
    "slow": lambda connection, request: (time.sleep(0.5), well(connection, request)),
}


def engine(name, settings=None, **more):
    """A local tier whose engine is this program."""
    return {"name": name, "engine": "llama-server", "command": [sys.executable, str(pathlib.Path(__file__).resolve())],
            "model": "m", "gpus": [], "env": {"FAULTY": json.dumps(settings or {})},
            "health": {"interval": "250ms", "timeout": "2s"},
            "restart": {"first": "0s", "base": "250ms", "hold_after": 100}, **more}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    flags, _ = parser.parse_known_args()
    settings = json.loads(os.environ.get("FAULTY", "{}"))
    log_lock = threading.Lock()

    def play(connection, request):
        with log_lock:
            if settings.get("log_prompts"):
                asked = request.value.get("messages") or [{}]
                print(f"srv  log: prompt: {asked[-1].get('content')}", flush=True)
            if path := settings.get("record"):
                with open(path, "a") as record:
                    record.write(json.dumps({"path": request.path, "fields": request.fields}) + "\n")
        for name, fault in ENGINE_FAULTS.items():
            if f"fault:{name}" in request.prompt:
                return fault(connection, request)
        return well(connection, request, pause=settings.get("pause", 0.0))

    with Upstream(play, flags.port) as upstream:
        print(f"main: server is listening on {upstream.url}", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
