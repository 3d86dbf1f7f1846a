use super::*;
use crate::kinds::Api;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn launch<'a>(
    kind: Kind,
    command: &'a [String],
    model: &'a str,
    args: &'a [String],
    env: &'a BTreeMap<String, String>,
) -> Launch<'a> {
    Launch {
        kind,
        command,
        model,
        port: 20017,
        gpus: None,
        args,
        env,
        tmp_dir: "/run/mainstay/primary/tmp",
        home: None,
        start_stall: Duration::from_secs(300),
        start_cap: Duration::from_secs(3600),
    }
}

#[track_caller]
fn check_argv(kind: Kind, command: &str, model: &str, args: &str, expected: &str) {
    let (command, args, env) = (words(command), words(args), BTreeMap::new());
    assert_eq!(argv(&launch(kind, &command, model, &args, &env)).join(" "), expected);
}

#[test]
fn vllm_is_told_model_name_and_address() {
    check_argv(
        Kind::Vllm,
        "",
        "org/m",
        "--max-model-len 4096",
        "vllm serve org/m --served-model-name org/m --host 127.0.0.1 --port 20017 --max-model-len 4096",
    );
    check_argv(
        Kind::Vllm,
        "/venv/bin/vllm serve",
        "org/m",
        "",
        "/venv/bin/vllm serve org/m --served-model-name org/m --host 127.0.0.1 --port 20017",
    );
    check_argv(
        Kind::Vllm,
        "python3 -m vllm.entrypoints.openai.api_server",
        "org/m",
        "",
        "python3 -m vllm.entrypoints.openai.api_server --model org/m --served-model-name org/m --host 127.0.0.1 --port 20017",
    );
}

#[test]
fn an_operators_own_name_for_the_model_is_the_only_one() {
    for args in [
        "--served-model-name other",
        "--served-model-name=other",
        "--served-model-name x --served_model_name other more",
    ] {
        let args = words(args);
        assert_eq!(served_name(Kind::Vllm, "org/m", &args), "other");
        let env = BTreeMap::new();
        let argv = argv(&launch(Kind::Vllm, &[], "org/m", &args, &env));
        assert_eq!(argv[..3], words("vllm serve org/m"));
        assert_eq!(argv[3], "--host");
        assert!(argv.ends_with(&args));
    }
    assert_eq!(served_name(Kind::Vllm, "org/m", &words("--served-model-name")), "org/m");
    assert_eq!(served_name(Kind::LlamaServer, "/m.gguf", &words("--alias x")), "/m.gguf");
}

#[test]
fn llama_server_always_has_a_model() {
    let own = "llama-server -m /m.gguf --alias /m.gguf --host 127.0.0.1 --port 20017";
    check_argv(Kind::LlamaServer, "", "/m.gguf", "", own);
    check_argv(Kind::LlamaServer, "", "/m.gguf", "-c 8192 -t 1", &format!("{own} -c 8192 -t 1"));
    check_argv(
        Kind::LlamaServer,
        "",
        "m",
        "-hf org/m:Q4",
        "llama-server --alias m --host 127.0.0.1 --port 20017 -hf org/m:Q4",
    );
    check_argv(
        Kind::LlamaServer,
        "",
        "/m.gguf",
        "--alias=x",
        "llama-server -m /m.gguf --host 127.0.0.1 --port 20017 --alias=x",
    );
}

#[test]
fn ollama_is_told_by_environment_and_a_remote_is_not_started() {
    check_argv(Kind::Ollama, "", "llama3.1:8b", "", "ollama serve");
    check_argv(Kind::Remote(Api::OpenAi), "", "m", "", "");
    let env = BTreeMap::new();
    let env = environment(&launch(Kind::Ollama, &[], "m", &[], &env));
    assert_eq!(env["OLLAMA_HOST"], "127.0.0.1:20017");
    assert_eq!(env["OLLAMA_KEEP_ALIVE"], "-1");
    assert_eq!(env["OLLAMA_LOAD_TIMEOUT"], "300s");
    assert!(!env.contains_key("HOME"), "the operator's home stays unless a fallback is given");
}

