//! What is not written, and what is.
use super::*;
use crate::kinds::{DEFAULT_NOTICE, Degrade};

#[test]
fn what_is_not_written_has_the_contracts_defaults() {
    let seconds = Duration::from_secs;
    let config = config(FIRST);
    assert_eq!(config.path, PathBuf::from("/etc/mainstay/mainstay.toml"));
    let passthrough =
        "/v1/responses /v1/messages /tokenize /detokenize /rerank /v1/rerank /score /v1/audio/transcriptions";
    assert_eq!(
        config.server,
        Server {
            listen: vec!["127.0.0.1:8000".parse().expect("an address")],
            max_body: 32 << 20,
            replay_memory: 256 << 20,
            max_connections: 20_000,
            max_connections_per_client: 1024,
            request_timeout: Some(seconds(600)),
            drain: seconds(30),
            all_down_retry_after: seconds(30),
            engine_ports: (20_000, 20_999),
            passthrough: passthrough.split(' ').map(str::to_owned).collect(),
            passthrough_unknown: vec![],
            forward_headers: vec![],
            cors_origins: vec![],
            hosts: vec![],
            any_model: false,
        }
    );
    assert_eq!(
        config.agent,
        Agent {
            run_dir: PathBuf::from("/run/mainstay"),
            state_dir: PathBuf::from("/var/lib/mainstay"),
            log: LogLevel::Info,
            log_format: LogFormat::Text,
            engine_log: true,
        }
    );
    assert_eq!(config.gpu, Gpu { probe: true });
}

#[test]
fn what_is_not_written_of_a_tier_has_the_contracts_defaults() {
    let seconds = Duration::from_secs;
    let config = config(FIRST);
    let local = Local {
        command: vec!["vllm".to_owned(), "serve".to_owned()],
        args: vec![],
        env: std::collections::BTreeMap::new(),
        late_env: std::collections::BTreeMap::new(),
        dir: None,
        gpus: None,
        port: None,
        start: StartMode::Always,
        stop_grace: seconds(30),
        nice: 0,
        oom_score_adj: 0,
        restart: Restart {
            first: Duration::ZERO,
            base: seconds(1),
            max: seconds(60),
            stable: seconds(600),
            hold_after: 5,
            hold_retry: seconds(900),
        },
        startup: Startup { stall: seconds(300), cap: seconds(3600) },
        pull: None,
    };
    assert_eq!(
        config.tiers,
        [Tier {
            name: "a".to_owned(),
            kind: Kind::Vllm,
            model: "m".to_owned(),
            aliases: vec![],
            max_concurrent: None,
            check: Check { interval: seconds(10), timeout: seconds(5), slow: seconds(2), failures: 3 },
            silence: None,
            suspect: seconds(60),
            timeouts: Timeouts {
                connect: seconds(2),
                first_content: seconds(60),
                between_chunks: seconds(60)
            },
            degrade: None,
            upstream: Upstream::Local(local),
        }]
    );
}

#[test]
fn defaults_follow_the_engine() {
    let config = config(&format!(
        "{FIRST}[[tier]]\nname='o'\nengine='ollama'\nmodel='x'\n[[tier]]\nname='l'\nengine='llama-server'\nmodel='/m'\ngpus=[]\n\
         [[tier]]\nname='r'\nengine='remote'\nurl='http://h'\n[[tier]]\nname='q'\nengine='remote'\nurl='http://[::1]:90/base/'\n\
         api='ollama'\nmodel='own'\n"
    ));
    let local = |index: usize| config.tiers[index].local().expect("a local tier");
    let remote = |index: usize| config.tiers[index].remote().expect("a remote tier");
    assert_eq!(local(1).command, ["ollama", "serve"]);
    assert_eq!(local(1).pull, Some(Pull::Missing));
    assert_eq!(local(2).command, ["llama-server"]);
    assert_eq!(local(2).pull, None);
    assert!(local(2).runs_on_cpu(true) && !local(1).runs_on_cpu(true));
    assert!(local(2).runs_on_cpu(false) && local(1).runs_on_cpu(false), "there is no GPU to be used");
    assert_eq!(config.tiers[3].kind, Kind::Remote(Api::OpenAi));
    assert_eq!((config.tiers[3].model.as_str(), remote(3).health_path.as_str()), ("m", "/health"));
    assert_eq!(remote(3).url.to_string(), "http://h:80");
    assert_eq!(config.tiers[4].kind, Kind::Remote(Api::Ollama));
    assert_eq!((config.tiers[4].model.as_str(), remote(4).health_path.as_str()), ("own", "/api/version"));
    assert_eq!(remote(4).url, Url { host: "::1".to_owned(), port: 90, base_path: "/base".to_owned() });
    assert_eq!(remote(4).url.to_string(), "http://[::1]:90/base");
}

