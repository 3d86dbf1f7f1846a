//! Signals of the operating system become news for the loop.
use super::inbox::{News, Sender};
use super::reaper;
use crate::policy::{Event, Shutdown};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the agent listens to, from the moment this exists.
pub struct Signals {
    child: Signal,
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
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
                Some(()) = self.interrupt.recv() => {}
                Some(()) = self.terminate.recv() => {}
                else => return,
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
