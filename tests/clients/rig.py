"""A real `mainstay run` in a folder of its own, with real engines, and a look at everything that it leaves behind.

Used as a context manager. Whatever happens inside, at its end the agent is stopped, and what is then still there of it
(processes, listening ports, files in /dev/shm) has been killed or removed and is in `left`.
"""
import contextlib
import functools
import http.client
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARK = "MAINSTAY_RIG"                # in the environment of the agent and of each engine
VLLM_ARGS = ["--max-model-len", "4096", "--max-num-seqs", "8", "--enforce-eager", "--dtype", "float32",
             "--kv-cache-memory-bytes", "67108864"]
ONE_THREAD = ["-t", "1", "-tb", "1"]  # two llama.cpp processes with a thread for each core spin against each other
SHM = "/dev/shm/"


class Failed(Exception):
    """Something that had to happen did not."""


def engines():
    """The paths that `scripts/engines --env` prints; os.environ wins."""
    lines = subprocess.run([ROOT / "scripts/engines", "--env"], capture_output=True, text=True, check=True).stdout
    words = (shlex.split(line)[1].partition("=") for line in lines.splitlines())
    return {name: os.environ.get(name, value) for name, _, value in words}


@functools.cache
def binary():
    """The release build of the product. MAINSTAY_BIN names another one."""
    if given := os.environ.get("MAINSTAY_BIN"):
        return given
    metadata = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"], cwd=ROOT,
                              capture_output=True, text=True, check=True).stdout
    path = pathlib.Path(json.loads(metadata)["target_directory"]) / "release/mainstay"
    if not path.exists():
        raise Failed(f"{path} is not there: cargo build --release")
    return str(path)


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def table(header, keys):
    return "\n".join([header] + [f"{key} = {toml(value)}" for key, value in keys.items()]) + "\n"


# ---- tiers: keys of one [[tier]] each; keyword arguments add to them or replace them ---------------------------------

def vllm(name, **more):
    found = engines()
    env = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return {"name": name, "engine": "vllm", "command": [found["MAINSTAY_VLLM"], "serve"],
            "model": found["MAINSTAY_MODELS"] + "/tiny-hf", "args": VLLM_ARGS, "env": env, "gpus": [], **more}


def ollama(name, model="tiny", parallel=1, **more):
    found = engines()
    env = {"OLLAMA_MODELS": found["MAINSTAY_OLLAMA_MODELS"], "OLLAMA_NO_CLOUD": "1", "OLLAMA_NOPRUNE": "1",
           "OLLAMA_NUM_PARALLEL": str(parallel)}
    return {"name": name, "engine": "ollama", "command": [found["MAINSTAY_OLLAMA"], "serve"], "model": model,
            "env": env, "gpus": [], **more}


def llama(name, model="tiny", slots=4, args=(), **more):
    found = engines()
    return {"name": name, "engine": "llama-server", "command": [found["MAINSTAY_LLAMA_SERVER"]],
            "model": f"{found['MAINSTAY_MODELS']}/{model}.gguf", "gpus": [],
            "args": [*ONE_THREAD, "-np", str(slots), "-c", str(4096 * slots), *args], **more}


def fake(name, knobs=None, **more):
    """The fake engine of the Rust tests; `knobs` are those of tests/fake_engine/knobs.rs."""
    program = os.environ.get("MAINSTAY_FAKE_ENGINE") or str(pathlib.Path(binary()).parent / "examples/fake_engine")
    return {"name": name, "engine": "llama-server", "command": [program], "model": f"{name}-model", "gpus": [],
            "env": {"FAKE_ENGINE": json.dumps(knobs or {})}, "health": {"interval": "200ms", "timeout": "1s"}, **more}


# ---- processes, from /proc -----------------------------------------------------------------------------------------------

def stat_of(pid):
    """(comm, state, ppid, start time), or None when there is no such process."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    comm, fields = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
    return comm, fields[0], int(fields[1]), int(fields[19])


def processes():
    found = ((int(name), stat_of(name)) for name in os.listdir("/proc") if name.isdigit())
    return {pid: stat for pid, stat in found if stat and stat[1] != "Z"}


def children(pid, comm=None):
    """Every live descendant of a process, nearest first; `comm` picks those of one name (15 characters)."""
    everyone, tree = processes(), [pid]
    for parent in tree:
        tree += [child for child, stat in everyone.items() if stat[2] == parent and child not in tree]
    return [child for child in tree[1:] if comm is None or everyone[child][0] == comm]


def marked(value):
    """Live processes with MARK=value in their environment."""
    needle, found = f"{MARK}={value}".encode(), set()
    for pid in processes():
        with contextlib.suppress(OSError):
            if needle in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found - {os.getpid()}


def describe(pid):
    with contextlib.suppress(OSError):
        return f"pid {pid}: " + pathlib.Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()[:100]
    return f"pid {pid}"


def listening(low, high):
    """TCP ports of 127.0.0.1 in a range that somebody listens on."""
    rows = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    ports = (int(row.split()[1].split(":")[1], 16) for row in rows if row.split()[3] == "0A")
    return sorted(port for port in ports if low <= port <= high)


def shared_memory(pid):
    """The files of /dev/shm that a process has mapped and that still have a name."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
        return {line[line.index(SHM):] for line in lines if SHM in line and not line.endswith("(deleted)")}
    return set()


