"""One HTTP/1.1 request on a socket of its own, read so closely that every way in which an answer can end is told apart.

Client libraries hide the difference between an answer that ended and one that was cut; here it is the result.
"""
import asyncio
import collections
import dataclasses
import json
import re
import time

LINE_LIMIT = 1 << 20


@dataclasses.dataclass
class Answer:
    """What one client saw. `ending` is one of:

    done                 all of it: finish_reason, and for a stream [DONE] and the end of the chunked body
    error-event          a stream that says that it is cut, and has no [DONE]
    error                an answer with an error status and a whole body
    cut                  the connection ended before the body did, and no error event came first
    clean-without-done   a stream that ends like a whole one, without finish_reason, [DONE] or error
    done-after-error     [DONE] after an error event
    done-without-finish  [DONE], or a whole JSON answer, without finish_reason
    none                 no status line: refused, reset or closed
    timeout              not over in time
    """
    status: int = 0
    headers: dict = dataclasses.field(default_factory=dict)
    content: int = 0                 # characters of text that reached the client
    ending: str = "none"
    error: str | None = None         # the code, else the message, of the error in the answer
    detail: str = ""                 # what the socket said
    started: float = 0.0             # time.monotonic()
    first_content: float | None = None
    seconds: float = 0.0
    text: str = ""

    @property
    def tier(self):
        return self.headers.get("x-mainstay-tier", "?")

    @property
    def attempts(self):
        return int(self.headers.get("x-mainstay-attempts", "1"))


class Cut(Exception):
    """The connection ended before the body did."""


