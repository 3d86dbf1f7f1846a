"""1.5 to 1.7: what an engine writes onto a terminal and into a mail, whose words count as a cause, and where a password goes."""
import contextlib
import fcntl
import os
import pathlib
import pty
import signal
import struct
import subprocess
import tempfile
import termios
import threading

import faulty
import rig as rigs
import talk

from .relay import Relay, self_signed

# Sets a terminal's title; rings; clears it; C1's CSI; turns text round; has no width.
RAW = {"ESC ]": "\x1b]0;owned", "BEL": "\x07", "ESC [2J": "\x1b[2J", "C1 CSI": "\u009b", "RIGHT-TO-LEFT OVERRIDE": "\u202e",
       "ZERO WIDTH SPACE": "\u200b"}
LINE = "hostile " + " ".join(RAW.values()) + " line"
SHOWN = ["\\x1b", "\\u202e"]


class Terminal:
    """A terminal of 400 columns; what was written onto it is in `seen`."""

    def __init__(self):
        self.leader, self.follower = pty.openpty()
        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 400, 0, 0))
        self.seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):
            while data := os.read(self.leader, 65536):
                self.seen += data

    def let_go(self):
        os.close(self.follower)
        self._reader.join(5)
        os.close(self.leader)
        return self.seen.decode(errors="replace")


def on_terminal(words, seconds=10):
    """What a command writes onto a terminal."""
    terminal = Terminal()
    child = subprocess.Popen(words, stdin=terminal.follower, stdout=terminal.follower, stderr=terminal.follower,
                             start_new_session=True, env={**os.environ, "TERM": "xterm"})
    try:
        child.wait(seconds)
    finally:
        child.kill()
        child.wait()
        text = terminal.let_go()
    return text


def harmless(text, *wanted):
    raw = [name for name, characters in RAW.items() if characters in text]
    missing = [word for word in wanted if word not in text]
    return not raw and not missing, f"{len(text)} characters{', raw: ' + ', '.join(raw) if raw else ''}" \
        f"{', not shown: ' + ' '.join(missing) if missing else ''}"


def terminals(rows):
    """an engine's control characters on terminals, in pipes and in mail"""
    failing = {"print": [LINE], "print_err": [f"RuntimeError: {LINE}"]}
    with Relay() as relay:
        mail = {"relay": f"smtp://127.0.0.1:{relay.port}", "from": "mainstay@gpu1.example", "to": ["oncall@gpu1.example"],
                "at_most_every": "1s"}
        tiers = [rigs.fake("a", failing, restart={"first": "1h", "base": "1h", "max": "1h"}), rigs.fake("b")]
        rig = rigs.Rig(tiers, {"drain": "1s"}, quiet=True, mail=mail)
        terminal = Terminal()
        rig.errors = terminal.follower
        with rig:
            rig.until_ready("a", "b", seconds=30)
            talk.within(5, lambda: b"hostile" in terminal.seen)
            rows.case("`logs` on a terminal", lambda: harmless(on_terminal(rig.words("logs", "a")), *SHOWN))
            rows.case("`logs` into a pipe is as it was written", lambda: (
                LINE in (said := rig.command("logs", "a").stdout), f"{len(said)} characters"))
            rows.case("`logs --raw` on a terminal", lambda: (
                LINE in (said := on_terminal(rig.words("logs", "--raw", "a"))), f"{said[:60]!r}"))
            os.kill(rig.pid("a"), signal.SIGABRT)
            rig.until("the incident is kept", lambda: rig.command("incidents").stdout.count("\n") > 1, 20)
            rig.until("the end is known", lambda: rig.tier("a")["process"]["last_exit"], 20)
            talk.within(10, lambda: relay.mails)
            rows.case("the incident has the line at all", lambda: (
                "hostile" in (said := on_terminal(rig.words("incident", "last"))), f"{len(said)} characters"))
            for words in (["incident", "last"], ["incidents"], ["status"], ["events"]):
                rows.case(f"`{' '.join(words)}` on a terminal", lambda: harmless(on_terminal(rig.words(*words))))
            rows.case("mail", lambda: harmless("\n".join(relay.texts()), "hostile"))
        rows.nothing_left(rig)
        said = terminal.let_go()
        rows.case("the echo on a standard error that is a terminal", lambda: harmless(said, "hostile", *SHOWN))


