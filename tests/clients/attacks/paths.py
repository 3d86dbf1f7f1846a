"""1.4: which paths of an engine can be reached through `server.passthrough`, in which spelling."""
import json
import pathlib
import subprocess
import tempfile

import faulty
import rig as rigs
import talk

# Paths by which an engine is changed, stopped or read out: vLLM, SGLang, llama-server, Ollama.
CHANGING = [
    "/sleep", "/wake_up", "/pause", "/resume", "/abort_requests", "/inference/v1/abort_requests", "/update_weights",
    "/start_weight_update", "/finish_weight_update", "/update_weights_from_disk", "/init_weight_transfer_engine",
    "/collective_rpc", "/reset_prefix_cache", "/flush_cache", "/invocations", "/load_lora_adapter", "/unload_lora_adapter",
    "/start_profile", "/stop_profile", "/release_memory_occupation", "/scale_elastic_ep", "/server_info", "/slots", "/slots/0",
    "/props", "/tools", "/models/load", "/models/unload", "/lora-adapters", "/cors-proxy",
    "/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/sha256:0",
]
# Each is another way to write a path.
SPELLINGS = [
    ("under /v1", lambda path: "/v1" + path), ("under /v1/v1", lambda path: "/v1/v1" + path),
    ("in capitals", str.upper), ("with a slash at its end", lambda path: path + "/"),
    ("with two slashes", lambda path: "/" + path), ("escaped", lambda path: f"/%{ord(path[1]):02x}{path[2:]}"),
    ("by way of ..", lambda path: "/v1/responses/.." + path), ("by way of .", lambda path: "/." + path),
    ("with a query", lambda path: path + "?x=1"), ("with a parameter", lambda path: path + ";x"),
    ("with an encoded slash", lambda path: "/v1/responses%2f.." + path),
    ("under another base", lambda path: "/inference/v1" + path),
]
UNKNOWN = ["/my-inference", "/summaries", "/v1/my/scores", "/generate_and_store"]
INFERENCE = ["/v1/responses", "/v1/messages", "/tokenize", "/detokenize", "/rerank", "/v1/rerank", "/score", "/v1/score",
             "/v1/audio/transcriptions"]


def check(key, paths):
    """What `mainstay check` says of a list of paths."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "mainstay.toml"
        tier = {"name": "far", "engine": "remote", "url": "http://127.0.0.1:1", "model": "m"}
        config.write_text(rigs.table("[server]", {key: paths}) + rigs.table("[[tier]]", tier))
        return subprocess.run([rigs.binary(), "check", "--config", str(config)], capture_output=True, text=True, timeout=20)


def refuses(rows, what, key, paths):
    """Each of these paths is refused, by its name."""
    def judge():
        said = check(key, paths)
        missing = [path for path in paths if json.dumps(path) not in said.stdout + said.stderr]
        return said.returncode == 78 and not missing, \
            f"{len(paths) - len(missing)} of {len(paths)} are refused{', not: ' + ' '.join(missing[:8]) if missing else ''}"
    rows.case(what, judge)


def takes(rows, what, key, paths):
    rows.case(what, lambda: ((said := check(key, paths)).returncode == 0, f"exit {said.returncode} {said.stderr.strip()[-120:]}"))


def configured(rows):
    """what `check` lets into `passthrough` and `passthrough_unknown`"""
    for key in ("passthrough", "passthrough_unknown"):
        refuses(rows, f"{key} takes no path that changes an engine", key, CHANGING)
        for how, spell in SPELLINGS:
            refuses(rows, f"{key} takes none of them {how}", key, [spell(path) for path in CHANGING])
    refuses(rows, "passthrough takes no path that it does not know", "passthrough", UNKNOWN)
    takes(rows, "passthrough_unknown does", "passthrough_unknown", UNKNOWN)
    takes(rows, "passthrough takes the paths of inference", "passthrough", INFERENCE)


def asked(rows):
    """what goes on to an engine as it comes"""
    with faulty.Upstream() as upstream, rows.agent([upstream.tier("far")]) as rig:
        def nothing_but(what, paths, methods=("POST", "GET", "PUT", "DELETE")):
            def judge():
                upstream.requests.clear()
                replies = [talk.ask(rig.address, method, path, body=b"{}" if method != "GET" else None)
                           for path in paths for method in methods]
                seen = sorted({request.path for request in upstream.requests if request.path not in INFERENCE})
                return not seen and all(400 <= reply.status < 500 for reply in replies), \
                    f"{len(replies)} tried, answers {sorted({reply.status for reply in replies})}, gone on: {seen}"
            rows.case(what, judge)

        nothing_but("no path that changes an engine goes on", CHANGING)
        for how, spell in SPELLINGS:
            nothing_but(f"nor written {how}", [spell(path) for path in CHANGING[:6]], ("POST",))
        absolute = [f"http://127.0.0.1:{rig.address[1]}{path}" for path in CHANGING[:6]]
        nothing_but("nor as a whole URL in the request line", absolute, ("POST",))
        upstream.requests.clear()
        rows.case("a path of inference goes on", lambda: (
            talk.ask(rig.address, path="/tokenize", body=b'{"prompt":"x"}').status == 200
            and [request.path for request in upstream.requests] == ["/tokenize"], str([r.path for r in upstream.requests])))


SCENES = [("1.4", configured), ("1.4", asked)]
