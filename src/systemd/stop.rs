//! Time for a stop that takes longer than the unit allows (`TimeoutStopSec=`): systemd would kill engines in the middle of
//! answers. It is asked for a little more, again and again, by the loop that does the stopping and only within the stop's
//! own bound: a loop that hangs, or a stop that has no end, gets none.
use super::notify::Notifier;
use crate::policy::Moment;
use std::time::Duration;

/// Asked for at a time.
const MORE: Duration = Duration::from_secs(20);
/// How often.
const EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct StopTime {
    until: Moment,
    next: Moment,
}

impl StopTime {
    /// Of a stop that begins now and has ended after `limit`, if all goes as it should.
    pub fn begin(now: Moment, limit: Duration) -> Self {
        Self { until: now + limit, next: now }
    }

    /// Asks for more, when that is due.
    pub fn ask(&mut self, now: Moment, systemd: &Notifier) {
        if self.next <= now && now < self.until {
            self.next = now + EVERY;
            systemd.extend_timeout(MORE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn systemd_is_asked_for_more_time_until_the_stop_should_have_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).expect("a socket");
        systemd.set_nonblocking(true).expect("a socket");
        let notifier = Notifier::from_env(|_| Some(path.clone().into_os_string()));
        let at = |s: u64| Moment::from_nanos(s * 1_000_000_000);
        let mut time = StopTime::begin(at(100), Duration::from_secs(12));
        let mut asked = Vec::new();
        for second in 100..130 {
            time.ask(at(second), &notifier);
            let mut text = [0; 64];
            if let Ok(length) = systemd.recv(&mut text) {
                assert_eq!(&text[..length], b"EXTEND_TIMEOUT_USEC=20000000\n");
                asked.push(second);
            }
        }
        assert_eq!(asked, [100, 105, 110]);
    }
}