# ---- 1.6 -------------------------------------------------------------------------------------------------------------------

PROMPTS = [
    ("as PyTorch says it", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("in a sentence", "My program says: CUDA out of memory. Why?"),
    ("as llama.cpp says it", "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 2048.00 MiB on device 0: "
                             "cudaMalloc failed: out of memory"),
    ("on a line of its own", "Explain this:\nCUDA out of memory\nplease"),
    ("about a disk", "OSError: [Errno 28] No space left on device"),
    ("about a model", "error loading model: unable to open model file"),
    ("about a fault of the GPU", "CUDA error: an illegal memory access was encountered"),
]


def prompts(rows):
    """a client's words in the log of an engine that is killed by somebody else"""
    with rows.agent([faulty.engine("a", {"log_prompts": True}), rigs.fake("b")]) as rig:
        killed = signal.SIGKILL, {"killed-from-outside"}
        for what, text in PROMPTS:
            rows.case(f"a prompt {what}", lambda: cause_of(rig, [text], *killed))
        what, text = PROMPTS[0]
        rows.case(f"a prompt {what}, long before", lambda: cause_of(rig, [text, *["and so on"] * 60], *killed))
        rows.case(f"a prompt {what}, then a crash", lambda: cause_of(rig, [text], signal.SIGSEGV, {"engine-bug", "unknown"}))


def cause_of(rig, texts, number, wanted):
    rig.until("the engine is ready", lambda: rig.tier("a")["routable"] and rig.status()["serving"] == "a", 30)
    run = rig.tier("a")["process"]["run"]
    for text in texts:
        if (reply := talk.ask(rig.address, body=talk.chat(text))).tier != "a":
            return False, f"the prompt was answered by {reply.tier}: {reply}"
    talk.within(3, lambda: texts[-1].splitlines()[-1] in rig.command("logs", "a").stdout)
    os.kill(rig.pid("a"), number)

    def ended():
        last = rig.tier("a")["process"]["last_exit"]
        return last if last and last["run"] == run else None
    rig.until("its end is known", ended, 20)
    last = ended()
    return last["cause"] in wanted, f"{last['cause']} ({last['evidence'] or 'no evidence'})"[:140]


# ---- 1.7 -------------------------------------------------------------------------------------------------------------------

PASSWORD = "correct-horse-attack"


def passwords(rows):
    """a password, and a relay at smtp:// whose certificate nobody has signed"""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "password").write_text(PASSWORD + "\n")
        (folder / "password").chmod(0o600)
        with Relay(self_signed(folder)) as relay:
            def configured(**more):
                mail = {"relay": f"smtp://localhost:{relay.port}", "from": "a@gpu1.example", "to": ["b@gpu1.example"],
                        "username": "mainstay", "password": {"file": str(folder / "password")}, **more}
                tier = {"name": "far", "engine": "remote", "url": "http://127.0.0.1:1", "model": "m"}
                folders = {"run_dir": str(folder / "run"), "state_dir": str(folder / "state")}
                path = folder / "mainstay.toml"
                path.write_text(rigs.table("[agent]", folders) + rigs.table("[[tier]]", tier) + rigs.table("[alert.mail]", mail))
                return str(path)

            def command(*words):
                return subprocess.run([rigs.binary(), *words], capture_output=True, text=True, timeout=60,
                                      stdin=subprocess.DEVNULL)

            def sent(**more):
                relay.said.clear()
                said = command("alert", "test", "--config", configured(**more))
                return said, relay.logins()

            said, logins = sent()
            rows.case("`alert test`: the relay gets no login", lambda: (
                not logins and said.returncode != 0, f"{len(logins)} logins, exit {said.returncode}"))
            checked = command("check", "--config", configured())
            text = (checked.stdout + checked.stderr).strip()
            rows.case("`check` says what to write", lambda: (
                "ca" in text.split() or "`ca`" in text, f"exit {checked.returncode}: {text[-200:]}"))
            said, logins = sent(ca=str(folder / "certificate.pem"))
            rows.case("with its `ca` the relay gets the login", lambda: (
                bool(logins) and said.returncode == 0, f"{len(logins)} logins, exit {said.returncode}"))


SCENES = [("1.5", terminals), ("1.6", prompts), ("1.7", passwords)]
