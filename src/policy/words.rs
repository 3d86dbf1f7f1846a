//! How policy says things to people. Short, without a full stop, fit for one line of status.
use super::{CheckFailure, Ending, Exit, Nature};
use std::time::Duration;

/// A duration with the precision that helps: "250 ms", "2.4 s", "45 s", "15 min", "2 h".
pub(super) fn spell(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 if ms % 1_000 >= 50 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000.. => format!("{} h", ms / 3_600_000),
    }
}

/// "bad-argument (exit code 1)", "killed-from-outside (SIGKILL)".
pub(super) fn ending(ending: &Ending) -> String {
    let how = match ending.exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => signal_name(signal),
        Exit::Unknown => "no exit status".to_owned(),
    };
    format!("{} ({how})", ending.cause.name())
}

/// The same for a run that is over, with the reason where it is no strike.
pub(super) fn failure(of: &Ending) -> String {
    let told = ending(of);
    let evidence = of.evidence.as_ref().map(|evidence| format!(": {evidence}")).unwrap_or_default();
    match of.nature {
        Nature::Engine | Nature::Configuration => told,
        Nature::Environment => format!("{told}{evidence}; no strike, because this may pass by itself"),
        Nature::Shortage => {
            format!("{told}{evidence}; no strike, because this host reached a limit of its own")
        }
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "SIGHUP".to_owned(),
        2 => "SIGINT".to_owned(),
        4 => "SIGILL".to_owned(),
        6 => "SIGABRT".to_owned(),
        7 => "SIGBUS".to_owned(),
        8 => "SIGFPE".to_owned(),
        9 => "SIGKILL".to_owned(),
        11 => "SIGSEGV".to_owned(),
        13 => "SIGPIPE".to_owned(),
        15 => "SIGTERM".to_owned(),
        other => format!("signal {other}"),
    }
}

pub(super) fn check_failure(failure: &CheckFailure) -> String {
    match failure {
        CheckFailure::Refused => "connection refused".to_owned(),
        CheckFailure::TimedOut => "timed out".to_owned(),
        CheckFailure::Reset => "connection reset".to_owned(),
        CheckFailure::Status(status) => format!("status {status}"),
        CheckFailure::NoKey(why) => why.clone(),
        CheckFailure::Itself => "this is mainstay itself: change the `url` of this tier".to_owned(),
        CheckFailure::DeadEnd => "it is a mainstay that reaches no engine without this one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_a_person_would_say_them() {
        let check = |ms: u64, expected: &str| assert_eq!(spell(Duration::from_millis(ms)), expected);
        check(0, "0 ms");
        check(250, "250 ms");
        check(1_000, "1 s");
        check(2_449, "2.4 s");
        check(4_020, "4 s");
        check(45_900, "45 s");
        check(900_000, "15 min");
        check(7_200_000, "2 h");
    }
}