async def body_pieces(reader, headers):
    """The body's bytes as they come. Raises Cut unless it ends as its framing says."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while True:
            line = await reader.readline()
            if not line.endswith(b"\r\n"):
                raise Cut("in a chunk's head")
            size = int(line.split(b";")[0], 16)
            chunk = await exactly(reader, size + 2)
            if not chunk.endswith(b"\r\n"):
                raise Cut("in a chunk's end")
            if size == 0:
                return
            yield chunk[:-2]
    elif "content-length" in headers:
        left = int(headers["content-length"])
        while left:
            piece = await reader.read(min(left, 65536))
            if not piece:
                raise Cut(f"{left} bytes before the end")
            left -= len(piece)
            yield piece
    else:
        while piece := await reader.read(65536):
            yield piece


async def exactly(reader, count):
    try:
        return await reader.readexactly(count)
    except asyncio.IncompleteReadError as problem:
        raise Cut("in a chunk") from problem


async def stream_events(pieces):
    """The data of each server-sent event. Its lines end in LF, CR LF or CR, and a blank one ends it."""
    rest, data = b"", []
    async for piece in pieces:
        rest += piece
        # A CR at the end may be half of a line end.
        lines = re.split(rb"\r\n|\n|\r(?!\Z)", rest)
        rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data = []
    if data and rest == b"\r":
        yield b"\n".join(data)


def error_of(value):
    error = value.get("error") if isinstance(value, dict) else None
    if error is None:
        return None
    return str(error.get("code") or error.get("message")) if isinstance(error, dict) else str(error)


def text_of(value, part):
    """The text and finish_reason of the first choice; `part` is "delta" in a stream, else "message"."""
    choice = (value.get("choices") or [{}])[0]
    words = choice.get(part) or {}
    return words.get("content") or choice.get("text") or "", choice.get("finish_reason")


def heard(answer, text, on_content):
    if text:
        answer.first_content = answer.first_content or time.monotonic()
        answer.content += len(text)
        answer.text += text
        if on_content:
            on_content(answer)


async def read_stream(answer, pieces, on_content):
    finish = None
    done = False
    async for data in stream_events(pieces):
        if data == b"[DONE]":
            done = True
            continue
        value = json.loads(data)
        answer.error = answer.error or error_of(value)
        text, reason = text_of(value, "delta")
        finish = finish or reason
        heard(answer, text, on_content)
    if answer.error:
        answer.ending = "done-after-error" if done else "error-event"
    elif done:
        answer.ending = "done" if finish else "done-without-finish"
    else:
        answer.ending = "clean-without-done"


async def read_whole(answer, pieces, on_content):
    body = b"".join([piece async for piece in pieces])
    if answer.status != 200:
        answer.ending = "error"
        try:
            answer.error = error_of(json.loads(body))
        except ValueError:
            answer.detail = body[:80].decode(errors="replace")
        return
    value = json.loads(body)
    text, finish = text_of(value, "message")
    heard(answer, text, on_content)
    answer.ending = "done" if finish else "done-without-finish"


async def read_head(answer, reader):
    line = await reader.readline()
    if not line.startswith(b"HTTP/1.1 ") or not line.endswith(b"\r\n"):
        raise ConnectionError("closed without a status line")
    answer.status = int(line.split()[1])
    while (line := (await reader.readline()).decode("latin-1").rstrip("\r\n")):
        name, _, value = line.partition(":")
        answer.headers[name.lower()] = value.strip()


async def exchange(answer, address, path, body, on_content):
    reader, writer = await asyncio.open_connection(*address, limit=LINE_LIMIT)
    try:
        payload = json.dumps(body).encode()
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode() + payload)
        await writer.drain()
        await read_head(answer, reader)
        pieces = body_pieces(reader, answer.headers)
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            await read_stream(answer, pieces, on_content)
        else:
            await read_whole(answer, pieces, on_content)
    finally:
        writer.close()


async def ask(address, body, *, path="/v1/chat/completions", timeout=180.0, on_content=None):
    """Sends one request and returns the Answer; never raises for anything that the other side does."""
    answer = Answer(started=time.monotonic())
    try:
        await asyncio.wait_for(exchange(answer, address, path, body, on_content), timeout)
    except asyncio.TimeoutError:
        answer.ending = "timeout"
    except (OSError, Cut) as problem:
        # An error event is word enough that the stream is cut, however the connection ends after it.
        answer.ending = "error-event" if answer.error else "cut" if answer.status else "none"
        answer.detail = str(problem) or type(problem).__name__
    except ValueError as problem:                          # neither HTTP nor JSON
        answer.ending, answer.detail = "cut", f"unreadable: {problem}"
    answer.seconds = time.monotonic() - answer.started
    return answer


def chat(model=None, *, stream, max_tokens, **more):
    """The body of a chat request that lasts for max_tokens; without a model it is for the default chain."""
    named = {} if model is None else {"model": model}
    # Temperature 1: Ollama ends an answer that repeats one token 30 times.
    return {**named, "messages": [{"role": "user", "content": "Tell me about supervisors."}],
            "max_tokens": max_tokens, "temperature": 1.0, "stream": stream, **more}


class Crowd:
    """Clients that ask again and again until told to stop; keeps what each request saw."""

    def __init__(self, address, *, model=None, streaming, other, max_tokens, pause=0.5):
        self.address, self.model, self.max_tokens, self.pause = address, model, max_tokens, pause
        self.answers = []
        self.in_flight = {}          # client → the answer that is arriving
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._client(n, n < streaming)) for n in range(streaming + other)]

    async def _client(self, number, stream):
        while not self._stopping.is_set():
            body = chat(self.model, stream=stream, max_tokens=self.max_tokens, seed=number)
            answer = await ask(self.address, body, on_content=lambda answer: self.in_flight.update({number: answer}))
            self.in_flight.pop(number, None)
            self.answers.append((stream, answer))
            # Without a pause the clients would take the CPU from an engine that is starting.
            await asyncio.sleep(self.pause)

    def enough(self):
        """No request is begun any more."""
        self._stopping.set()

    async def stop(self):
        """Lets open requests end; returns (was a stream, Answer) of every request."""
        self.enough()
        await asyncio.gather(*self._tasks)
        return self.answers


def judge(answers):
    """The figures that must be zero, and the ones that only tell what happened."""
    figures = collections.Counter()
    for stream, answer in answers:
        figures["requests"] += 1
        figures["streams"] += stream
        figures[answer.ending] += 1
        figures["on " + answer.tier] += answer.status == 200
        figures["moved"] += answer.attempts > 1
        figures["unanswered"] += answer.content == 0 and answer.status != 200
        figures["empty"] += answer.content == 0 and answer.status == 200
        figures["bare cuts"] += answer.ending == "cut"
        figures["false ends"] += answer.ending in ("clean-without-done", "done-after-error", "done-without-finish")
    return figures
