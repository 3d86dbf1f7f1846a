//! Each mail is sent once, whatever the relay does.
use super::relay::Reply::{Babble, Close, Hang, Say, Usual};
use super::*;
use std::net::TcpListener;

/// Waits for an outcome like this one; what was told until then.
#[track_caller]
fn until(told: &Receiver<Outcome>, is_it: impl Fn(&Outcome) -> bool) -> Vec<Outcome> {
    let mut heard = Vec::new();
    loop {
        let outcome = told.recv_timeout(SOON).unwrap_or_else(|_| panic!("only {heard:#?}"));
        let found = is_it(&outcome);
        heard.push(outcome);
        if found {
            return heard;
        }
    }
}

/// Waits until so many mails were sent.
#[track_caller]
fn sent(told: &Receiver<Outcome>, count: usize) -> Vec<Outcome> {
    (0..count).flat_map(|_| until(told, |outcome| outcome.name() == "sent")).collect()
}

/// A relay that does this once, and is well afterwards: the mail arrives once, after so many conversations.
#[track_caller]
fn survives(fault: impl Fn(&str) -> relay::Reply + Send + Sync + 'static, why: &str) {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    put(&outbox, 1);
    let relay = FakeRelay::start(move |number, line| if number == 0 { fault(line) } else { Usual });
    let courier = courier(&relay, &outbox);
    let heard = sent(&told, 1);
    assert!(heard.len() > 1 && heard[0].to_string().contains(why), "{why}: {heard:#?}");
    assert_eq!((relay.tiers(), outbox.numbers().expect("a directory")), (vec!["t1".to_owned()], vec![]));
    courier.stop();
}

#[test]
fn mails_go_out_in_order_at_once_and_leave_nothing() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    (1..=3).for_each(|id| _ = put(&outbox, id));
    let relay = FakeRelay::start(|_, _| Usual);
    let courier = courier(&relay, &outbox);
    sent(&told, 3);
    put(&outbox, 4);
    let heard = sent(&told, 1);
    assert_eq!(heard[0].mail().map(|mail| mail.ids.clone()), Some(vec![4]));
    assert_eq!(heard[0].to_string(), "mail sent: [ALERT] LLM held: t4 (gpu1) (250 taken)");
    assert_eq!(relay.tiers(), ["t1", "t2", "t3", "t4"]);
    assert_eq!(outbox.numbers().expect("a directory"), Vec::<u64>::new());
    courier.stop();
}

#[test]
fn a_relay_that_is_not_there_gets_the_mail_when_it_is() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    put(&outbox, 1);
    // Bound and not listening: nobody else gets the port.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&any.into()).expect("a free port");
    let port = socket.local_addr().ok().and_then(|it| it.as_socket()).expect("an address").port();
    let away = FakeRelay::start(|_, _| Usual);
    let settings = Relay { port, ..away.settings() };
    let courier = Courier::start(settings, outbox.clone(), patience(), quick()).expect("a thread");
    let heard = until(&told, |outcome| matches!(outcome, Outcome::Unreachable { .. }));
    assert!(heard[0].to_string().contains("cannot connect to the relay: 127.0.0.1:"), "{heard:?}");
    put(&outbox, 2);
    socket.listen(8).expect("a listener");
    let relay = FakeRelay::on(TcpListener::from(socket), Box::new(|_, _| Usual));
    sent(&told, 2);
    assert_eq!(relay.tiers(), ["t1", "t2"]);
    courier.stop();
}

#[test]
fn refusals_silence_noise_and_broken_lines_cost_time_and_no_mail() {
    let at = |stage: &'static str, reply: fn() -> relay::Reply| {
        move |line: &str| {
            if line.starts_with(stage) && (!stage.is_empty() || line.is_empty()) { reply() } else { Usual }
        }
    };
    survives(at("", || Hang), "the relay does not greet: no answer within 0.3 s");
    survives(at("", || Close), "the relay does not greet");
    survives(at("", || Babble), "the relay does not greet");
    survives(at("", || Say("SSH-2.0-OpenSSH_9.2")), "the relay does not greet: its answer is no SMTP");
    survives(at("", || Say("554 no service for you")), "554 no service for you");
    survives(at("MAIL", || Say("451 later")), "the relay refuses the sender: 451 later");
    survives(at("RCPT", || Say("450 grey")), "the relay refuses a receiver: a@x.example: 450 grey");
    survives(at("RCPT", || Say("550 no such user")), "MAIL REFUSED");
    survives(at("RCPT", || Close), "the relay broke off");
    survives(at("RCPT", || Say("421 shutting down")), "421 shutting down");
    survives(at("DATA", || Say("452 full")), "452 full");
    survives(at("DATA", || Hang), "the relay does not take the mail: no answer");
    survives(at(".", || Say("451 try again")), "451 try again");
    survives(at(".", || Say("554 looks like spam")), "554 looks like spam");
    survives(at(".", || Hang), "the relay does not take the mail: no answer within 0.3 s");
    survives(at(".", || Close), "the relay does not take the mail");
    survives(at(".", || Say("garbage")), "its answer is no SMTP");
}

