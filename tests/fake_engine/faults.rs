//! What the fake engine does as a process: its children, its signals, its output, its end.
use super::knobs::Shared;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::ffi::CString;
use std::io::{IoSlice, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio, exit};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The processes that it starts of itself. Does not return.
pub fn play(role: &str) -> ! {
    match role.split_once(':') {
        // The middle of a double fork: leaves at once, and what it started belongs to whoever adopts orphans.
        None if role == "middle" => {
            let _ = nix::unistd::setsid();
            let _ = Command::new(own_path()).env("FAKE_ROLE", "lingerer").spawn();
            exit(0)
        }
        None if role == "lingerer" => SigSet::all().thread_set_mask().unwrap_or_default(),
        Some(("worker", name)) => {
            let name = CString::new(name).unwrap_or_default();
            let _ = nix::sys::prctl::set_name(&name);
        }
        _ => exit(2),
    }
    forever()
}

/// A line of output, for whoever still reads it: unlike `println!` it does not mind a reader that is gone.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn own_path() -> std::path::PathBuf {
    std::env::current_exe().unwrap_or_default()
}

/// TERM, INT and HUP go to one thread, which looks at the knobs as they are then.
pub fn listen_to_signals(shared: &Arc<Shared>) {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    let blocked = signals.thread_block();
    let (Ok(()), Ok(fd)) = (blocked, SignalFd::new(&signals)) else { exit(70) };
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        while let Ok(Some(_)) = fd.read_signal() {
            let knobs = shared.knobs();
            say("cleaning up before exit...");
            if !knobs.ignore_term {
                std::thread::sleep(Duration::from_secs_f64(knobs.term_after));
                exit(0);
            }
        }
    });
}

pub fn at_start(shared: &Shared) {
    let knobs = shared.knobs();
    start_children(&knobs.workers, knobs.double_fork, knobs.double_fork_bare, knobs.hold_pipe);
    for name in &knobs.shm_files {
        match std::fs::OpenOptions::new().append(true).create(true).open(format!("/dev/shm/{name}")) {
            Ok(file) => std::mem::forget(file),
            Err(e) => eprintln!("/dev/shm/{name}: {e}"),
        }
    }
    // Leaked on purpose: it is to stay resident.
    Box::leak(vec![1_u8; knobs.alloc_mib << 20].into_boxed_slice());

    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    if knobs.confess {
        let said = std::env::args().chain(std::env::vars().map(|(name, value)| format!("{name}={value}")));
        said.for_each(|line| drop(writeln!(out, "{line}").and_then(|()| writeln!(err, "I was told {line}"))));
    }
    knobs.print_err.iter().for_each(|line| drop(writeln!(err, "{line}")));
    for n in 0..knobs.frames {
        let _ = writeln!(err, "ERROR 11-23 04:15:26 [serving.py:9]   File \"/v/serving.py\", line {n}, in f");
    }
    knobs.print.iter().for_each(|line| drop(writeln!(out, "{line}")));
    for n in 0..knobs.repaints {
        let _ = write!(err, "\rLoading: {n}/{}", knobs.repaints);
    }
    if knobs.repaints > 0 {
        let _ = writeln!(err, "\rLoading: done");
    }
    if knobs.invalid_utf8 {
        let _ = out.write_all(b"not utf-8: \xff\xfe\x80 end\n");
    }
    let long = vec![b'x'; 1 << 20];
    for _ in 0..knobs.long_lines {
        let _ = out.write_all(&long).and_then(|()| out.write_all(b"\n"));
    }
    let _ = out.write_all(knobs.partial.as_bytes());
    let _ = out.flush();
}

fn start_children(workers: &[String], double_fork: bool, bare: bool, hold_pipe: bool) {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    };
    let mut children = Vec::new();
    if double_fork {
        let mut command = Command::new(own_path());
        quiet(command.env("FAKE_ROLE", "middle"));
        children.push(command);
    }
    if bare {
        let mut command = Command::new(own_path());
        quiet(command.env_clear().env("FAKE_ROLE", "middle"));
        children.push(command);
    }
    if hold_pipe {
        let mut command = Command::new(own_path());
        command.env("FAKE_ROLE", "middle");
        children.push(command);
    }
    for name in workers {
        // As vLLM's workers, whose titles are painted over their environment.
        let mut command = Command::new(own_path());
        quiet(command.env_clear().env("FAKE_ROLE", format!("worker:{name}")));
        children.push(command);
    }
    for mut command in children {
        match command.spawn() {
            // Workers stay; the middle of a double fork is gone at once and must not stay as a zombie.
            Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
            Err(e) => eprintln!("cannot start a child: {e}"),
        }
    }
}

/// What the knobs may ask for at any time: floods and ends.
pub fn as_time_goes_by(shared: &Shared) {
    let mut said = 0_u64;
    let block = b"a line of a flood that has no end and tells nothing at all 01234567\n".repeat(1024);
    let mut out = std::io::stdout();
    loop {
        let knobs = shared.knobs();
        if shared.since_change() >= knobs.exit_after {
            if let Some(signal) = knobs.exit_signal.and_then(|signal| Signal::try_from(signal).ok()) {
                let _ = raise(signal);
            }
            if let Some(code) = knobs.exit_code {
                exit(code);
            }
        }
        let starts = knobs.never_ready || shared.age() < knobs.ready_after;
        if !knobs.repeat.is_empty() && starts && shared.age() * 1e3 >= (said * knobs.repeat_ms.max(20)) as f64
        {
            said += 1;
            say(&format!("{:.3} ({said}/99) {}", shared.age(), knobs.repeat));
        }
        if knobs.spin && starts {
            continue;
        }
        if knobs.flood {
            let written = out.write_all(&block).is_ok();
            shared.flooded_bytes.fetch_add(if written { block.len() as u64 } else { 0 }, Ordering::Relaxed);
        } else {
            // Until the next look at the knobs.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Gives a copy of the listener to whoever listens at the knob's path.
pub fn hand_over(shared: &Shared, listener: &TcpListener) {
    let path = shared.knobs().hand_listener;
    if path.is_empty() {
        return;
    }
    let handed = UnixStream::connect(&path).map_err(nix::Error::try_from).map(|stream| {
        let fds = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(b"!")], &rights, MsgFlags::empty(), None)
    });
    say(&format!("handed over: {handed:?}"));
}
