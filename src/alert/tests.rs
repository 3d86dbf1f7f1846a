//! Outbox and courier against a relay that follows a script.
mod courier;
mod day;
mod disk;
mod outbox;
mod relay;
mod tls;

use super::*;
use relay::FakeRelay;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for anything here; waited out only by a test that fails.
const SOON: Duration = Duration::from_secs(20);

fn letterhead(to: &[&str]) -> Letterhead {
    let mailbox = |text: &str| text.parse().expect("an address");
    Letterhead {
        host: "gpu1".to_owned(),
        from: mailbox("mainstay@gpu1.example"),
        to: to.iter().map(|to| mailbox(to)).collect(),
    }
}

/// An outbox, and what is told about its mails.
fn outbox(dir: &Path) -> (Outbox, Receiver<Outcome>) {
    outbox_for(dir, &["a@x.example"])
}

fn outbox_for(dir: &Path, to: &[&str]) -> (Outbox, Receiver<Outcome>) {
    let (tell, told) = channel();
    let redact: Redact = Arc::new(|text| text.replace("hunter2", "[redacted]"));
    let tell: Tell = Arc::new(move |outcome| _ = tell.send(outcome.clone()));
    (Outbox::at(dir, ground(), letterhead(to), redact, tell), told)
}

/// A state directory that is this agent's.
fn ground() -> Ground {
    Arc::new(|| Ok(()))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn record(id: u64) -> Record {
    Record { id, tier: format!("t{id}"), kind: "held".to_owned(), ..Record::default() }
}

/// Puts an alert of the incident `id` into the outbox; its subject is "[ALERT] LLM held: t<id> (gpu1)".
fn put(outbox: &Outbox, id: u64) -> String {
    let post = Post { kind: PostKind::Alert, ids: vec![id], more: 0 };
    outbox.put(&post, &[record(id)]).expect("a writable directory")
}

/// A pace at which failures are soon tried again.
fn quick() -> Pace {
    let ms = Duration::from_millis;
    Pace { first: ms(20), longest: ms(200), give_up: SOON, proven: SOON }
}

fn patience() -> Patience {
    Patience { connect: SOON, command: Duration::from_millis(300), message: Duration::from_millis(300) }
}

fn courier(relay: &FakeRelay, outbox: &Outbox) -> Courier {
    Courier::start(relay.settings(), outbox.clone(), patience(), quick()).expect("a thread")
}
