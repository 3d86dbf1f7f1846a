#!/usr/bin/env python3
"""mail.py [--down SECONDS] [--only SCENE,…]: mail of `mainstay run` and `mainstay alert test` through a real SMTP server.

The server is aiosmtpd with STARTTLS and AUTH. It counts what it answered with 250, by Message-ID: however the relay behaves,
and however often the agent is killed, each mail must be among them exactly once. Engines are fakes; only their deaths matter.
"""
import argparse
import asyncio
import collections
import contextlib
import email
import json
import logging
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import rig

if os.environ.get("MAINSTAY_MAIL_SELF") is None:        # again, with the Python that has aiosmtpd
    subprocess.run([rig.ROOT / "scripts/engines", "mail"], check=True)
    python = rig.engines()["MAINSTAY_MAIL_PYTHON"]
    os.execve(python, [python, *sys.argv], {**os.environ, "MAINSTAY_MAIL_SELF": "1"})

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

HOST = "localhost"
USER, PASSWORD = "mainstay", "correct horse"
SECRETS = [PASSWORD, "AG1haW5zdGF5AGNvcnJlY3QgaG9yc2U"]      # as it is, and as AUTH PLAIN sends it


# ---- the relay -----------------------------------------------------------------------------------------------------------

class Post:
    """An SMTP server on a port that stays its own while it is down; `faults` are taken one by one, at their stage."""

    def __init__(self, folder, **options):
        self.folder, self.options = folder, options
        self.taken = []                                # (Message-ID, subject, In-Reply-To, text), answered with 250
        self.faults = []                               # (stage, "451 …" | "hang" | "drop")
        self.met = []                                  # faults that were had
        self.logins = collections.Counter()
        self.password = PASSWORD
        self.reached = threading.Event()               # a hang has begun
        self.holder = socket.socket()
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.holder.bind(("127.0.0.1", 0))             # bound and not listening: connections are refused
        self.port = self.holder.getsockname()[1]
        self.controller = None

    def up(self):
        self.holder.close()
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, **self.options)
        self.controller.start()
        return self

    def down(self):
        if self.controller:
            self.controller.stop(no_assert=True)
            self.controller = None

    async def _fault(self, stage, server):
        """The answer that the next fault of this stage gives; None when there is none."""
        fault = next((fault for fault in self.faults if fault[0] == stage), None)
        if fault is None:
            return None
        self.faults.remove(fault)
        self.met.append(fault)
        if fault[1] == "hang":
            self.reached.set()
            await asyncio.sleep(3600)
        if fault[1] == "drop":
            server.transport.abort()
            return "421 dropped"
        return fault[1]

    async def handle_RCPT(self, server, session, envelope, address, options):
        if answer := await self._fault("RCPT", server):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server, session, envelope):
        if answer := await self._fault("DATA", server):
            return answer
        message = email.message_from_bytes(envelope.content)
        text = message.get_payload(decode=True).decode().replace("\r\n", "\n")
        self.taken.append((message["Message-ID"], message["Subject"], message["In-Reply-To"], text))
        return "250 taken"

    def authenticate(self, server, session, envelope, mechanism, data):
        right = (data.login, data.password) == (USER.encode(), self.password.encode())
        self.logins[right] += 1
        return AuthResult(success=right, handled=False)     # a refusal is left to the server to word

    def subjects(self):
        return [subject for _, subject, _, _ in self.taken]


def certificate(folder, name, host, ca=None):
    """A key and a certificate for a host, made by an authority of its own (or by `ca`), as (file, authority's file)."""
    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    if ca is None:
        ca = folder / f"{name}-ca"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", f"/CN={name} authority",
                "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", key, "-out", f"{cert}.csr")
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{host},IP:127.0.0.1\n" if host == HOST else f"subjectAltName=DNS:{host}\n")
    openssl("x509", "-req", "-in", f"{cert}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
            "-days", 2, "-extfile", extensions, "-out", cert)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context, f"{ca}.pem"


def locked(post_class, folder, context):
    """STARTTLS and a login are demanded."""
    post = post_class(folder)
    post.options = dict(tls_context=context, require_starttls=True, auth_required=True, authenticator=post.authenticate)
    return post


# ---- scenes with an agent --------------------------------------------------------------------------------------------------

