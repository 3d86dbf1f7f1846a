//! The proxy's own life: clients that leave, the drain, and the proof that it turns.
use super::client::{connect, post, read_answer};
use super::engine::{Engine, FINISH, good_engine, token};
use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Engines that never answer, and tell when their client has gone.
fn waiting(gone: &Arc<AtomicUsize>, begins: bool) -> Engine {
    let gone = gone.clone();
    Engine::start(move |t| {
        if begins {
            t.stream();
            t.event(&token("begun"));
        }
        t.wait_for_close();
        gone.fetch_add(1, SeqCst);
    })
}

#[test]
fn a_client_that_hangs_up_ends_its_upstream_request() {
    for (streaming, begins) in [(false, false), (true, false), (true, true)] {
        let gone = Arc::new(AtomicUsize::new(0));
        let engine = waiting(&gone, begins);
        let bed = Bed::new(vec![vllm("first", engine.port)]);
        let mut client = connect(bed.port);
        client.write_all(post("/v1/chat/completions", &chat(streaming)).as_bytes()).unwrap();
        until("the request is there", || engine.requests().len() == 1);
        if begins {
            client.read_exact(&mut [0; 1]).unwrap();
        }
        drop(client);
        until("the engine's connection is closed", || gone.load(SeqCst) == 1);
        until("the request is forgotten", || bed.live(0).sample().in_flight == 0);
        assert_eq!(bed.tally(0), Tally { requests: 1, abandoned: 1, ..Tally::default() });
        assert_eq!(bed.live(0).sample().failures_in_row, 0, "that is not the tier's fault");
    }
}

#[test]
fn a_pass_through_whose_client_hangs_up_ends_too() {
    let gone = Arc::new(AtomicUsize::new(0));
    let engine = waiting(&gone, true);
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let mut client = connect(bed.port);
    client.write_all(post("/tokenize", &json!({})).as_bytes()).unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    drop(client);
    until("the engine's connection is closed", || gone.load(SeqCst) == 1);
}

#[test]
fn a_drain_lets_answers_finish_and_nobody_in() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let engine = Engine::start(move |t| {
        t.stream();
        t.event(&token("good"));
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        t.event(FINISH);
        t.event("[DONE]");
        t.end();
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let mut idle = connect(bed.port);
    idle.write_all(client::get("/health").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut idle, false).status, 200);
    let mut busy = connect(bed.port);
    busy.write_all(post("/v1/chat/completions", &chat(true)).as_bytes()).unwrap();
    assert_eq!(busy.peek(&mut [0; 1]).unwrap(), 1);
    bed.proxy.stop_accepting();
    until("nobody is let in", || TcpStream::connect(("127.0.0.1", bed.port)).is_err());
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "an idle connection is closed");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let idle_soon =
        |limit| runtime.block_on(async { tokio::time::timeout(limit, bed.proxy.idle()).await.is_ok() });
    assert!(!idle_soon(Duration::from_millis(50)), "a request is open");
    go.send(()).unwrap();
    read_answer(&mut busy, false).expect_good_by("first");
    assert!(idle_soon(PATIENCE));
}

#[test]
fn a_driven_request_beats_the_heart_beyond_all_limits() {
    let bed = Bed::with(Limits { max_connections: 0, ..limits() }, vec![]);
    assert_eq!(client::ask(bed.port, &client::get("/health")).code(), "overloaded");
    let heart = bed.proxy.heart();
    let before = clock::now();
    let age_then = heart.age(before);
    bed.proxy.drive();
    until("the heart has beaten", || {
        heart.age(clock::now()) < clock::now().since(before) || age_then.is_zero()
    });
    assert_eq!(bed.proxy.panics(), 0);
}

#[test]
fn a_driven_request_beats_the_heart_of_a_proxy_that_drains() {
    let bed = Bed::new(vec![]);
    bed.proxy.stop_accepting();
    let heart = bed.proxy.heart();
    let before = clock::now();
    bed.proxy.drive();
    until("the heart has beaten", || {
        let now = clock::now();
        heart.age(now) < now.since(before)
    });
}

#[test]
fn many_clients_at_one_time() {
    let (first, second) = (good_engine(), good_engine());
    let bed = Bed::new(vec![vllm("first", first.port), vllm("second", second.port)]);
    std::thread::scope(|scope| {
        for client in 0..16 {
            let bed = &bed;
            scope.spawn(move || {
                for turn in 0..10 {
                    bed.chat((client + turn) % 2 == 0).expect_good_by("first");
                }
            });
        }
    });
    assert_eq!(bed.tally(0), Tally { requests: 160, answered: 160, ..Tally::default() });
    assert_eq!(bed.live(0).sample().in_flight, 0);
    assert_eq!(bed.live(0).sample().answered, 160);
}
