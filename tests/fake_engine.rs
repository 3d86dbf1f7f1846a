//! A fake engine: a real process that serves enough of OpenAI's API to be taken for llama-server or vLLM, with knobs for
//! the faults that real engines cannot be made to show.
//!
//! Usage: `fake_engine [-m MODEL | serve MODEL] [--alias NAME | --served-model-name NAME] [--host H] [--port P]
//! [--fake KNOB=VALUE]… [anything else]`. Knobs (`fake_engine/knobs.rs` lists them) come from `FAKE_ENGINE` in the
//! environment, a JSON object; from `--fake` flags, whose values are JSON or else plain strings; and at run time from
//! `POST /knobs`, a JSON object of those to change. `GET /knobs` answers with all of them.
//! `FAKE_ROLE` in the environment makes it one of its own children (`fake_engine/faults.rs`).
#[path = "fake_engine/answers.rs"]
mod answers;
#[path = "fake_engine/faults.rs"]
mod faults;
#[path = "fake_engine/http.rs"]
mod http;
#[path = "fake_engine/knobs.rs"]
mod knobs;

use knobs::Shared;
use std::net::TcpListener;
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

/// What the command line says, in the dialect of llama-server or of vLLM.
struct Flags {
    model: String,
    host: String,
    port: u16,
    knobs: Vec<String>,
}

impl Flags {
    fn read() -> Self {
        let mut flags = Self { model: "fake".into(), host: "127.0.0.1".into(), port: 0, knobs: Vec::new() };
        let (mut named, mut args) = (None, std::env::args().skip(1));
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
                _ => (arg, None),
            };
            let mut value = || inline.clone().or_else(|| args.next()).unwrap_or_default();
            match flag.as_str() {
                "-m" | "--model" | "serve" => flags.model = value(),
                "-a" | "--alias" | "--served-model-name" => named = Some(value()),
                "--host" => flags.host = value(),
                "--port" => flags.port = value().parse().unwrap_or_else(|_| refuse("--port")),
                "--fake" => flags.knobs.push(value()),
                "--no-such-flag" => refuse("--no-such-flag"),
                _ => {}
            }
        }
        flags.model = named.unwrap_or(flags.model);
        flags
    }
}

/// As llama-server says it.
fn refuse(argument: &str) -> ! {
    eprintln!("error: invalid argument: {argument}");
    exit(1)
}

fn main() {
    if let Ok(role) = std::env::var("FAKE_ROLE") {
        faults::play(&role);
    }
    let flags = Flags::read();
    let shared = Arc::new(Shared::new(flags.model.clone()));
    if let Ok(json) = std::env::var("FAKE_ENGINE")
        && let Err(e) = shared.change_from_json(json.as_bytes())
    {
        refuse(&format!("FAKE_ENGINE: {e}"));
    }
    for knob in &flags.knobs {
        if let Err(e) = shared.change_one(knob) {
            refuse(&format!("--fake {knob}: {e}"));
        }
    }
    // Before any thread exists, so that all of them leave the signals to the one that listens.
    faults::listen_to_signals(&shared);
    faults::at_start(&shared);
    std::thread::spawn({
        let shared = Arc::clone(&shared);
        move || faults::as_time_goes_by(&shared)
    });

    std::thread::sleep(Duration::from_secs_f64(shared.knobs().bind_after));
    let listener = TcpListener::bind((flags.host.as_str(), flags.port)).unwrap_or_else(|e| {
        eprintln!("couldn't bind HTTP server socket, hostname: {}, port: {}: {e}", flags.host, flags.port);
        exit(1)
    });
    let port = listener.local_addr().map_or(0, |address| address.port());
    faults::say(&format!("listening on {}:{port}", flags.host));
    faults::hand_over(&shared, &listener);
    http::serve(&listener, &shared);
}