class Office:
    """An agent with two fake engines and mail, and its relay."""

    def __init__(self, checks, context, ca, folder, every="1s"):
        self.checks, self.every = checks, every
        self.post = locked(Post, folder, context)
        self.secret = folder / "password"
        self.keep(PASSWORD)
        mail = {"relay": f"smtp+starttls://{HOST}:{self.post.port}", "from": "mainstay@gpu1.example", "to": ["oncall@example.org"],
                "username": USER, "password": {"file": str(self.secret)}, "ca": ca, "at_most_every": every}
        patient = {"first": "1500ms", "base": "1500ms", "hold_after": 100}
        self.rig = rig.Rig([rig.fake("primary", restart=patient), rig.fake("cpu", {"token_ms": 5})], mail=mail, quiet=True)

    def keep(self, password):
        self.secret.write_text(password)
        self.secret.chmod(0o600)

    def outbox(self):
        return sorted(path.name for path in (self.rig.folder / "state/outbox").glob("*.mail"))

    def log(self):
        return (self.rig.folder / "agent.log").read_text(errors="replace")

    def incidents(self):
        found = (self.rig.folder / "state/incidents").glob("*.json")
        return [json.loads(path.read_text()) for path in sorted(found)]

    def fail(self):
        """The primary dies; returns when serving has moved, with the number of incidents so far."""
        self.rig.until_ready("primary", "cpu", seconds=30)
        before = len(self.incidents())
        os.kill(self.rig.pid("primary"), signal.SIGKILL)
        self.rig.until("the failover is recorded",
                       lambda: len(self.incidents()) > before and self.incidents()[-1]["kind"] == "failover", 20)

    def told(self, mails, seconds=60):
        """Waits until so many mails have been taken and nothing waits."""
        taken = self.post.taken
        self.rig.until(f"{mails} mails are taken", lambda: len(taken) >= mails and not self.outbox(), seconds)

    def crash(self):
        """kill -9 of the agent, and another one over the same state."""
        self.rig.agent.kill()
        self.rig.agent.wait()
        self.rig.start()

    def balance(self):
        """Each mail once; each incident with one alert (or in a digest) and one return, which answers it."""
        counts = collections.Counter(mail for mail, *_ in self.post.taken)
        self.checks.that(counts and set(counts.values()) == {1}, f"each of {len(counts)} mails was taken once")
        known = {incident["mail"]["message_id"] for incident in self.incidents()} - {None}
        first = {mail for mail, subject, *_ in self.post.taken if subject.startswith("[ALERT]")}
        self.checks.that(known <= first, "every mail that an incident names has arrived")
        answers = [answer for _, subject, answer, _ in self.post.taken if subject.startswith("[OK]")]
        self.checks.that(answers and set(answers) <= first, f"all {len(answers)} returns answer a mail that arrived")
        if self.every == "1s":
            self.checks.that(len(answers) == len(self.incidents()), "every incident has its return")
        texts = "".join(text for *_, text in self.post.taken)
        untold = [i["id"] for i in self.incidents() if f"mainstay incident {i['id']}\n" not in texts and f"\n  {i['id']}: " not in texts]
        self.checks.that(not untold, f"each of {len(self.incidents())} incidents is told of")
        self.checks.that(not self.post.faults, f"the relay's faults were had: {', '.join(map(str, self.post.met)) or 'none'}")
        places = [self.log(), *(text for *_, text in self.post.taken)]
        for path in (self.rig.folder / "state").rglob("*"):
            places.append(path.read_text(errors="replace") if path.is_file() else "")
        self.checks.that(not any(secret in place for secret in SECRETS for place in places), "the password is nowhere to be read")

    @contextlib.contextmanager
    def open(self):
        try:
            with self.checks.running(self.rig):
                yield self
                self.balance()
        finally:
            self.post.down()


def relay_down_first(office, options):
    """Down for the first minute; the agent is killed while the mail waits; a new mail does not hurry it."""
    office.fail()
    office.rig.until("the relay is missed", lambda: "cannot connect to the relay" in office.log(), 20)
    office.checks.that(len(office.outbox()) >= 1, "the mail waits in the outbox")
    office.crash()
    time.sleep(options.down)
    office.post.up()
    office.rig.until_ready("primary", "cpu", seconds=60)
    office.told(2, seconds=options.down * 2 + 60)
    first, second = office.post.taken[:2]
    office.checks.that(first[1].startswith("[ALERT] LLM failover: primary -> cpu ("), f"the first mail: {first[1]}")
    office.checks.that(second[1].startswith("[OK] LLM return: cpu -> primary ("), f"the second mail: {second[1]}")
    office.checks.that(second[2] == first[0], "the return answers the alert")
    for part in ["Cause:     killed-from-outside", "Action:", "mainstay incident 1", "journalctl -t mainstay-primary"]:
        office.checks.that(part in first[3], f"the alert says {part!r}")
    office.checks.that("Lasted:" in second[3], "the return says how long it took")