#[test]
fn a_mail_that_is_refused_for_ever_holds_up_no_other() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    (1..=3).for_each(|id| _ = put(&outbox, id));
    // The second one breaks the line each time.
    let relay = FakeRelay::start(|_, line| match line {
        ". [ALERT] LLM held: t1 (gpu1)" => Say("554 never"),
        ". [ALERT] LLM held: t2 (gpu1)" => Close,
        _ => Usual,
    });
    let courier = courier(&relay, &outbox);
    sent(&told, 1);
    put(&outbox, 4);
    sent(&told, 1);
    assert_eq!(relay.tiers(), ["t3", "t4"]);
    courier.stop();
    assert_eq!(outbox.numbers().expect("a directory"), [1, 2]);
    let kept = outbox.open(1).expect("a mail").envelope;
    assert!(kept.attempts >= 1 && kept.last.is_some_and(|why| why.contains("554 never")));
}

#[test]
fn whoever_is_refused_does_not_keep_the_mail_from_the_others() {
    let dir = folder();
    let (outbox, told) = outbox_for(dir.path(), &["a@x.example", "b@x.example"]);
    put(&outbox, 1);
    let relay = FakeRelay::start(|number, line| match (number, line) {
        (0, "RCPT TO:<a@x.example>") => Say("550 gone"),
        _ => Usual,
    });
    let courier = courier(&relay, &outbox);
    let heard = sent(&told, 2);
    assert!(heard.iter().any(|outcome| outcome.to_string().contains("a@x.example: 550 gone")), "{heard:#?}");
    let taken: Vec<Vec<String>> = relay.taken().into_iter().map(|(to, _)| to).collect();
    assert_eq!(taken, [["b@x.example"], ["a@x.example"]]);
    courier.stop();
}

#[test]
fn what_was_sent_is_not_sent_again_even_if_its_file_stays() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    put(&outbox, 1);
    // Whoever takes the file away takes the directory's place with it: removing fails, and the mail is there again.
    let path = dir.path().join("outbox/0000000001.mail");
    let (copy, place) = (std::fs::read(&path).expect("a mail"), path.clone());
    let relay = FakeRelay::start(move |_, line| {
        if line.starts_with(". ") && line.contains("t1") {
            std::fs::remove_file(&place).expect("a mail");
            std::fs::create_dir(&place).expect("a writable directory");
        }
        Usual
    });
    let courier = courier(&relay, &outbox);
    let heard = sent(&told, 1);
    assert!(heard[0].to_string().contains("what was sent is not sent again"), "{heard:?}");
    std::fs::remove_dir(&path).expect("a directory");
    std::fs::write(&path, copy).expect("a writable directory");
    put(&outbox, 2);
    sent(&told, 1);
    assert_eq!(relay.tiers(), ["t1", "t2"]);
    courier.stop();
}

#[test]
fn a_mail_that_cannot_be_sent_in_time_is_put_aside() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    put(&outbox, 1);
    std::fs::write(dir.path().join("outbox/0000000002.mail"), "half a fi").expect("a writable directory");
    let relay = FakeRelay::start(|_, line| if line.starts_with("RCPT") { Say("550 never") } else { Usual });
    let at_once = Pace { give_up: Duration::ZERO, proven: Duration::ZERO, ..quick() };
    let courier = Courier::start(relay.settings(), outbox.clone(), patience(), at_once).expect("a thread");
    let heard: Vec<String> = (0..2)
        .flat_map(|_| until(&told, |outcome| outcome.name() == "given-up"))
        .map(|outcome| outcome.to_string())
        .collect();
    assert!(
        heard[0]
            .contains("[ALERT] LLM held: t1 (gpu1): the relay refuses a receiver: a@x.example: 550 never")
    );
    assert!(heard[1].contains("mail 2: its file is damaged"), "{heard:?}");
    assert_eq!(outbox.numbers().expect("a directory"), Vec::<u64>::new());
    assert!(dir.path().join("outbox/failed/0000000001.mail").exists());
    courier.stop();
}

