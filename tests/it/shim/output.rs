//! The engine's output: always read, never in the engine's way, never more than bounded.
use super::*;
use crate::support::haystack::Haystack;
use std::io::{Read, Write};
use std::net::TcpStream;

/// One request to the fake engine, answered whole.
fn ask(port: u16, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn flooded(port: u16) -> u64 {
    let answer = ask(port, "GET", "/knobs", "");
    let (_, rest) = answer.split_once("\"flooded_bytes\":").expect("the figure is there");
    rest.split([',', '}']).next().and_then(|figure| figure.parse().ok()).expect("a number")
}

/// Seen to fail when the pump stops reading a pipe: the engine then stands still.
#[tokio::test]
async fn a_flood_neither_stops_the_engine_nor_grows_the_shim_nor_drowns_a_command() {
    const ENOUGH: u64 = 100 << 20;
    let mut run = Run::of(&[]).await;
    let (pid, port) = run.listening().await;
    let quiet_kib = process::rss_anon_kib(run.shim.pid);
    let begun = mainstay::clock::now();
    ask(port, "POST", "/knobs", r#"{"flood": true}"#);
    let reader = ring::Reader::open(&run.spec.run_dir.join(LOG)).unwrap();
    let mut most_kib = 0;
    until("enough of a flood", || {
        most_kib = most_kib.max(process::rss_anon_kib(run.shim.pid));
        // While it is written: whole lines only.
        for line in reader.last(usize::MAX).unwrap().iter().filter(|line| line.stream == ring::Stream::Out) {
            let text = String::from_utf8_lossy(&line.bytes);
            let cut = text.ends_with("[mainstay: rest of the line dropped]");
            let whole =
                text.starts_with("a line of a flood") && text.len() == 67 || text.starts_with("listening on");
            assert!(whole || cut, "{text}");
        }
        (flooded(port) > ENOUGH).then_some(())
    });
    let seconds = mainstay::clock::now().since(begun).as_secs_f64();
    let totals = reader.totals().unwrap();
    println!(
        "flood: {:.0} MB/s, shim RssAnon {quiet_kib} KiB quiet, {most_kib} KiB at most, {totals:?}",
        flooded(port) as f64 / 1e6 / seconds
    );
    assert!(most_kib <= 1024, "{most_kib} KiB");
    assert_eq!(std::fs::metadata(run.spec.run_dir.join(LOG)).unwrap().len(), 1 << 20);
    assert!(ask(port, "GET", "/health", "").starts_with("HTTP/1.1 200"), "it serves on");
    run.send(ToShim::Kill).await;
    assert_eq!(run.exited().await.signal, Some(9));
    assert_eq!(run.ended().await, NOTHING);
    assert!(!process::is_alive(pid));
    assert_eq!(run.record().last_lines.len(), 200);
}

#[tokio::test]
async fn long_lines_are_cut_repaints_thinned_and_bytes_that_are_not_utf8_kept() {
    let knobs = ["long_lines=3", "invalid_utf8=true", "repaints=500", r#"print_err=["to standard error"]"#];
    let mut run = Run::of(&knobs).await;
    run.listening().await;
    let reader = ring::Reader::open(&run.spec.run_dir.join(LOG)).unwrap();
    let lines = reader.last(usize::MAX).unwrap();
    let of = |stream, prefix: &[u8]| {
        lines.iter().filter(|l| l.stream == stream && l.bytes.starts_with(prefix)).collect::<Vec<_>>()
    };
    let long = of(ring::Stream::Out, b"xxxx");
    // What follows the first MiB of a burst may be dropped, but not silently.
    let dropped = reader.totals().unwrap().dropped;
    assert!(!long.is_empty() && long.len() as u64 + dropped >= 3, "{} and {dropped}", long.len());
    for line in long {
        assert!(line.bytes.len() < 17_000 && line.bytes.ends_with(b" [mainstay: rest of the line dropped]"));
    }
    assert_eq!(of(ring::Stream::Out, b"not utf-8: \xff\xfe\x80 end").len(), 1);
    assert_eq!(of(ring::Stream::Err, b"to standard error").len(), 1);
    let repaints = of(ring::Stream::Err, b"Loading: ");
    assert!(repaints.len() < 100, "{} of 500 repaints", repaints.len());
    assert_eq!(repaints.last().unwrap().bytes, b"Loading: done");
    assert!(lines.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));

    run.send(ToShim::Kill).await;
    run.ended().await;
    let record = run.record();
    assert!(record.last_lines.iter().any(|line| line == "not utf-8: \u{fffd}\u{fffd}\u{fffd} end"));
}

/// What an engine says last before it hangs is worth most. Seen to fail without the flush in `Pump::tick`.
#[tokio::test]
async fn a_line_without_an_end_is_shown_while_the_engine_lives_and_after_it_died() {
    let mut run = Run::of(&["partial=Loading weights ...", "bind_after=3600"]).await;
    run.started().await;
    until("it is shown", || run.log().contains(&"Loading weights ...".to_owned()).then_some(()));

    let mut run = Run::of(&["partial=Killed while", "exit_signal=9", "bind_after=3600"]).await;
    run.ended().await;
    assert_eq!(run.record().last_lines, ["Killed while"]);
}

const SECRET: &str = "s3cr3t-of-thirty-bytes-qzwxkvj";

/// No part of the secret that tells anything may be in anything that the shim leaves behind.
fn shows_nothing(run: &Run) {
    let mut hay = Haystack::default();
    hay.add_files(&run.spec.run_dir);
    hay.add("the log", run.log().join("\n"));
    let parts = [&SECRET[..8], &SECRET[8..16], &SECRET[20..]];
    let found = hay.finds(&parts);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Seen to fail with `bytes` in place of `cut_off` in `Sink::line`.
#[tokio::test]
async fn a_line_that_is_cut_within_a_secret_keeps_no_half_of_it() {
    for room in [5, 12, 29] {
        let line = format!("{}{SECRET} and more", "x".repeat(16 * 1024 - room));
        let print = format!("print=[\"{line}\"]");
        let mut run = Run::with(&[&print], |spec| spec.secrets = vec![SECRET.to_owned()]).await;
        run.listening().await;
        let cut = run.log().into_iter().find(|line| line.starts_with("xxxx")).expect("the line is there");
        assert!(cut.ends_with("x[redacted] [mainstay: rest of the line dropped]"), "{}", &cut[16_000..]);
        shows_nothing(&run);
    }
}

/// Seen to fail without `Pipe::held`.
#[tokio::test]
async fn a_secret_that_is_written_in_two_parts_is_never_shown_by_halves() {
    let half = format!("partial=the key is {}", &SECRET[..15]);
    let mut run = Run::with(&[&half, "bind_after=3600"], |spec| spec.secrets = vec![SECRET.to_owned()]).await;
    run.started().await;
    // Past the time after which an unfinished line is shown: there is nothing to be awaited.
    run.hear(|message| matches!(message, FromShim::Activity { .. }).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!run.log().iter().any(|line| line.starts_with("the key")), "{:?}", run.log());
    run.send(ToShim::Kill).await;
    run.ended().await;
    assert_eq!(run.record().last_lines, ["the key is [redacted]"]);
    shows_nothing(&run);
}

#[tokio::test]
async fn lines_go_to_the_journal_under_the_tiers_name_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journald = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    journald.set_read_timeout(Some(PATIENCE)).unwrap();
    let said = format!(r#"print_err=["WARN 11-23 token {SECRET}"]"#);
    let mut run = Run::with(&[&said], |spec| {
        spec.secrets = vec![SECRET.to_owned()];
        spec.journal = Some(path.clone());
    })
    .await;
    run.listening().await;
    let mut message = [0; 64 * 1024];
    let mut next = || {
        let len = journald.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let both = [next(), next()];
    let warning = both.iter().find(|message| message.contains("WARN")).expect("the line is there");
    assert!(
        warning.starts_with(
            "SYSLOG_IDENTIFIER=mainstay-primary\nMAINSTAY_TIER=primary\nMAINSTAY_RUN=7\nPRIORITY=4\n"
        ),
        "{warning}"
    );
    assert!(warning.ends_with("WARN 11-23 token [redacted]\n"), "{warning}");
    shows_nothing(&run);
}

/// A journald that hangs, is gone and comes back: the engine writes on, and the journal is told what it missed.
#[tokio::test]
async fn a_journal_that_hangs_or_is_gone_stops_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    // Nobody reads it.
    let hung = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let mut run = Run::with(&[], |spec| spec.journal = Some(path.clone())).await;
    let (_, port) = run.listening().await;
    ask(port, "POST", "/knobs", r#"{"flood": true}"#);
    until("the engine writes on", || (flooded(port) > 10 << 20).then_some(()));
    drop(hung);
    let before = flooded(port);
    until("and on", || (flooded(port) > before + (10 << 20)).then_some(()));
    std::fs::remove_file(&path).unwrap();
    ask(port, "POST", "/knobs", r#"{"flood": false}"#);
    let back = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    back.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = [0; 64 * 1024];
    let text = until("the journal is told", || {
        let len = back.recv(&mut message).expect("a message");
        let text = String::from_utf8_lossy(&message[..len]).into_owned();
        text.contains("are not in the journal").then_some(text)
    });
    assert!(text.contains("PRIORITY=4") && text.contains("mainstay logs"), "{text}");
    assert!(process::rss_anon_kib(run.shim.pid) <= 1024);
}