def refused_for_now(office, options):
    """4xx at RCPT and DATA, 5xx, a dropped line: all are tried again."""
    office.post.up()
    office.post.faults = [("RCPT", "450 greylisted"), ("DATA", "451 try later"), ("DATA", "drop"), ("RCPT", "550 no such user")]
    office.fail()
    office.told(2, seconds=180)
    for words in ["450 greylisted", "451 try later", "MAIL REFUSED", "550 no such user"]:
        office.checks.that(words in office.log(), f"the log says {words!r}")


def killed_after_data(office, options):
    """The relay has the whole text and does not answer; the agent is killed; the next one sends it."""
    office.post.up()
    office.post.faults = [("DATA", "hang")]
    office.fail()
    office.checks.that(office.post.reached.wait(30), "the relay hangs with the whole mail")
    office.crash()
    office.told(2)


def hung_after_data(office, options):
    """The relay hangs after DATA for good: given up after two minutes, tried again. Nobody else notices."""
    office.post.up()
    office.post.faults = [("DATA", "hang")]
    office.fail()
    office.checks.that(office.post.reached.wait(30), "the relay hangs with the whole mail")
    began = time.monotonic()
    office.rig.until_ready("primary", "cpu", seconds=30)
    office.checks.that(office.rig.status()["serving"] == "primary", f"engines and status go on ({time.monotonic() - began:.1f} s)")
    office.told(2, seconds=240)
    office.checks.that("no answer within 120" in office.log(), "the log says why")


def ends_at_once(office, options):
    """An agent that is told to stop while the relay hangs does not wait for it."""
    office.post.up()
    office.post.faults = [("RCPT", "hang")]
    office.fail()
    office.checks.that(office.post.reached.wait(30), "the relay hangs")
    office.rig.until_ready("primary", "cpu", seconds=30)
    began = time.monotonic()
    office.rig.agent.send_signal(signal.SIGTERM)
    office.rig.agent.wait(60)
    office.checks.that(time.monotonic() - began < 10, f"the agent ended in {time.monotonic() - began:.1f} s")
    office.rig.start()
    office.told(2)


def wrong_password(office, options):
    """A password that is wrong loses nothing: it is mended, and the mail arrives."""
    office.post.password = "another"
    office.post.up()
    office.fail()
    office.rig.until("the login is refused", lambda: "the login failed: 535" in office.log(), 20)
    office.post.password = PASSWORD
    office.told(2)
    office.checks.that(office.post.logins[False] >= 1, "a wrong login was refused")


def flapping(office, options):
    """Failures close together: alerts are limited, the rest comes as digests, and every incident is told of."""
    office.post.up()
    for _ in range(5):
        office.fail()
    office.rig.until_ready("primary", "cpu", seconds=60)
    office.rig.until("all incidents are over and told",
                     lambda: not office.outbox() and all(i["closed"] and i["mail"]["message_id"] for i in office.incidents()), 60)
    digests = [(subject, text) for _, subject, _, text in office.post.taken if "LLM digest" in subject]
    # One that had to wait alone is told like any other.
    alone = [subject for _, subject, _, text in office.post.taken if "This mail had to wait" in text]
    office.checks.that(digests or alone, f"{len(office.incidents())} incidents made {len(office.post.taken)} mails: {office.post.subjects()}")
    for subject, text in digests:
        listed = sum(f"\n  {incident['id']}: " in text for incident in office.incidents())
        office.checks.that(f"digest: {listed} incident" in subject, f"as many are listed as are counted: {subject}")


SCENES = [relay_down_first, refused_for_now, killed_after_data, ends_at_once, wrong_password, flapping, hung_after_data]


# ---- mainstay alert test -----------------------------------------------------------------------------------------------------

