//! Signals of the operating system become news for the loop.
use super::inbox::{News, Sender};
use super::reaper;
use crate::policy::{Event, Shutdown};
use nix::sys::signal::{SigSet, Signal as Number};
use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// These end a process that does not know them, and mean nothing here: who sends one means another program, as logrotate
/// does with USR1. XFSZ says what the write that failed says too.
const WITHOUT_MEANING: [Number; 9] = [
    Number::SIGUSR1,
    Number::SIGUSR2,
    Number::SIGALRM,
    Number::SIGVTALRM,
    Number::SIGPROF,
    Number::SIGIO,
    Number::SIGPWR,
    Number::SIGSTKFLT,
    Number::SIGXFSZ,
];

/// The signals that the agent listens to, from the moment this exists.
pub struct Signals {
    child: Signal,
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    others: Vec<(Number, Signal)>,
}

/// Until somebody listens, no signal that is none to end the agent ends it. For the first thread, before there is another.
pub fn hold_back() -> io::Result<()> {
    Ok(held_back().thread_block()?)
}

fn held_back() -> SigSet {
    WITHOUT_MEANING.into_iter().chain([Number::SIGHUP]).collect()
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        let other = |number: Number| Ok((number, signal(SignalKind::from_raw(number as i32))?));
        let signals = Self {
            child: signal(SignalKind::child())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            others: WITHOUT_MEANING.into_iter().map(other).collect::<io::Result<_>>()?,
        };
        held_back().thread_unblock()?;
        Ok(signals)
    }

    /// TERM and INT drain and stop; a second one kills. HUP checks the configuration file. Every dead child is reaped.
    pub async fn pass_on(mut self, sender: Sender) {
        let mut asked = false;
        loop {
            tokio::select! {
                Some(()) = self.child.recv() => {
                    reaper::reap();
                    continue;
                }
                Some(()) = self.hangup.recv() => {
                    sender.fact(News::CheckFile).await;
                    continue;
                }
                number = any(&mut self.others) => {
                    let name = number.as_str();
                    tracing::warn!("{name} means nothing to mainstay; TERM stops it, HUP checks the configuration file");
                    continue;
                }
                Some(()) = self.interrupt.recv() => {}
                Some(()) = self.terminate.recv() => {}
            }
            let how = if asked { Shutdown::Now } else { Shutdown::Drain };
            if asked {
                tracing::warn!("asked to stop again: every engine is killed now");
            } else {
                tracing::info!("asked to stop: open answers may finish, then the engines are stopped");
            }
            asked = true;
            sender.fact(News::Event(Event::Shutdown(how))).await;
        }
    }
}

/// The next of these that comes.
async fn any(signals: &mut [(Number, Signal)]) -> Number {
    std::future::poll_fn(|cx| {
        let mut came = signals
            .iter_mut()
            .filter_map(|(number, signal)| signal.poll_recv(cx).is_ready().then_some(*number));
        came.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
