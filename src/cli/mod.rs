//! The command line: each subcommand in a file of its own, every exit status in `exit`.
//!
//! `mainstay shim` and `mainstay gpu-probe` never get as far as the argument parser: a shim is one of many on a host,
//! lives as long as its engine, and has to stay tiny; neither is for people.
pub mod alert;
pub mod check;
pub mod events;
pub mod exit;
pub mod explain;
pub mod gpu_probe;
pub mod gpus;
pub mod help;
pub mod incidents;
pub mod logs;
pub mod operate;
pub mod place;
pub mod run;
pub mod screen;
pub mod shim;
pub mod status;
pub mod wait;

use crate::control::client::Client;
use crate::policy::Command;
use clap::{Parser, Subcommand};
use exit::Exit;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Keeps an LLM API answering on one host: supervises vLLM, Ollama and llama-server, and fails over between them.
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    max_term_width = 80
)]
pub struct Arguments {
    /// The agent's runtime directory; else $MAINSTAY_RUN_DIR, else where the agent would have made it
    #[arg(long, global = true, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent: start the engines of a configuration and serve the endpoint until told to stop
    Run {
        /// The configuration, in TOML: see `mainstay help configuration`
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration and print every problem in it
    Check {
        /// The configuration, in TOML: see `mainstay help configuration`
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show which tier serves and how each is: exit status 0 the best one serves, 1 a lower one, 3 none can, 69 no agent answers
    Status {
        /// Print what the agent says, as JSON
        #[arg(long)]
        json: bool,
        /// Again every second, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show each GPU: temperature, memory and who holds it, power, and what slows it down
    Gpus {
        /// Print what the agent says, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait until any tier can answer: exit status 0 ready, 1 not in time or pointless to wait for, 69 no agent answers
    Wait {
        /// Wait until this tier can answer, whatever the others do
        #[arg(long, value_name = "NAME")]
        tier: Option<String>,
        /// How long, such as "90s", "10m" or "2h"
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::config::duration)]
        timeout: Duration,
    },
    /// Print what a tier's engine wrote, across restarts
    Logs {
        /// Its name, as in `mainstay status`
        tier: String,
        /// Go on with what it writes from now on, across restarts
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines to begin with
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = count)]
        lines: usize,
        /// Print each byte as the engine wrote it, also on a terminal; into a file or a pipe that is so anyway
        #[arg(long)]
        raw: bool,
    },
    /// Print what happened: starts, failovers, exits with their causes, and what operators did
    Events {
        /// Go on with what happens from now on, also when the agent is replaced
        #[arg(short, long)]
        follow: bool,
        /// One JSON object a line, as the agent says it
        #[arg(long)]
        json: bool,
    },
    /// List the incidents: what failed, when, for how long and why
    Incidents {
        /// As JSON, with all that is recorded
        #[arg(long)]
        json: bool,
        /// Where they are kept; else where the running agent, or the unit, keeps them
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Show one incident whole: cause, timeline, what clients felt, the engine's last lines
    Incident {
        /// Its number, or `last`
        #[arg(value_name = "ID|last", default_value = "last")]
        which: String,
        /// As JSON, with all that is recorded
        #[arg(long)]
        json: bool,
        /// Where they are kept; else where the running agent, or the unit, keeps them
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// End a tier's engine and start it again
    Restart {
        /// Its name, as in `mainstay status`
        tier: String,
    },
    /// Start a tier's engine that is stopped or held
    Start {
        /// Its name, as in `mainstay status`
        tier: String,
    },
    /// Ask for a tier's engine to be stopped, until it is started by hand or the agent starts anew
    Stop {
        /// Its name, as in `mainstay status`
        tier: String,
    },
    /// Look after alerts
    Alert {
        #[command(subcommand)]
        what: AlertVerb,
    },
    /// Say what an engine's log and exit status tell: the cause, its evidence, and what to do
    Explain(explain::Options),
    /// Print a page of the manual, the man page, or what a shell needs to complete command lines
    Help {
        /// A topic or a subcommand; `man` for the man page, `completions` for those of a shell; else the index
        topic: Option<String>,
        /// After `completions`: whose
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum AlertVerb {
    /// Send one test mail now, and show what came of each step: exit status 0 when the relay took it
    Test {
        /// The configuration; else the running agent's, else /etc/mainstay/mainstay.toml
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

fn count(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "write a whole number, such as 100")
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|verb| verb == "shim") {
        return shim::main(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|verb| verb == "gpu-probe") {
        return gpu_probe::main();
    }
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => perform(arguments).into(),
        Err(refused) => {
            // It prints help on the standard output and complaints on the other; when neither can be written there is
            // nobody to tell.
            let _ = refused.print();
            if refused.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
        }
    }
}

fn perform(arguments: Arguments) -> Exit {
    let flag = arguments.run_dir.as_deref();
    let client = || Client::new(&place::here(flag));
    match arguments.verb {
        Verb::Run { config } => run::main(&config, flag),
        Verb::Check { config } => check::main(&config),
        Verb::Status { json, watch } => status::main(&client(), json, watch),
        Verb::Gpus { json } => gpus::main(&client(), json),
        Verb::Wait { tier, timeout } => wait::main(&client(), tier.as_deref(), timeout),
        Verb::Logs { tier, follow, lines, raw } => {
            logs::main(&place::here(flag), logs::Wanted { tier: &tier, count: lines, follow, raw })
        }
        Verb::Events { follow, json } => events::main(&client(), follow, json),
        Verb::Incidents { json, state_dir } => incidents::list(&client(), state_dir.as_deref(), json),
        Verb::Incident { which, json, state_dir } => {
            incidents::one(&client(), state_dir.as_deref(), &which, json)
        }
        Verb::Restart { tier } => operate::main(&client(), &tier, Command::Restart),
        Verb::Start { tier } => operate::main(&client(), &tier, Command::Start),
        Verb::Stop { tier } => operate::main(&client(), &tier, Command::Stop),
        Verb::Alert { what: AlertVerb::Test { config } } => alert::test(config.as_deref(), &client()),
        Verb::Explain(options) => explain::main(&options),
        Verb::Help { topic, shell } => help::main(topic.as_deref(), shell.as_deref()),
    }
}
