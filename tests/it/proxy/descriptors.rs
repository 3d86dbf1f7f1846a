//! When the process has no descriptor left: that is nobody's failure but our own.
use super::client::{await_one_that_left, connect, get, post, read_answer};
use super::engine::good_engine;
use super::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::io::Write;
use std::process::Command;

/// Set in the process of its own that a test of this page runs in: a limit is the whole process's.
const ALONE: &str = "MAINSTAY_TEST_ALONE";

/// Runs `test`, which is named `name`, in a process of its own with so many descriptors.
#[track_caller]
fn alone(name: &str, descriptors: u64, test: fn()) {
    if std::env::var_os(ALONE).is_some() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, descriptors.min(hard), hard).unwrap();
        return test();
    }
    let name = format!("proxy::descriptors::{name}");
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn a_tier_that_cannot_be_reached_for_want_of_descriptors_has_not_failed() {
    alone("a_tier_that_cannot_be_reached_for_want_of_descriptors_has_not_failed", 400, || {
        let (first, second) = (good_engine(), good_engine());
        let mut bed = Bed::new(vec![vllm("first", first.port), vllm("second", second.port)]);
        bed.change(|table| table.tiers[1].upstream.as_mut().unwrap().host = "localhost".into());
        let mut client = connect(bed.port);
        client.write_all(get("/health").as_bytes()).unwrap();
        assert_eq!(read_answer(&mut client, false).status, 200);
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        for path in ["/v1/chat/completions", "/tokenize"] {
            for _ in 0..3 {
                client.write_all(post(path, &chat(false)).as_bytes()).unwrap();
                let answer = read_answer(&mut client, false);
                assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"), "{answer:?}");
                assert_eq!(answer.field("retry-after"), Some("5"));
            }
        }
        for rank in 0..2 {
            assert_eq!(bed.live(rank).sample().failures_in_row, 0);
        }
        assert!(bed.reports.try_recv().is_err());
        drop(taken);
        client.write_all(post("/v1/chat/completions", &chat(false)).as_bytes()).unwrap();
        read_answer(&mut client, false).expect_good_by("first");
    });
}

#[test]
fn no_more_clients_are_let_in_than_descriptors_allow() {
    alone("no_more_clients_are_let_in_than_descriptors_allow", 100, || {
        let bed = Bed::new(vec![]);
        let mut served: Vec<_> = (0..6).map(|_| connect(bed.port)).collect();
        for client in &mut served {
            client.write_all(get("/health").as_bytes()).unwrap();
            assert_eq!(read_answer(client, false).code(), "all_tiers_down");
        }
        // A seventh takes the place of one of them.
        assert_eq!(ask(bed.port, &get("/health")).code(), "all_tiers_down");
        await_one_that_left(&mut served);
    });
}

#[test]
fn a_proxy_without_a_descriptor_still_shows_that_it_turns() {
    alone("a_proxy_without_a_descriptor_still_shows_that_it_turns", 400, || {
        let bed = Bed::new(vec![]);
        let heart = bed.proxy.heart();
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        let began = clock::now();
        until("its heart beats", || {
            bed.proxy.drive();
            heart.age(clock::now()) < clock::now().since(began)
        });
    });
}