# Where no system takes ports for connections, so that nobody has one before the agent listens there.
PORTS = random.sample(range(30000, 32768), 2768)


def free_port():
    """A port that nobody listens on. It is looked up, not tried: a process that another thread starts at that moment would
    hold the socket of the trial until it has become its program, and an agent could not listen there meanwhile."""
    while listening(port := PORTS.pop(), port):
        pass
    return port


def memory(pid):
    """RssAnon in MiB: what a process has taken for itself and not given back."""
    rows = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("RssAnon")) / 1024


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Rig:
    """`tiers` are dicts as the functions above make them; `server` adds keys to [server], `mail` is [alert.mail]. `port` is
    the endpoint's, where it has to be known beforehand."""

    def __init__(self, tiers, server=None, keep=False, quiet=False, mail=None, port=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mainstay-"))
        self.run_dir = self.folder / "run"
        self.mark = self.folder.name
        self.keep, self.quiet = keep, quiet
        self.left = []                                 # what had to be cleared away, as sentences
        self.seen = {}                                 # pid → start time of every process that was ever ours
        self.agent = None
        self.shm = set()                               # every file of /dev/shm that one of them was seen to use
        self._shm_read = 0.0
        self.engine_ports = self._free_range()
        self.address = ("127.0.0.1", port or free_port())
        self.errors = None                             # a descriptor for the agent's standard error, else its log
        self.config = self.folder / "mainstay.toml"
        self.config.write_text(self._config_text(tiers, server or {}, mail))

    def _config_text(self, tiers, server, mail):
        home = self.folder / "home"
        home.mkdir()
        (self.folder / "run").mkdir(mode=0o700)
        low, high = self.engine_ports
        parts = [table("[server]", {"listen": [f"{self.address[0]}:{self.address[1]}"],
                                    "engine_ports": f"{low}-{high}", **server}),
                 table("[agent]", {"run_dir": str(self.run_dir), "state_dir": str(self.folder / "state"),
                                   "log": os.environ.get("RIG_LOG", "info")})]
        for tier in tiers:
            if tier["engine"] != "remote":
                # Ollama keeps a key in $HOME; the others may use the caches that are there.
                own = {"HOME": str(home)} if tier["engine"] == "ollama" else {}
                tier = {**tier, "env": {**own, **tier.get("env", {}), MARK: self.mark}}
            parts.append(table("[[tier]]", tier))
        if mail:
            parts.append(table("[alert.mail]", mail))
        return "\n".join(parts)

    @staticmethod
    def _free_range():
        for _ in range(100):
            low = random.randrange(21000, 30000, 100)          # not where other agents start theirs
            if not listening(low, low + 99):
                return low, low + 99
        raise Failed("no free range of ports for engines")

    # ---- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            # A kill by a driver's time-out becomes an exception, so that __exit__ runs.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.start()
        except BaseException:          # without a rig there is no __exit__ either
            self.__exit__(*sys.exc_info())
            raise
        return self

    def start(self):
        self.log = open(self.folder / "agent.log", "ab")
        self.agent = subprocess.Popen(
            [binary(), "run", "--config", str(self.config)], stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.errors or self.log, start_new_session=True,
            env={**os.environ, MARK: self.mark, "MAINSTAY_TEST_FAULTS": "1"})
        self.until("the agent answers at its status socket", lambda: self.status() is not None, 15)

    def __exit__(self, kind, problem, _):
        code = None
        if self.agent:
            code = self._end_agent()
            self.left = self._clear_away()
        if code not in (0, None):
            self.left.append(f"the agent ended with {code}")
        if self.left or kind not in (None, KeyboardInterrupt):
            self.say_log()
        self.log.close()
        if self.keep:
            print(f"kept: {self.folder}", flush=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def _end_agent(self):
        """SIGTERM, as systemd does; returns the exit code. One that does not end in two minutes is killed."""
        self.census()
        if self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
        try:
            return self.agent.wait(120)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as problem:
            self.agent.kill()
            self.agent.wait()
            return f"SIGKILL, for {type(problem).__name__} after SIGTERM"

    def _clear_away(self):
        low, high = self.engine_ports
        left = []
        alive = [pid for pid, began in self.seen.items() if (stat := stat_of(pid)) and stat[1] != "Z" and stat[3] == began]
        for pid in sorted({*alive, *marked(self.mark)}):
            left.append("still running: " + describe(pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for port in {*listening(low, high), *listening(self.address[1], self.address[1])}:
            left.append(f"still listened on: port {port}")
        for path in sorted(filter(os.path.exists, self.shm)):
            left.append(f"still there: {path}")
            os.unlink(path)
        left += [f"still there: {path}" for path in sorted(self.run_dir.glob("*.sock"))]
        return left

    def census(self):
        """Notes what is ours at this moment, so that a process or file that slips away is known later."""
        if self.agent and self.agent.poll() is None:
            ours = children(self.agent.pid)
            self.seen |= {pid: stat[3] for pid in ours if (stat := stat_of(pid))}
            if time.monotonic() - self._shm_read > 1:      # maps of vLLM are long
                self._shm_read = time.monotonic()
                self.shm = self.shm.union(*map(shared_memory, ours))

    def say_log(self, lines=40):
        tail = (self.folder / "agent.log").read_text(errors="replace").splitlines()[-lines:]
        print("--- the end of the agent's log", *tail, "---", sep="\n", flush=True)

    # ---- talk ----------------------------------------------------------------------------------------------------------

    def _call(self, sock, method, path):
        connection = UnixConnection(self.run_dir / sock)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self):
        """GET /v1/status, or None while nobody answers."""
        try:
            code, body = self._call("status.sock", "GET", "/v1/status")
        except OSError:
            return None
        return json.loads(body) if code == 200 else None

    def tier(self, name):
        status = self.status()
        if status is None:
            raise Failed("the agent does not answer at its status socket")
        return next(tier for tier in status["tiers"] if tier["name"] == name)

    def state(self, name):
        return self.tier(name)["process"]["state"]

    def pid(self, name):
        """The main process of a tier's engine."""
        return self.tier(name)["process"]["pid"]

    def words(self, *words):
        """One command of the command line, for this agent."""
        return [binary(), "--run-dir", str(self.run_dir), *words]

    def command(self, *words, timeout=20):
        """What such a command says, and its exit status in `returncode`."""
        return subprocess.run(self.words(*words), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def post(self, path):
        code, body = self._call("control.sock", "POST", path)
        if code >= 300:
            raise Failed(f"POST {path}: {code} {body.decode(errors='replace')}")

    def until(self, what, condition, seconds):
        """Polls until the condition holds and returns the seconds it took; Failed after `seconds`."""
        began = time.monotonic()
        while True:
            if self.agent.poll() is not None:
                raise Failed(f"the agent ended with {self.agent.returncode} while waiting until {what}")
            self.census()
            if condition():
                return time.monotonic() - began
            if time.monotonic() - began > seconds:
                raise Failed(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.1)

    def until_ready(self, *names, seconds=240):
        """Waits until these tiers are ready and routable; says what it waits for."""
        told = [None]

        def ready():
            waiting = [tier for tier in (self.status() or {"tiers": []})["tiers"]
                       if tier["name"] in names and not (tier["process"]["state"] == "ready" and tier["routable"])]
            line = ", ".join(f"{tier['name']} is {tier['process']['state']}" for tier in waiting)
            if line != told[0] and line and not self.quiet:
                print(f"  waiting: {line}", flush=True)
            told[0] = line
            return not waiting
        return self.until(f"{', '.join(names)} ready", ready, seconds)


def verdict(passed, failed):
    """The closing line of a test program; exits."""
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


class Checks:
    """Counts what was checked; each check prints one line."""

    def __init__(self):
        self.passed = self.failed = 0
        self._lock = threading.Lock()

    def that(self, right, what):
        with self._lock:
            self.passed, self.failed = self.passed + bool(right), self.failed + (not right)
            print(("ok    " if right else "WRONG ") + what, flush=True)

    @contextlib.contextmanager
    def running(self, rig):
        """The rig with its agent, and what is left of it afterwards. What could not even be measured is a failure like any
        other."""
        try:
            with rig:
                yield rig
        except Failed as problem:
            self.that(False, str(problem))
        self.nothing_left(rig)

    def nothing_left(self, rig):
        self.that(not rig.left, "nothing is left: processes, ports, /dev/shm")
        for line in rig.left:
            print("      " + line)

    def end(self):
        verdict(self.passed, self.failed)
