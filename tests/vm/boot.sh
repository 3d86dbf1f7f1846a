#!/bin/bash
# In the guest of scripts/systemd-vm: the unit as shipped, installed as the README says, through what systemd does to it.
# Waits are bounded but never asserted upon: this machine is slow in its own way.
set -u
passed=0 failed=0
check() { # WHAT COMMAND...: the command must succeed
    local what=$1; shift
    if "$@"; then passed=$((passed + 1)); echo "ok    $what"; else failed=$((failed + 1)); echo "WRONG $what"; fi
}
within() { # SECONDS COMMAND...: polls until it succeeds
    local until=$((SECONDS + $1)); shift
    until "$@"; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.2
    done
}
is() { [ "$1" = "$2" ]; }
unit() { systemctl show -p "$1" --value mainstay.service; }
unit_is() { is "$(unit "$1")" "$2"; }
others() { [ "$(unit MainPID)" != 0 ] && [ "$(unit MainPID)" != "$1" ]; }
gone() { [ ! -e "/proc/$1" ]; }
log_has() { journalctl -b --no-pager -u mainstay.service | grep -qiE "$1"; }
engine_log_has() { journalctl -b --no-pager -t mainstay-cpu -o "$1" | grep -qE "$2"; }
answers() { # a chat completion with text in it
    python3 - <<'PYTHON' 2>/dev/null
import json, urllib.request
body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
request = urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions", json.dumps(body).encode(),
                                 {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request, timeout=20))