#[test]
fn an_end_does_not_wait_for_the_relay_and_the_next_agent_goes_on() {
    let dir = folder();
    let (outbox, _told) = outbox(dir.path());
    put(&outbox, 1);
    let (reached, at_stage) = channel();
    let relay = FakeRelay::start(move |number, line| {
        if number == 0 && line.starts_with("RCPT") {
            let _ = reached.send(());
            return Hang;
        }
        Usual
    });
    let patient = Patience { command: SOON * 100, ..patience() };
    let first = Courier::start(relay.settings(), outbox.clone(), patient, quick()).expect("a thread");
    at_stage.recv_timeout(SOON).expect("a conversation");
    // Would wait for SOON * 100.
    first.stop();
    let (outbox, told) = self::outbox(dir.path());
    let second = courier(&relay, &outbox);
    sent(&told, 1);
    assert_eq!((relay.tiers(), relay.conversations()), (vec!["t1".to_owned()], 2));
    second.stop();
}

#[test]
fn a_mail_on_the_relays_table_is_waited_for_a_moment() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    put(&outbox, 1);
    let (reached, at_stage) = channel();
    let (go_on, gone_on) = channel();
    let gone_on = std::sync::Mutex::new(gone_on);
    let relay = FakeRelay::start(move |_, line| {
        if line.starts_with(". ") {
            let _ = reached.send(());
            let _ = gone_on.lock().expect("no panic").recv_timeout(SOON);
        }
        Usual
    });
    let patient = Patience { message: SOON, ..patience() };
    let courier = Courier::start(relay.settings(), outbox.clone(), patient, quick()).expect("a thread");
    at_stage.recv_timeout(SOON).expect("a conversation");
    let stopping = std::thread::spawn(move || courier.stop());
    go_on.send(()).expect("the relay listens");
    stopping.join().expect("no panic");
    sent(&told, 1);
    assert_eq!((relay.tiers().len(), outbox.numbers().expect("a directory").len()), (1, 0));
}

#[test]
fn a_password_needs_tls_and_is_never_told() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    put(&outbox, 1);
    let (seen, logins) = channel();
    let relay = FakeRelay::start(move |_, line| {
        if line.starts_with("AUTH") {
            let _ = seen.send(());
        }
        if line.starts_with("EHLO") { Say("250-fake\r\n250 AUTH PLAIN LOGIN") } else { Usual }
    });
    let login = Some(Login { username: "me".to_owned(), password: Password::Known("hunter2".to_owned()) });
    let settings = Relay { login, ..relay.settings() };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let courier = Courier::start(settings, outbox.clone(), patience(), quick()).expect("a thread");
    let heard = until(&told, |outcome| matches!(outcome, Outcome::Unreachable { .. }));
    assert!(heard[0].to_string().contains("a password does not go out without TLS"), "{heard:?}");
    assert_eq!((relay.tiers(), logins.try_iter().count()), (Vec::<String>::new(), 0));
    courier.stop();
}

#[test]
fn a_password_that_is_not_there_is_looked_for_before_each_try() {
    let dir = folder();
    let (outbox, told) = outbox(dir.path());
    put(&outbox, 1);
    let relay = FakeRelay::start(|_, _| Usual);
    let file = dir.path().join("password");
    let look = move || {
        let read = std::fs::read_to_string(&file);
        read.map_err(|why| {
            format!("`password` needs the file {}, which cannot be read ({why})", file.display())
        })
    };
    let login = Some(Login { username: "me".to_owned(), password: Password::Late(Arc::new(look)) });
    let settings = Relay { login, ..relay.settings() };
    let courier = Courier::start(settings, outbox.clone(), patience(), quick()).expect("a thread");
    let heard = until(&told, |outcome| matches!(outcome, Outcome::Unreachable { .. }));
    let why = heard[0].to_string();
    assert!(why.contains("there is no password for the relay: `password` needs the file "), "{why}");
    std::fs::write(dir.path().join("password"), "hunter2").expect("a file");
    let with_password =
        |outcome: &Outcome| outcome.to_string().contains("a password does not go out without TLS");
    until(&told, with_password);
    assert_eq!(outbox.numbers().expect("a directory").len(), 1, "it waits");
    courier.stop();
}