#[test]
fn what_is_written_is_what_counts() {
    let config = config(
        "[server]\nlisten = ['0.0.0.0:1', '[::1]:0']\nengine_ports = '30000-30009'\ncors_origins = ['*']\nany_model = true\n\
         [gpu]\nprobe = false\n\
         [agent]\nrun_dir = '/r'\nstate_dir = '/s'\nlog = 'debug'\nlog_format = 'json'\nengine_log = false\n\
         [[tier]]\nname = 'a'\nengine = 'vllm'\nmodel = 'm'\naliases = ['b', 'c']\ncommand = ['/opt/v', 'x']\nargs = ['--a', '']\n\
         env = { A = 'b' }\ndir = '/d'\ngpus = [1, 'GPU-0a1b-2c']\nport = 9000\nstart = 'on-demand'\nstop_grace = '1s'\n\
         max_concurrent = 4\nnice = -5\noom_score_adj = 500\nhealth.slow = '3s'\nsilence = '1s'\nsuspect = '2s'\n\
         degrade = { max_tokens = 7, temperature = 1 }\n",
    );
    let addresses: Vec<String> = config.server.listen.iter().map(SocketAddr::to_string).collect();
    assert_eq!(addresses, ["0.0.0.0:1", "[::1]:0"]);
    assert_eq!((config.server.engine_ports, config.server.any_model), ((30_000, 30_009), true));
    assert_eq!(config.server.cors_origins, ["*"]);
    assert_eq!(config.gpu, Gpu { probe: false });
    assert_eq!((config.agent.log, config.agent.log_format), (LogLevel::Debug, LogFormat::Json));
    assert!(!config.agent.engine_log);
    assert_eq!((config.agent.run_dir, config.agent.state_dir), ("/r".into(), "/s".into()));
    let tier = &config.tiers[0];
    let local = tier.local().expect("a local tier");
    assert_eq!((&tier.aliases[..], tier.max_concurrent), (&["b".to_owned(), "c".to_owned()][..], Some(4)));
    assert_eq!(
        (&local.command[..], &local.args[..]),
        (&["/opt/v", "x"].map(str::to_owned)[..], &["--a", ""].map(str::to_owned)[..])
    );
    assert_eq!(local.env["A"].expose(), "b");
    assert!(!local.runs_on_cpu(false), "a GPU was named");
    assert_eq!(local.gpus.as_deref(), Some(&["1", "GPU-0a1b-2c"].map(str::to_owned)[..]));
    assert_eq!(
        (local.port, local.start, local.nice, local.oom_score_adj),
        (Some(9000), StartMode::OnDemand, -5, 500)
    );
    assert_eq!((tier.check.slow, tier.check.interval), (Duration::from_secs(3), Duration::from_secs(10)));
    assert_eq!((tier.silence, tier.suspect), (Some(Duration::from_secs(1)), Duration::from_secs(2)));
    let degrade = Degrade { max_tokens: Some(7), temperature: Some(1.0), notice: DEFAULT_NOTICE.to_owned() };
    assert_eq!(tier.degrade, Some(degrade));
}

#[test]
fn the_list_of_keys_is_whole() {
    let reference = include_str!("../../../config/mainstay.toml");
    for (section, keys) in
        keys::SECTIONS.iter().filter(|(title, _)| !matches!(*title, "[alert]" | "the file"))
    {
        for key in *keys {
            let is_shown = reference.lines().any(|line| line.contains(&format!("{key} = ")));
            assert!(is_shown, "the reference does not show `{key}` of {section}");
        }
    }
}