assert answer["choices"][0]["message"]["content"] and answer["_backend"] == "cpu", answer
PYTHON
}
# What an account outside mainstay's group gets at of the paths on standard input: each lock, listing and connection.
trespass() {
    setpriv --reuid=65534 --regid=65534 --clear-groups python3 -c '
import fcntl, os, socket, sys
def lock(path): fcntl.flock(os.open(path, os.O_RDONLY | os.O_NONBLOCK), fcntl.LOCK_SH | fcntl.LOCK_NB)
def connect(path): socket.socket(socket.AF_UNIX).connect(path)
for path in sys.stdin.read().splitlines():
    for attempt in lock, os.listdir, connect:
        try: attempt(path)
        except PermissionError: continue
        except OSError as why: print("tried in vain, and not for want of permission:", why)
        print(attempt.__name__, path)'
}
capabilities() { # SET PID...: that set of each of these processes
    local set=$1; shift
    for pid in "$@"; do sed -n "s/^$set:\s*//p" "/proc/$pid/status"; done
}
refused() { ! python3 -c 'import socket; socket.create_connection(("127.0.0.1", 8000), 5)' 2>/dev/null; }
fault() { # POST /v1/faults/NAME on the control socket
    python3 - "$1" <<'PYTHON'
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(10)
sock.connect("/run/mainstay/control.sock")
sock.sendall(f"POST /v1/faults/{sys.argv[1]} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
assert b" 202 " in sock.recv(4096).split(b"\r\n")[0] + b" "
PYTHON
}

install -m 755 mainstay /usr/bin/mainstay
mkdir -p /opt/engine /etc/mainstay
install -m 644 engine/* /opt/engine/ && chmod 755 /opt/engine/llama-server
install -m 644 mainstay.toml /etc/mainstay/mainstay.toml
secret=planted-6f1c-secret
install -m 600 /dev/null /etc/mainstay/key && echo "$secret" >/etc/mainstay/key
mkdir -p /etc/systemd/system/mainstay.service.d
printf '[Service]\nLoadCredential=key:/etc/mainstay/key\n' >/etc/systemd/system/mainstay.service.d/key.conf
groupadd -f -r video && groupadd -f -r render
useradd --system --home-dir /var/lib/mainstay --shell /usr/sbin/nologin mainstay

systemd-analyze verify /etc/systemd/system/mainstay.service >/tmp/verify 2>&1
check "systemd finds nothing wrong in the unit" is "$(grep -c mainstay /tmp/verify)" 0
check "systemctl start returns once the agent is READY" timeout 90 systemctl start mainstay.service
check "the unit is active" unit_is ActiveState active
check "the endpoint answers" within 90 answers
check "the agent runs as its own user" is "$(ps -o user= -p "$(unit MainPID)")" mainstay
check "STATUS= names the serving tier" within 30 eval 'unit StatusText | grep -q cpu'
check "status says so too, and exits 0" mainstay status

check "the engine's lines are in the journal under its tier's name" within 30 engine_log_has cat 'listening|model'
check "with the tier and run in fields of their own" engine_log_has export '^MAINSTAY_RUN=1$'
check "and belong to the unit" engine_log_has export '^_SYSTEMD_UNIT=mainstay.service$'
check "once: the agent does not pass them on too" is "$(journalctl -b --no-pager -o cat -t mainstay | grep -c '^cpu | ')" 0
check "the engine was given the credential" grep -qz "^PLANTED=$secret" "/proc/$(pgrep -x llama-server)/environ"
check "and said it, blacked out" within 30 engine_log_has cat 'was given \[redacted\]'
check "it is nowhere in the journal" is "$(journalctl -b --no-pager -o export | grep -c "$secret")" 0
check "nor in the runtime directory" is "$(grep -rlaF "$secret" /run/mainstay | wc -l)" 0

agent=$(unit MainPID) engine=$(pgrep -x llama-server) shim=$(pgrep -x mainstay-shim)
check "the agent has CAP_SYSLOG as an ambient capability" is "$(capabilities CapAmb "$agent")" 0000000400000000
for set in CapAmb CapInh CapPrm CapEff; do
    check "its shim and its engine have none ($set)" is "$(capabilities $set "$shim" "$engine" | tr '\n' ' ')" \
        "0000000000000000 0000000000000000 "
done
paths=$(find /run/mainstay /var/lib/mainstay)
for name in /run/mainstay/agent.lock /var/lib/mainstay/agent.lock status.sock control.sock shim.sock; do
    check "there is $name to get at" grep -q "$name\$" <<<"$paths"
done
check "nobody else locks, lists or connects to any of it" is "$(trespass <<<"$paths" 2>&1)" ""
check "the engine has its TMPDIR in the state directory" grep -qz "^TMPDIR=/var/lib/mainstay/tmp/cpu-1-" "/proc/$engine/environ"
check "its group asks for status" setpriv --reuid=65534 --regid=mainstay --clear-groups mainstay status
systemctl kill --kill-whom=main -s KILL mainstay.service
check "kill -9 of the agent: systemd starts another one" within 60 others "$agent"
check "its engine did not outlive it" within 60 gone "$engine"
check "and the endpoint answers again" within 90 answers
check "with exactly one engine" is "$(pgrep -cx llama-server)" 1

mkdir -p /etc/systemd/system/mainstay.service.d
printf '[Service]\nEnvironment=MAINSTAY_TEST_FAULTS=1\n' >/etc/systemd/system/mainstay.service.d/faults.conf
systemctl daemon-reload
check "the agent restarts cleanly when asked to" timeout 120 systemctl restart mainstay.service
check "and answers" within 90 answers
agent=$(unit MainPID) engine=$(pgrep -x llama-server)
check "the policy loop is made to hang" fault stuck-loop
check "the watchdog ends the agent and systemd starts another one" within 150 others "$agent"
check "the journal names the watchdog" within 30 log_has "watchdog timeout"
check "the engine of the hung agent is gone" within 60 gone "$engine"
check "and the endpoint answers again" within 90 answers

check "systemctl stop returns" timeout 130 systemctl stop mainstay.service
check "the unit ended well" unit_is Result success
check "no process is left" is "$(pgrep -c 'llama-server|mainstay')" 0
check "nobody listens any more" refused
check "no socket is left" is "$(find /run/mainstay -maxdepth 1 -type s | wc -l)" 0
check "nothing is left in /dev/shm" is "$(find /dev/shm -type f | wc -l)" 0
check "no cgroup is left" is "$(find /sys/fs/cgroup/system.slice -path '*mainstay.service*' | wc -l)" 0

echo "$passed passed, $failed failed"
[ $failed = 0 ]
