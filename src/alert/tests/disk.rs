//! A state directory that takes nothing for a while.
use super::*;
use crate::alert::{Clerk, Job};
use std::fs;

fn told(told: &Receiver<Outcome>) -> Outcome {
    told.recv_timeout(SOON).expect("something is told")
}

/// What is in its place is a file: nothing can be written there, by root neither.
#[test]
fn what_a_full_disk_did_not_take_is_written_and_mailed_when_it_takes_it() {
    let dir = folder();
    for name in ["incidents", "outbox"] {
        fs::write(dir.path().join(name), "").expect("a writable directory");
    }
    let (outbox, tidings) = outbox(dir.path());
    let (clerk, _thread) =
        Clerk::start(dir.path(), ground(), Some(outbox.clone()), Box::new(|_| {})).expect("a thread");
    clerk.give(Job::Save(Box::new(Record { evidence: Some("the root of it".into()), ..record(7) }), None));
    let post = Post { kind: PostKind::Return, ids: vec![7], more: 0 };
    assert!(clerk.offer(Job::Post(Box::new(post))).is_ok());
    assert!(matches!(told(&tidings), Outcome::Stuck { .. }), "somebody has to hear of it");
    assert!(clerk.lost() > 0);
    for name in ["incidents", "outbox"] {
        fs::remove_file(dir.path().join(name)).expect("it is there");
    }
    // Whatever comes next wakes it; else it looks by itself, a few seconds later.
    let newer = Record { evidence: Some("the root of it".into()), to: Some("cpu".into()), ..record(7) };
    clerk.give(Job::Save(Box::new(newer), None));
    clerk.give(Job::Event("{}".to_owned()));
    clerk.settle();
    assert_eq!(
        Store::at(dir.path()).load(7).expect("its record").to.as_deref(),
        Some("cpu"),
        "the newer one"
    );
    assert_eq!(
        Store::at(dir.path()).load(7).expect("its record").evidence.as_deref(),
        Some("the root of it")
    );
    let mail = outbox.open(1).expect("its mail");
    let text = String::from_utf8_lossy(&mail.bytes).into_owned();
    assert!(!text.contains("could not be read") && text.contains("the root of it"), "{text}");
}
