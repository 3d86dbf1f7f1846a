//! What a run may leave behind, and what is not its own.
use super::*;
use crate::support::hold::Hold;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file in /dev/shm that goes with its test.
struct Shm(PathBuf);

impl Shm {
    fn name(prefix: &str) -> Self {
        Self(Path::new("/dev/shm").join(format!("{prefix}{}", unique())))
    }

    fn make(prefix: &str) -> Self {
        let shm = Self::name(prefix);
        std::fs::write(&shm.0, "somebody's").unwrap();
        shm
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Each file that stays is seen removed when its own condition is taken out of `shm`.
#[tokio::test]
async fn files_left_in_dev_shm_are_removed_and_nobody_elses_are() {
    let before = Shm::make("psm_");
    let [left, foreign, in_use, strange] = ["psm_", "my-program-", "psm_", "psm_"].map(Shm::name);
    let names = [&left, &foreign, &in_use, &before].map(|shm| shm.0.file_name().unwrap().to_str().unwrap());
    // Killed by us, or by itself: then only an earlier look can have told whose the files were.
    for knob in ["ignore_term=true", "exit_signal=9"] {
        let knobs = [&format!("shm_files={names:?}"), knob, "exit_after=3"];
        let mut run = Run::of(&knobs).await;
        until("the engine has its files", || left.0.exists().then_some(()));
        std::fs::write(&strange.0, "another program's, with the name of such a file").unwrap();
        let _open = until("the file is there", || std::fs::File::open(&in_use.0).ok());
        if knob == "ignore_term=true" {
            run.listening().await;
            run.send(ToShim::Kill).await;
        }
        assert_eq!(run.ended().await, NOTHING);
        let exist = [&left, &before, &foreign, &in_use, &strange].map(|shm| shm.0.exists());
        assert_eq!(exist, [false, true, true, true, true], "left, from before, other name, in use, not seen");
        std::fs::remove_file(&in_use.0).unwrap();
    }
}

/// Only the nonce can tell that it is one of ours. Seen to fail without `carries` in the last look.
#[tokio::test]
async fn a_process_of_the_run_is_found_wherever_it_hangs_in_the_tree() {
    let mut run = Run::of(&[]).await;
    run.listening().await;
    let mut command = Command::new(fake_engine());
    command.env("FAKE_ROLE", "lingerer").stdout(Stdio::null()).stderr(Stdio::null());
    let mut start = |nonce: &str| Kept(command.env("MAINSTAY_RUN", nonce).spawn().unwrap());
    let (ours, anothers) = (start(&run.spec.nonce), start("another-run"));
    until("it carries the nonce", || run.carriers().contains(&ours.0.id()).then_some(()));
    run.send(TERM).await;
    assert_eq!(run.ended().await, NOTHING);
    assert!(!process::is_alive(ours.0.id()));
    assert!(process::is_alive(anothers.0.id()));
}

/// This host lacks descriptors for the shim; only a look into all processes can find one of the run. Before: nothing
/// was killed at all; and with a last look that counts when it could not be taken, the run ended while that one lived.
#[tokio::test]
async fn nothing_counts_as_ended_while_it_cannot_be_looked_at() {
    let mut run = Run::of(&["double_fork=true"]).await;
    run.listening().await;
    let mut command = Command::new(fake_engine());
    command.env("FAKE_ROLE", "lingerer").stdout(Stdio::null()).stderr(Stdio::null());
    let ours = Kept(command.env("MAINSTAY_RUN", &run.spec.nonce).spawn().unwrap());
    until("it carries the nonce", || run.carriers().contains(&ours.0.id()).then_some(()));
    run.allow_no_more_descriptors();
    run.send(ToShim::Kill).await;
    assert_eq!(run.exited().await.signal, Some(9), "that takes no descriptor");
    let said = || run.log().iter().any(|line| line.contains("look again until it can: Too many open files"));
    until("it says what it lacks", || said().then_some(()));
    assert!(process::is_alive(ours.0.id()));
    run.allow_descriptors();
    assert_eq!(run.ended().await, NOTHING);
    assert!(!process::is_alive(ours.0.id()));
    assert_eq!(run.carriers(), NOTHING);
}

/// A child that goes with its test.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that we may not kill has the engine's listener: the port is not free, so the run has not ended. Seen to
/// fail without `note_listeners`: the run then ends at once.
#[tokio::test]
async fn what_cannot_be_ended_is_reported_at_the_deadline_and_again_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hand");
    let hand = UnixListener::bind(&path).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let knob = format!("hand_listener={}", path.display());
    let mut run = Run::with(&[&knob], |spec| {
        spec.argv.extend(["--port".to_owned(), port.to_string()]);
        spec.port = Some(port);
        spec.reap_deadline_ms = 300;
    })
    .await;
    let (main, _) = run.listening().await;
    let held = receive(&hand.accept().unwrap().0);
    run.send(ToShim::Kill).await;
    // On a loaded machine the deadline may find the main process still dying: then that is reported first.
    let ours = vec![std::process::id()];
    run.hear(|message| (message == FromShim::Ended { left: ours.clone() }).then_some(())).await;
    assert!(!process::is_alive(main));
    assert_eq!((run.record().left, run.record().ended_ms), (vec![std::process::id()], None));

    nix::unistd::close(held).unwrap();
    assert_eq!(run.ended().await, NOTHING);
    assert_eq!(run.record().left, NOTHING);
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
}

fn receive(stream: &std::os::unix::net::UnixStream) -> RawFd {
    let (mut byte, mut space) = ([0; 1], nix::cmsg_space!(RawFd));
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .unwrap();
    let fds = message.cmsgs().unwrap().find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    fds.expect("a descriptor came")
}

/// A foreign listener on the port is somebody else's business: the run ends all the same.
#[tokio::test]
async fn a_port_that_somebody_else_holds_does_not_keep_a_run_from_ending() {
    let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = foreign.local_addr().unwrap().port();
    let mut run = Run::with(&[], |spec| {
        spec.argv.extend(["--port".to_owned(), port.to_string()]);
        spec.port = Some(port);
    })
    .await;
    assert_eq!(run.exited().await.code, Some(1), "address in use");
    assert_eq!(run.ended().await, NOTHING);
}

/// The agent's side, for the day a shim dies: by nonce, by session, and what is below.
#[tokio::test]
async fn what_a_dead_shim_left_is_found_and_ended() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut run = Run::of(&["double_fork=true", r#"workers=["painted-over"]"#]).await;
    let (main, _) = run.listening().await;
    let ours = orphans(&run.spec.nonce, Main::of(main).unwrap());
    let all = until("main, worker and lingerer are there", || {
        Some(ours.survivors().unwrap()).filter(|found| found.len() == 3)
    });
    pidfd_send_signal(&run.shim.pidfd, Signal::KILL).unwrap();
    until("main has followed its shim", || (!process::is_alive(main)).then_some(()));
    let others: Vec<u32> = all.iter().copied().filter(|pid| *pid != main).collect();
    assert_eq!(ours.survivors().unwrap(), others);
    assert_eq!(ours.end(PATIENCE).await, NOTHING);
    assert_eq!(ours.survivors().unwrap(), NOTHING);
    let stranger = orphans("nobody-has-this", None);
    assert_eq!(stranger.survivors().unwrap(), NOTHING);
    reap(&all);
}

/// One in the driver's hands: whoever asks next has to hear of it.
#[tokio::test]
async fn what_withstands_kill_is_told_by_its_pid() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut run = Run::of(&[]).await;
    let (main, _) = run.listening().await;
    let hold = Hold::on(main);
    let left = orphans(&run.spec.nonce, Main::of(main).unwrap());
    pidfd_send_signal(&run.shim.pidfd, Signal::KILL).unwrap();
    assert_eq!(left.end(Duration::from_secs(2)).await, [main]);
    hold.let_go();
    assert_eq!(left.end(PATIENCE).await, NOTHING);
    reap(&[main]);
}

/// What came to us as orphans is ours to reap; but no more than that, because other tests wait for theirs.
fn reap(pids: &[u32]) {
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap());
        let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG);
    }
}