#[test]
fn the_operators_variables_win() {
    let own = BTreeMap::from(
        [("OLLAMA_KEEP_ALIVE", "5m"), ("TMPDIR", "/big/tmp"), ("HF_TOKEN", "x")]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let mut launch = launch(Kind::Ollama, &[], "m", &[], &own);
    launch.home = Some("/var/lib/mainstay");
    let env = environment(&launch);
    assert_eq!(env["OLLAMA_KEEP_ALIVE"], "5m");
    assert_eq!(env["TMPDIR"], "/big/tmp");
    assert_eq!(env["HF_TOKEN"], "x");
    assert_eq!(env["HOME"], "/var/lib/mainstay");
}

#[track_caller]
fn check_gpus(kind: Kind, gpus: Option<&str>, expected: &[(&str, Option<&str>)]) {
    let list = gpus.map(words);
    let env = BTreeMap::new();
    let mut launch = launch(kind, &[], "m", &[], &env);
    launch.gpus = list.as_deref();
    let env = environment(&launch);
    for (name, value) in expected {
        assert_eq!(env.get(*name).map(String::as_str), *value, "{kind:?} {gpus:?} {name}");
    }
}

#[test]
fn gpus_are_shown_hidden_or_left_alone() {
    for kind in [Kind::Vllm, Kind::LlamaServer, Kind::Ollama] {
        check_gpus(
            kind,
            None,
            &[("CUDA_VISIBLE_DEVICES", None), ("CUDA_DEVICE_ORDER", None), ("LLAMA_ARG_DEVICE", None)],
        );
        let two = [
            ("CUDA_VISIBLE_DEVICES", Some("0,GPU-1")),
            ("CUDA_DEVICE_ORDER", Some("PCI_BUS_ID")),
            ("LLAMA_ARG_DEVICE", None),
        ];
        check_gpus(kind, Some("0 GPU-1"), &two);
    }
    check_gpus(Kind::Vllm, Some(""), &[("CUDA_VISIBLE_DEVICES", Some(""))]);
    check_gpus(
        Kind::LlamaServer,
        Some(""),
        &[("CUDA_VISIBLE_DEVICES", Some("")), ("LLAMA_ARG_DEVICE", Some("none"))],
    );
    check_gpus(
        Kind::Ollama,
        Some(""),
        &[("CUDA_VISIBLE_DEVICES", Some("-1")), ("GGML_VK_VISIBLE_DEVICES", Some("-1"))],
    );
}

#[test]
fn every_process_of_vllm_keeps_its_nonce_visible_and_its_log_plain() {
    let env = BTreeMap::new();
    let env = environment(&launch(Kind::Vllm, &[], "m", &[], &env));
    for (name, value) in [
        ("SPT_NOENV", "1"),
        ("VLLM_LOGGING_COLOR", "0"),
        ("PYTHONUNBUFFERED", "1"),
        ("VLLM_ENGINE_READY_TIMEOUT_S", "3600"),
    ] {
        assert_eq!(env[name], value);
    }
}

#[test]
fn an_operator_may_keep_an_engine_off_the_gpus_by_words_of_its_own() {
    let check = |kind, args: &[&str], env: &[(&str, &str)], expected| {
        let words: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let value = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        assert_eq!(asks_for_cpu(kind, &words, value), expected, "{kind:?} {args:?} {env:?}");
    };
    let (vllm, llama, ollama) = (Kind::Vllm, Kind::LlamaServer, Kind::Ollama);
    for flag in ["-ngl", "--gpu-layers", "--n-gpu-layers"] {
        check(llama, &["llama-server", flag, "0"], &[], true);
        check(llama, &["llama-server", flag, "99"], &[], false);
        // The last one wins.
        check(llama, &["llama-server", flag, "0", "-ngl", "99"], &[], false);
        check(llama, &["llama-server", flag, "99"], &[("LLAMA_ARG_N_GPU_LAYERS", "0")], false);
        check(vllm, &["vllm", "serve", flag, "0"], &[], false);
    }
    check(llama, &["--device", "none"], &[], true);
    check(llama, &["-dev", "CUDA0"], &[], false);
    check(llama, &[], &[("LLAMA_ARG_N_GPU_LAYERS", "0")], true);
    check(llama, &[], &[("LLAMA_ARG_DEVICE", "none")], true);
    check(vllm, &["vllm", "serve", "--device", "cpu"], &[], true);
    check(vllm, &["vllm", "serve", "--device=cpu"], &[], true);
    check(vllm, &[], &[("VLLM_TARGET_DEVICE", "cpu")], true);
    check(ollama, &[], &[("OLLAMA_LLM_LIBRARY", "cpu_avx2")], true);
    check(ollama, &[], &[("OLLAMA_LLM_LIBRARY", "cuda_v12")], false);
    for kind in [vllm, llama, ollama] {
        check(kind, &[], &[], false);
        check(kind, &[], &[("CUDA_VISIBLE_DEVICES", "-1")], true);
        check(kind, &[], &[("CUDA_VISIBLE_DEVICES", "0,1")], false);
        // As an engine without a list would.
        check(kind, &[], &[("CUDA_VISIBLE_DEVICES", "")], kind != ollama);
    }
}
