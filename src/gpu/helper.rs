//! `mainstay gpu-probe`: asks the driver when the agent asks it. One thread, and nothing to lose: it may hang in any call.
use super::protocol::{Answer, LINE_MAX, PROTO, Question};
use super::reading;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// There is no driver to ask: EX_UNAVAILABLE.
const NO_DRIVER: u8 = 69;

/// Answers questions until the agent is gone. `None` when the standard input is no socket, so nobody can ask.
pub fn run() -> Option<ExitCode> {
    let socket = io::stdin().as_fd().try_clone_to_owned().ok()?;
    rustix::net::sockopt::socket_type(&socket).ok()?;
    Some(answer_all(UnixStream::from(socket)).unwrap_or_else(|_| leave()))
}

/// The session with the driver. Never dropped: that would call into a driver that may hang by now.
type Session = ManuallyDrop<Nvml>;

fn answer_all(socket: UnixStream) -> io::Result<ExitCode> {
    let mut to = socket.try_clone()?;
    let mut from = BufReader::new(socket);
    let mut session: Option<Session> = None;
    loop {
        let mut line = Vec::new();
        if from.by_ref().take(LINE_MAX as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(leave());
        }
        let question: Question = serde_json::from_slice(&line)?;
        if question.proto != PROTO {
            return Ok(ExitCode::FAILURE);
        }
        let mut answer = Answer { proto: PROTO, ask: question.ask, ..Answer::default() };
        let ended = look(&mut session, &mut answer);
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        to.write_all(&line)?;
        if let Some(code) = ended {
            return Ok(code);
        }
    }
}

/// Fills in the answer; the exit status when it is the last one.
fn look(session: &mut Option<Session>, answer: &mut Answer) -> Option<ExitCode> {
    let nvml = match session {
        Some(nvml) => nvml,
        None => match Nvml::init() {
            Ok(nvml) => session.insert(ManuallyDrop::new(nvml)),
            Err(why) => return Some(without_session(&why, answer)),
        },
    };
    answer.driver = nvml.sys_driver_version().ok();
    match nvml.device_count() {
        Ok(0) => {
            answer.no_driver = Some("the driver is there and knows no GPU".to_owned());
            Some(ExitCode::from(NO_DRIVER))
        }
        Ok(count) => {
            answer.gpus = Some((0..count).map(|index| reading::of(nvml, index)).collect());
            None
        }
        Err(why) => {
            answer.failed = Some(format!("the driver does not say how many GPUs there are: {why}"));
            Some(ExitCode::FAILURE)
        }
    }
}

fn without_session(why: &NvmlError, answer: &mut Answer) -> ExitCode {
    let no_driver = match why {
        NvmlError::LibloadingError(why) => Some(not_loaded(&why.to_string())),
        NvmlError::DriverNotLoaded => Some("the driver is not loaded".to_owned()),
        NvmlError::LibRmVersionMismatch => {
            Some("the loaded driver and its library are of different versions; reboot the host".to_owned())
        }
        NvmlError::LibraryNotFound | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => {
            Some(format!("the driver's library cannot be used: {why}"))
        }
        _ => None,
    };
    match no_driver {
        Some(why) => {
            answer.no_driver = Some(why);
            ExitCode::from(NO_DRIVER)
        }
        None => {
            answer.failed = Some(format!("the driver cannot be asked: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Short where that is all: most hosts of a CPU tier have no driver.
fn not_loaded(why: &str) -> String {
    match why.split_once(": cannot open shared object file: No such file") {
        Some((library, _)) => format!("{library} is not on this host"),
        None => format!("the driver's library cannot be loaded: {why}"),
    }
}

/// The agent is gone, or does not want this process any more. An orderly exit would run what the driver's library
/// registered for it, and that may hang.
fn leave() -> ExitCode {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_said_shortly() {
        let missing = "libnvidia-ml.so.1: cannot open shared object file: No such file or directory";
        assert_eq!(not_loaded(missing), "libnvidia-ml.so.1 is not on this host");
        assert_eq!(
            not_loaded("x: invalid ELF header"),
            "the driver's library cannot be loaded: x: invalid ELF header"
        );
    }
}