def dialogues(checks, folder, good, bad):
    """Every kind of relay and of certificate, and what `mainstay alert test` says about it."""
    (context, ca), (wrong, wrong_ca) = good, bad

    def ask(relay, expected, code, env=None, **keys):
        file = folder / "test.toml"
        mail = {"relay": relay, "from": "mainstay@gpu1.example", "to": ["oncall@example.org"], **keys}
        dirs = {"run_dir": str(folder / "run"), "state_dir": str(folder / "state")}
        file.write_text(rig.table("[agent]", dirs) + rig.table("[[tier]]", rig.fake("a")) + rig.table("[alert.mail]", mail))
        ran = subprocess.run([rig.binary(), "alert", "test", "--config", file], capture_output=True, text=True,
                             env={**os.environ, **(env or {})}, timeout=120)
        said = ran.stdout + ran.stderr
        right = ran.returncode == code and all(words in said for words in expected)
        checks.that(right, f"{relay.split(':')[0]} {keys.get('username', '')}: {', '.join(expected)}")
        if not right:
            print(f"      exit status {ran.returncode}\n{said}")
        checks.that(not any(secret in said for secret in SECRETS), "and no password")

    password = folder / "test-password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    login = {"username": USER, "password": {"file": str(password)}}
    with contextlib.ExitStack() as stack:
        def post(**options):
            made = Post(folder, **options)
            stack.callback(made.down)
            return made.up()

        demanding = locked(Post, folder, context)
        stack.callback(demanding.down)
        demanding.up()
        plain, offered = post(), post(tls_context=context)
        wrapped, impostor = post(ssl_context=context), post(tls_context=wrong)
        taken, tls = "taken by the relay: 250 taken", "TLS         yes (1.2 or newer), certificate"
        ask(f"smtp+starttls://{HOST}:{demanding.port}", [taken, f"{tls} verified", "accepted, as mainstay"], 0, ca=ca, **login)
        ask(f"smtp://{HOST}:{demanding.port}", [taken, f"{tls} verified"], 0, ca=ca, **login)
        ask(f"smtp://{HOST}:{demanding.port}", ["FAILED", "no TLS with the relay", "UnknownIssuer", "`ca`"], 1, **login)
        ask(f"smtp://{HOST}:{demanding.port}", [taken, f"{tls} verified"], 0, env={"SSL_CERT_FILE": ca}, **login)
        ask(f"smtp+starttls://{HOST}:{offered.port}", [taken, f"{tls} verified"], 0, env={"SSL_CERT_FILE": ca})
        ask(f"smtps://{HOST}:{wrapped.port}", [taken, f"{tls} verified"], 0, ca=ca)
        ask(f"smtps://127.0.0.1:{wrapped.port}", [taken, f"{tls} verified"], 0, ca=ca)
        ask(f"smtp://{HOST}:{offered.port}", [taken, f"{tls} not verified"], 0)
        ask(f"smtp://{HOST}:{plain.port}", [taken, "TLS         no: the mail goes in clear"], 0)
        ask(f"smtp+starttls://{HOST}:{plain.port}", ["FAILED", "the relay offers no STARTTLS", "to mend"], 1)
        ask(f"smtp://{HOST}:{plain.port}", ["FAILED", "a password does not go out without TLS"], 1, **login)
        ask(f"smtp+starttls://{HOST}:{impostor.port}", ["FAILED", "no TLS with the relay", "certificate"], 1, ca=ca)
        ask(f"smtp+starttls://{HOST}:{impostor.port}", ["FAILED", "no TLS with the relay", "certificate not valid for name"], 1, ca=wrong_ca)
        ask(f"smtp+starttls://{HOST}:{offered.port}", ["FAILED", "no TLS with the relay", "UnknownIssuer"], 1)
        ask(f"smtps://{HOST}:{offered.port}", ["FAILED", "no TLS with the relay", "smtps:// is for port 465"], 1, ca=ca)
        password.write_text("wrong horse")
        ask(f"smtp+starttls://{HOST}:{demanding.port}", ["FAILED", "the login failed: 535", "check `username`"], 1, ca=ca, **login)
        plain.faults = [("RCPT", "550 we know nobody")]
        ask(f"smtp://{HOST}:{plain.port}", ["FAILED", "oncall@example.org: 550 we know nobody", "addresses in `to`"], 1)
        ask(f"smtp+starttls://{HOST}:{offered.port}", ["the certificates cannot be read", "no such", "`ca`"], 1, ca=str(folder / "no such"))
    nobody = Post(folder)
    ask(f"smtp://{HOST}:{nobody.port}", ["FAILED", "cannot connect to the relay", "refused", "to mend"], 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def babble():
            for _ in range(2):
                with contextlib.suppress(OSError):
                    with listener.accept()[0] as line:
                        line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        threading.Thread(target=babble, daemon=True).start()
        ask(f"smtp://{HOST}:{listener.getsockname()[1]}", ["FAILED", "the relay does not greet", "is this an SMTP port?"], 1)
    ask("imap://x", ["which is none of the kinds of relay"], 78)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--down", type=float, default=60, help="how long the relay is down at first")
    parser.add_argument("--only", help="names of scenes, with commas; `dialogues` is one")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else ["dialogues", *(scene.__name__ for scene in SCENES)]
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)     # broken conversations are the point here
    checks = rig.Checks()
    with tempfile.TemporaryDirectory(prefix="mainstay-mail-") as path:
        folder = pathlib.Path(path)
        good, bad = certificate(folder, "good", HOST), certificate(folder, "bad", "mail.example.org")
        if "dialogues" in names:
            print("---- dialogues", flush=True)
            dialogues(checks, folder, good, bad)
        for scene in (scene for scene in SCENES if scene.__name__ in names):
            print(f"---- {scene.__name__}: {scene.__doc__}", flush=True)
            with Office(checks, *good, folder, every="12s" if scene is flapping else "1s").open() as office:
                scene(office, options)
    checks.end()


if __name__ == "__main__":
    main()
