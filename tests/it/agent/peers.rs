//! Mainstays that are each other's fallback, over loopback: nobody is healthy because of itself, and no request goes in a
//! circle.
use super::rig::{Rig, tier};
use crate::support::until;
use mainstay::alert::Store;
use mainstay::control::wire::{Health, ProcessState};
use mainstay::policy::Command as Order;
use std::io::{Read, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};

/// An address that is known before the host behind it is there. It counts connections.
struct Door {
    port: u16,
    to: Arc<AtomicU16>,
    connections: Arc<AtomicUsize>,
}

impl Door {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let (to, connections) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicUsize::new(0)));
        let (target, count) = (Arc::clone(&to), Arc::clone(&connections));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Relaxed);
                let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Relaxed))) else { continue };
                let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                pass_on(client, server);
                pass_on(server_too, client_too);
            }
        });
        Self { port, to, connections }
    }

    fn lead_to(&self, rig: &Rig) {
        let port = rig.endpoint().rsplit(':').next().and_then(|port| port.parse().ok());
        self.to.store(port.expect("a port"), Relaxed);
    }

    /// A tier that is the host behind this door.
    fn tier(&self, name: &str) -> String {
        format!(
            "[[tier]]\nname = \"{name}\"\nengine = \"remote\"\nmodel = \"m\"\nurl = \"http://127.0.0.1:{}\"\n\
             health = {{ interval = \"200ms\", timeout = \"2s\" }}\n",
            self.port
        )
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn health(rig: &Rig) -> (u16, String) {
    let mut stream = TcpStream::connect(rig.endpoint()).expect("somebody listens");
    write!(stream, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("it is taken");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    (text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), text)
}

#[track_caller]
fn until_reason(rig: &Rig, tier: &str, part: &str) {
    until(&format!("{tier} is down: {part}"), || {
        let tier = rig.tier(tier);
        (tier.health == Health::Down && tier.reason.contains(part)).then_some(())
    });
}

const NO_WAY: &str = "it is a mainstay that reaches no engine without this one";

/// One request at each of these hosts, none of which has an engine: refused at once, without a flood.
#[track_caller]
fn refused_at_once(hosts: &[&Rig], doors: &[&Door]) {
    for host in hosts {
        assert_eq!(health(host).0, 503, "{}", health(host).1);
        until("status says so too", || host.status().serving.is_none().then_some(()));
        let before: usize = doors.iter().map(|door| door.connections.load(Relaxed)).sum();
        let (status, answer) = host.chat();
        assert_eq!(status, 503, "{answer}");
        let after: usize = doors.iter().map(|door| door.connections.load(Relaxed)).sum();
        // Their checks go on meanwhile.
        assert!(after - before < 20, "{} connections for one request", after - before);
    }
}

#[test]
fn two_hosts_without_engines_are_not_each_others_health() {
    let (to_a, to_b) = (Door::new(), Door::new());
    let a = Rig::start(&[to_b.tier("other")]);
    let b = Rig::start(&[to_a.tier("other")]);
    to_a.lead_to(&a);
    to_b.lead_to(&b);
    until_reason(&a, "other", NO_WAY);
    until_reason(&b, "other", NO_WAY);
    assert!(a.tier("other").mainstay, "it is shown as what it is");
    // Nothing has ever answered here: that is an outage all the same.
    let outage = until("the outage is told", || Store::at(&a.state_dir()).load_all().ok()?.pop());
    assert_eq!((outage.kind.as_str(), outage.cause.as_str()), ("all-down", "unknown"), "{outage:?}");
    assert!(outage.advice.is_some_and(|advice| advice.contains("`mainstay status` there")));
    refused_at_once(&[&a, &b], &[&to_a, &to_b]);
}

#[test]
fn a_host_without_an_engine_answers_with_the_other_hosts_engine() {
    let (to_a, to_b) = (Door::new(), Door::new());
    let a = Rig::start(&[to_b.tier("other")]);
    let b = Rig::start(&[tier("engine", "", ""), to_a.tier("other")]);
    to_a.lead_to(&a);
    to_b.lead_to(&b);
    a.until_serving("other");
    assert_eq!(health(&a).0, 200);
    let (status, answer) = a.chat();
    assert_eq!(status, 200, "{answer}");
    until_reason(&b, "other", NO_WAY);
    b.order("engine", Order::Stop).expect("it runs");
    b.until_state("engine", ProcessState::Stopped);
    until_reason(&a, "other", NO_WAY);
    until("neither is healthy", || (health(&a).0 == 503 && health(&b).0 == 503).then_some(()));
    refused_at_once(&[&a, &b], &[&to_a, &to_b]);
}

#[test]
fn three_hosts_in_a_circle_live_on_the_one_engine_and_end_with_it() {
    let (to_a, to_b, to_c) = (Door::new(), Door::new(), Door::new());
    let a = Rig::start(&[to_b.tier("next")]);
    let b = Rig::start(&[to_c.tier("next")]);
    let c = Rig::start(&[tier("engine", "", ""), to_a.tier("next")]);
    to_a.lead_to(&a);
    to_b.lead_to(&b);
    to_c.lead_to(&c);
    a.until_serving("next");
    let (status, answer) = a.chat();
    assert_eq!(status, 200, "{answer}");
    until_reason(&c, "next", NO_WAY);
    c.order("engine", Order::Stop).expect("it runs");
    until("nobody is healthy", || [&a, &b, &c].into_iter().all(|host| health(host).0 == 503).then_some(()));
    until_reason(&a, "next", NO_WAY);
    refused_at_once(&[&a, &b, &c], &[&to_a, &to_b, &to_c]);
}

#[test]
fn a_host_that_names_itself_finds_that_out() {
    let door = Door::new();
    let host = Rig::start(&[door.tier("myself")]);
    door.lead_to(&host);
    until_reason(&host, "myself", "this is mainstay itself");
    assert_eq!(host.tier("myself").traffic.requests, 0);
    refused_at_once(&[&host], &[&door]);
    assert_eq!(host.tier("myself").traffic.requests, 0, "it is never asked");
}
