//! Starting the engine: what it inherits, and what it does not.
use super::cgroup::RunCgroup;
use super::protocol::{RUN_VAR, Spec};
use super::sys;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// An engine that runs, and the read ends of its output.
#[derive(Debug)]
pub(super) struct Engine {
    pub pid: u32,
    pub out: OwnedFd,
    pub err: OwnedFd,
}

/// Why there is no engine.
#[derive(Debug)]
pub(super) struct StartError {
    pub errno: i32,
    pub message: String,
}

/// Starts the engine in a session of its own, with default signal handling, its own nice and oom_score_adj, and no
/// descriptors but /dev/null and two pipes.
///
/// It gets TERM when the calling thread dies, so that must be the shim's only one.
pub(super) fn start(spec: &Spec, cgroup: Option<&RunCgroup>) -> Result<Engine, StartError> {
    let program = spec.argv.first().map_or("", String::as_str);
    let failed = |doing: &str, e: io::Error| StartError {
        errno: e.raw_os_error().unwrap_or_default(),
        message: format!("{doing}: {e}"),
    };
    if let Some(dir) = &spec.dir {
        // Of exec(2)'s error alone one could not tell which of the two paths is wrong.
        std::fs::metadata(dir.join("."))
            .map_err(|e| failed(&format!("cannot work in {}", dir.display()), e))?;
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let ((out, out_write), (err, err_write)) =
        pipe().and_then(|out| Ok((out, pipe()?))).map_err(|e| failed("cannot make a pipe", e.into()))?;

    // Dropped at the end of this function, and with it our copies of the write ends.
    let mut command = Command::new(program);
    command.args(spec.argv.iter().skip(1)).env_clear().envs(environment(spec));
    command.stdin(Stdio::null()).stdout(out_write).stderr(err_write);
    if let Some(dir) = &spec.dir {
        command.current_dir(dir);
    }
    let (shim, nice, oom_score_adj) = (rustix::process::getpid(), spec.nice, spec.oom_score_adj);
    let procs = cgroup.and_then(|cgroup| cgroup.joiner().ok());
    let become_engine = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
        // The shim may have died before the line above: nobody would ever tell.
        if rustix::process::getppid() != Some(shim) {
            return Err(io::ErrorKind::NotFound.into());
        }
        rustix::process::setsid()?;
        sys::default_dispositions();
        // The shim blocks everything, and a mask is inherited: the engine would never hear TERM.
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        // Whoever may not do the rest runs with what it has: better than no engine.
        let _ = rustix::process::setpriority_process(None, nice);
        let _ = std::fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string());
        if let Some(procs) = &procs {
            let _ = procs.join();
        }
        sys::seal_descriptors()
    };
    #[expect(unsafe_code, reason = "pre_exec")]
    // SAFETY: the shim has one thread, so the child may do whatever a process may, allocate too.
    unsafe {
        command.pre_exec(become_engine);
    }
    let child = command.spawn().map_err(|e| not_started(program, &e))?;
    Ok(Engine { pid: child.id(), out, err })
}

/// In plain words where the program is missing. A file that is there may lack its interpreter, which the system tells in the
/// same words.
fn not_started(program: &str, why: &io::Error) -> StartError {
    let is_there = program.contains('/') && Path::new(program).exists();
    let message = if why.kind() == io::ErrorKind::NotFound && !program.is_empty() && !is_there {
        format!("the program {program:?} was not found: install it, or set `command`")
    } else {
        format!("cannot start {program:?}: {why}")
    };
    StartError { errno: why.raw_os_error().unwrap_or_default(), message }
}

/// The environment of the spec, without what systemd told the agent alone, and with the marks of this run.
fn environment(spec: &Spec) -> impl Iterator<Item = (OsString, OsString)> {
    let mut env = spec.env.clone();
    env.retain(|name, _| !is_for_the_agent(name));
    env.insert(RUN_VAR.to_owned(), spec.nonce.clone());
    let tmp = spec.tmp().into_os_string();
    let tmpdir = (!env.contains_key("TMPDIR")).then(|| ("TMPDIR".into(), tmp));
    env.into_iter().map(|(name, value)| (name.into(), value.into())).chain(tmpdir)
}

/// Variables by which an engine would speak to systemd in the agent's name.
fn is_for_the_agent(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MAINPID"];
    NAMES.contains(&name) || name.starts_with("WATCHDOG_") || name.starts_with("LISTEN_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_the_specs_less_systemds_plus_our_marks() {
        let env = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mut spec = Spec {
            proto: 1,
            tier: "t".into(),
            run: 1,
            nonce: "abc".into(),
            boot_id: String::new(),
            argv: vec![],
            env: env(&[
                ("PATH", "/bin"),
                ("NOTIFY_SOCKET", "x"),
                ("WATCHDOG_USEC", "1"),
                ("LISTEN_FDS", "1"),
                ("JOURNAL_STREAM", "1"),
                ("INVOCATION_ID", "1"),
                ("MAINSTAY_RUN", "somebody else's"),
            ]),
            dir: None,
            run_dir: "/run/x".into(),
            tmp: None,
            cgroup: None,
            port: None,
            secrets: vec![],
            journal: None,
            nice: 0,
            oom_score_adj: 0,
            stop_grace_ms: 0,
            reap_deadline_ms: 0,
        };
        let names = |spec: &Spec| {
            let pairs =
                environment(spec).map(|(name, value)| format!("{}={}", name.display(), value.display()));
            pairs.collect::<Vec<_>>()
        };
        assert_eq!(names(&spec), ["MAINSTAY_RUN=abc", "PATH=/bin", "TMPDIR=/run/x/tmp"]);
        spec.env = env(&[("TMPDIR", "/elsewhere")]);
        assert_eq!(names(&spec), ["MAINSTAY_RUN=abc", "TMPDIR=/elsewhere"]);
        (spec.env, spec.tmp) = (env(&[]), Some("/state/tmp/t-1".into()));
        assert_eq!(names(&spec), ["MAINSTAY_RUN=abc", "TMPDIR=/state/tmp/t-1"]);
    }
}
