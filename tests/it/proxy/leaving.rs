//! Clients that hang up while they wait, and clients that have to give way.
use super::client::{await_one_that_left, connect, get, post, read_answer};
use super::engine::{Engine, good_engine, token};
use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// What a client may send after its request, which nobody reads before the answer is there.
fn further() -> [(&'static str, Vec<u8>); 5] {
    let another = post("/v1/chat/completions", &chat(true)).into_bytes();
    [
        ("nothing", vec![]),
        ("one byte", vec![b'x']),
        ("CRLF", b"\r\n".to_vec()),
        ("a second request", another.clone()),
        ("many requests", another.repeat(100)),
    ]
}

/// An engine that says `first` and then nothing; and how many of its clients have gone.
fn silent_after(first: Option<&'static str>) -> (Engine, Arc<AtomicUsize>) {
    let gone = Arc::new(AtomicUsize::new(0));
    let counted = gone.clone();
    let engine = Engine::start(move |t| {
        if let Some(first) = first {
            t.stream();
            t.event(&token(first));
        }
        t.wait_for_close();
        counted.fetch_add(1, SeqCst);
    });
    (engine, gone)
}

#[test]
fn a_client_that_hung_up_ends_its_request_whatever_it_sent_before() {
    for (path, body) in [("/v1/chat/completions", chat(true)), ("/tokenize", json!({"stream": true}))] {
        for first in [None, Some("begun")] {
            let (engine, gone) = silent_after(first);
            let bed = Bed::new(vec![vllm("first", engine.port)]);
            for (round, (name, further)) in further().into_iter().enumerate() {
                let mut client = connect(bed.port);
                client.write_all(post(path, &body).as_bytes()).unwrap();
                client.write_all(&further).unwrap();
                until("the engine is asked", || engine.requests().len() == round + 1);
                if first.is_some() {
                    let mut head = [0; 12];
                    client.read_exact(&mut head).unwrap();
                    assert_eq!(&head, b"HTTP/1.1 200");
                }
                // Not `drop`: that would reset a connection with unread bytes, which shows by itself.
                client.shutdown(Shutdown::Write).unwrap();
                until(name, || gone.load(SeqCst) == round + 1);
                until(name, || bed.live(0).sample().in_flight == 0);
            }
            assert_eq!(bed.tally(0).abandoned, 5, "{path} {first:?}");
        }
    }
}

#[test]
fn a_connection_that_is_idle_gives_way_to_a_new_client() {
    let (engine, _gone) = silent_after(Some("begun"));
    let limits = Limits { max_connections: 3, ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", engine.port)]);
    let mut busy = connect(bed.port);
    busy.write_all(post("/v1/chat/completions", &chat(true)).as_bytes()).unwrap();
    busy.read_exact(&mut [0; 12]).unwrap();
    let mut idle: Vec<TcpStream> = (0..2).map(|_| connect(bed.port)).collect();
    for client in &mut idle {
        client.write_all(get("/health").as_bytes()).unwrap();
        assert_eq!(read_answer(client, false).status, 200);
    }
    for _ in 0..2 {
        let mut new = connect(bed.port);
        new.write_all(get("/health").as_bytes()).unwrap();
        assert_eq!(read_answer(&mut new, false).status, 200);
        await_one_that_left(&mut idle);
        idle.push(new);
    }
    // Whoever waits for an answer keeps its place.
    assert_eq!(bed.live(0).sample().in_flight, 1);
    let mut more = [0; 1];
    busy.read_exact(&mut more).unwrap();
}

#[test]
fn one_address_has_only_so_many_connections() {
    let engine = good_engine();
    let limits = Limits { max_connections_per_client: 2, ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", engine.port)]);
    let mut served: Vec<TcpStream> = (0..2).map(|_| connect(bed.port)).collect();
    for client in &mut served {
        client.write_all(get("/health").as_bytes()).unwrap();
        assert_eq!(read_answer(client, false).status, 200);
    }
    // An idle one of the same address gives way; those that wait for an answer do not.
    let mut third = connect(bed.port);
    third.write_all(get("/health").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut third, false).status, 200);
    await_one_that_left(&mut served);
    let begun =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    let mut busy = [served.remove(0), third];
    for client in &mut busy {
        client.write_all(begun.as_bytes()).unwrap();
        let mut go_on = [0; 25];
        client.read_exact(&mut go_on).unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100 Continue"));
    }
    let answer = ask(bed.port, &get("/health"));
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    assert!(answer.body.contains("server.max_connections_per_client"), "{answer:?}");
    assert_eq!((answer.field("connection"), answer.field("retry-after").is_some()), (Some("close"), true));
    assert_eq!(bed.proxy.refusals().of(proxy::Code::Overloaded), 1);
    // Another address is another client.
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let at = |text: String| socket2::SockAddr::from(text.parse::<std::net::SocketAddr>().unwrap());
    other.bind(&at("127.0.0.2:0".into())).unwrap();
    other.connect(&at(format!("127.0.0.1:{}", bed.port))).unwrap();
    let mut other = TcpStream::from(other);
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other.write_all(get("/health").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut other, false).status, 200);
    drop(busy);
    until("a place is free again", || ask(bed.port, &get("/health")).status == 200);
}
