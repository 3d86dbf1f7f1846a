//! A state directory that takes nothing for a while.
use super::*;
use crate::alert::clerk::{HANGS, LINES_MAX, UNSAVED_MAX};
use crate::alert::{Clerk, Job};
use crate::clock;
use std::fs;
use std::sync::Mutex;

fn told(told: &Receiver<Outcome>) -> Outcome {
    told.recv_timeout(SOON).expect("something is told")
}

/// Without mail.
fn clerk(dir: &Path, ground: Ground, trouble: Option<&str>) -> Clerk {
    let (clerk, _) =
        Clerk::start(dir, ground, None, Box::new(|_| {}), trouble.map(str::to_owned)).expect("a thread");
    clerk
}

#[test]
fn what_was_wrong_at_the_start_is_told_until_something_is_written() {
    let dir = folder();
    let clerk = clerk(dir.path(), ground(), Some("it does not answer"));
    assert_eq!(clerk.trouble().as_deref(), Some("it does not answer"));
    clerk.give(Job::Event("{}".to_owned()));
    clerk.settle();
    assert_eq!(clerk.trouble(), None);
}

#[test]
fn a_disk_that_takes_nothing_and_gives_no_error_is_told() {
    let dir = folder();
    let (begun, began) = channel();
    let (end, held) = channel::<()>();
    let held = Mutex::new(held);
    let hangs: Ground = Arc::new(move || {
        let _ = begun.send(());
        let _ = held.lock().expect("one thread").recv();
        Ok(())
    });
    let clerk = clerk(dir.path(), hangs, None);
    let before = clock::now();
    clerk.give(Job::Event("{}".to_owned()));
    began.recv_timeout(SOON).expect("it is at it");
    assert_eq!(clerk.trouble_at(before), None, "it may take a moment");
    let told = clerk.trouble_at(clock::now() + HANGS).expect("it is told");
    assert!(told.contains("does not answer"), "{told}");
    drop(end);
    while clerk.trouble_at(clock::now() + HANGS).is_some() {
        assert!(clock::now().since(before) < SOON, "it goes on");
        std::thread::yield_now();
    }
}

#[test]
fn what_waits_is_not_lost_and_what_gives_way_is() {
    let dir = folder();
    let clerk = clerk(dir.path(), Arc::new(|| Err(std::io::Error::other("full"))), None);
    let give = |job| {
        clerk.give(job);
        clerk.settle();
    };
    (0..LINES_MAX).for_each(|_| give(Job::Event("{}".to_owned())));
    (1..=UNSAVED_MAX as u64).for_each(|id| give(Job::Save(Box::new(record(id)), None)));
    assert_eq!(clerk.lost(), 0);
    (0..3).for_each(|_| give(Job::Event("{}".to_owned())));
    assert_eq!(clerk.lost(), 3);
    (0..2).for_each(|id| give(Job::Save(Box::new(record(1_000 + id)), None)));
    assert_eq!(clerk.lost(), 5);
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
        Clerk::start(dir.path(), ground(), Some(outbox.clone()), Box::new(|_| {}), None).expect("a thread");
    clerk.give(Job::Save(Box::new(Record { evidence: Some("the root of it".into()), ..record(7) }), None));
    let post = Post { kind: PostKind::Return, ids: vec![7], more: 0 };
    assert!(clerk.offer(Job::Post(Box::new(post))).is_ok());
    assert!(matches!(told(&tidings), Outcome::Stuck { .. }), "somebody has to hear of it");
    assert_eq!(clerk.lost(), 0, "it is only late");
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
