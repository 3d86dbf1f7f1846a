//! The shim's socket: late clients, strange clients, clients that do not read.
use super::*;
use mainstay::shim::SOCKET;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

/// This is how an agent that starts later will find a run. Seen to fail without `Exited` in `Keeper::state`.
#[tokio::test]
async fn a_client_that_comes_late_is_told_everything_that_still_holds() {
    let mut run = Run::of(&[r#"print=["a line"]"#, "exit_code=4"]).await;
    assert_eq!(run.ended().await, NOTHING);
    let mut late = Link::connect(&run.spec.run_dir, PATIENCE).await.unwrap();
    let mut told = Vec::new();
    while !matches!(told.last(), Some(FromShim::Ended { .. })) {
        told.push(late.recv().await.unwrap());
    }
    let pid = run.record().pid.unwrap();
    match &told[..] {
        [
            FromShim::Hello(hello),
            FromShim::Started { pid: started },
            FromShim::Activity { lines, bytes },
            FromShim::Exited(exited),
            FromShim::Ended { left },
        ] => {
            assert_eq!((hello.proto, hello.run, hello.nonce.as_str()), (PROTO, 7, run.spec.nonce.as_str()));
            assert_eq!((hello.shim_pid, hello.pid, *started), (run.shim.pid, Some(pid), pid));
            assert!(*lines >= 1 && *bytes >= 7, "{lines} {bytes}");
            assert_eq!((exited.code, left.len()), (Some(4), 0));
        }
        other => panic!("{other:?}"),
    }
    late.send(&ToShim::Release).await.unwrap();
    run.shim_gone().await;
    assert!(late.recv().await.is_err(), "the end of the connection");
}

/// Before: the listener stayed ready, and the shim asked it without a pause.
#[tokio::test]
async fn a_client_for_whom_there_is_no_descriptor_waits_and_the_shim_sleeps() {
    let mut run = Run::of(&[]).await;
    run.listening().await;
    run.allow_no_more_descriptors();
    let mut late = Link::connect(&run.spec.run_dir, PATIENCE).await.unwrap();
    let sleeps = || process::status(run.shim.pid, "State").starts_with('S');
    until("the shim sleeps most of the time", || {
        let looks = (0..100).filter(|_| {
            std::thread::sleep(Duration::from_millis(1));
            sleeps()
        });
        (looks.count() > 80).then_some(())
    });
    run.allow_descriptors();
    let hello = tokio::time::timeout(PATIENCE, late.recv()).await.expect("it is served").unwrap();
    assert!(matches!(hello, FromShim::Hello(_)), "{hello:?}");
    run.send(TERM).await;
    assert_eq!(run.ended().await, NOTHING);
}

#[tokio::test]
async fn what_a_later_version_says_is_ignored_and_what_is_no_client_is_dropped() {
    let mut run = Run::of(&[]).await;
    run.listening().await;
    let path = run.spec.run_dir.join(SOCKET);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"{\"type\":5}\n", &[b'x'; 100_000]] {
        let mut stranger = UnixStream::connect(&path).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stranger.write_all(noise);
        let mut answer = Vec::new();
        let end = stranger.read_to_end(&mut answer);
        let reset = end.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(end.is_ok() || reset, "it was not dropped: {end:?}");
    }
    let mut later = UnixStream::connect(&path).unwrap();
    later
        .write_all(b"{\"type\":\"dance\",\"to\":1}\n{\"type\":\"term\",\"grace_ms\":30000,\"nicely\":true}\n")
        .unwrap();
    let exited = run.exited().await;
    assert_eq!((exited.code, exited.asked), (Some(0), Some(Asked::Client)));
}

#[tokio::test]
async fn a_release_before_the_end_means_nothing() {
    let mut run = Run::of(&[]).await;
    let (pid, _) = run.listening().await;
    run.send(ToShim::Release).await;
    run.send(TERM).await;
    assert_eq!(run.exited().await.code, Some(0));
    assert_eq!(run.ended().await, NOTHING);
    assert!(!process::is_alive(pid));
}

/// How a start that takes minutes is seen to go on. Seen to fail with `Pump::tick` giving no message.
#[tokio::test]
async fn output_is_told_while_it_flows() {
    let mut run = Run::of(&["bind_after=0.3"]).await;
    let told = |message| match message {
        FromShim::Activity { lines: 1, bytes } if bytes > 0 => Some(()),
        FromShim::Exited(_) | FromShim::Ended { .. } => panic!("{message:?}"),
        _ => None,
    };
    run.hear(told).await;
    assert!(run.log()[0].starts_with("listening on"));
}

#[tokio::test]
async fn a_shim_without_a_lifeline_or_a_spec_says_so_and_starts_nothing() {
    let shim = |stdin: &str, lifeline: bool| {
        let mut command = std::process::Command::new(mainstay());
        command.args(["shim", "primary"]).env_clear();
        let ends = Lifeline::new().unwrap();
        if lifeline {
            command.env("MAINSTAY_LIFELINE", "0");
        }
        command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may not even have looked at its input.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        drop(ends);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for lifeline in [false, true] {
        let (code, message) = shim("{}", lifeline);
        assert_eq!(code, Some(1));
        assert!(message.contains("there is no lifeline"), "{message}");
    }
}

/// By that a busy shim is told from one that is stopped.
#[tokio::test]
async fn a_shim_answers_whoever_asks_whether_it_is_there_however_much_its_engine_writes() {
    let mut run =
        Run::of(&["frames=20000", r#"repeat="again and again""#, "repeat_ms=1", "bind_after=600"]).await;
    let hello =
        run.hear(|message| if let FromShim::Hello(hello) = message { Some(hello) } else { None }).await;
    assert!(hello.pongs);
    for _ in 0..3 {
        run.send(ToShim::Ping).await;
        run.hear(|message| (message == FromShim::Pong).then_some(())).await;
    }
}
