//! What an engine starts with, and what its shim is.
use super::*;
use std::os::fd::AsRawFd;

/// Seen to fail without `seal_descriptors`, and without the reset of the signal mask (std does not do it).
#[tokio::test]
async fn an_engine_inherits_nothing_that_it_is_not_meant_to() {
    // Whoever forgot close-on-exec: neither shim nor engine may get it.
    let leak = std::fs::File::open("/proc/version").unwrap();
    nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut run = Run::with(&[], |spec| {
        spec.env.insert("HF_TOKEN".into(), "a-secret".into());
        spec.env.insert("NOTIFY_SOCKET".into(), "/run/systemd/notify".into());
        spec.env.insert("WATCHDOG_USEC".into(), "30000000".into());
        spec.env.insert("LISTEN_FDS".into(), "1".into());
        spec.nice = 3;
        spec.oom_score_adj = 200;
    })
    .await;
    let (pid, _) = run.listening().await;

    let fds = process::descriptors(pid);
    let (stdin, pipes) = (&fds[0], &fds[1..3]);
    assert_eq!(*stdin, (0, "/dev/null".to_owned()));
    assert!(pipes.iter().all(|(_, target)| target.starts_with("pipe:")), "{fds:?}");
    let of_its_own =
        |target: &str| target.starts_with("socket:") || target.starts_with("anon_inode:[signalfd]");
    assert!(fds[3..].iter().all(|(_, target)| of_its_own(target)), "{fds:?}");
    let shim_fds = process::descriptors(run.shim.pid);
    assert!(shim_fds.iter().all(|(_, target)| target != "/proc/version"), "{shim_fds:?}");
    assert!(leak.as_raw_fd() > 2);

    assert_eq!(process::status(pid, "PPid"), run.shim.pid.to_string());
    // Blocked by the fake engine itself: INT and TERM.
    assert_eq!(process::status(pid, "SigBlk"), "0000000000004002");
    assert_eq!(
        process::status(pid, "SigIgn").trim_start_matches('0'),
        "1000",
        "Rust ignores PIPE, and nothing else"
    );
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[3], pid.to_string(), "a session of its own");
    assert_eq!(fields[16], "3", "nice");
    let oom_score_adj = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(oom_score_adj.trim(), "200");

    let mut env = process::environ(pid);
    env.sort_unstable();
    let tmp = run.spec.run_dir.join("tmp");
    let expected = [
        "HF_TOKEN=a-secret".to_owned(),
        format!("MAINSTAY_RUN={}", run.spec.nonce),
        "PATH=/usr/bin:/bin".to_owned(),
        format!("TMPDIR={}", tmp.display()),
    ];
    assert_eq!(env, expected);
    assert!(tmp.is_dir());
}

#[tokio::test]
async fn a_shim_is_small_named_and_keeps_no_secret_where_others_look() {
    let mut run = Run::with(&[], |spec| drop(spec.env.insert("KEY".into(), "a-secret".into()))).await;
    run.listening().await;
    let pid = run.shim.pid;
    let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(cmdline, "mainstay\0shim\0primary\0");
    assert_eq!(process::status(pid, "Name"), "mainstay-shim");
    assert_eq!(process::status(pid, "Threads"), "1");
    let env = process::environ(pid);
    assert!(
        env.iter()
            .all(|entry| entry.starts_with("MAINSTAY_LIFELINE=") || entry.starts_with("MAINSTAY_LOCK=")),
        "{env:?}"
    );
    println!("RssAnon of an idle shim: {} KiB", process::rss_anon_kib(pid));
    assert!(process::rss_anon_kib(pid) <= 1024, "{} KiB", process::rss_anon_kib(pid));
}

#[tokio::test]
async fn an_engine_that_cannot_start_is_said_so_and_leaves_no_process() {
    type Change = fn(&mut Spec);
    let cases: [(&str, Change, &str); 3] = [
        (
            "program",
            |spec| spec.argv = vec!["no-such-program".into()],
            "the program \"no-such-program\" was not found: install it, or set `command`",
        ),
        ("directory", |spec| spec.dir = Some("/no/such/dir".into()), "cannot work in /no/such/dir"),
        ("argv", |spec| spec.argv.clear(), "cannot start \"\""),
    ];
    for (what, change, expected) in cases {
        let mut run = Run::with(&[], change).await;
        let (errno, message) = run
            .hear(|message| match message {
                FromShim::StartFailed { errno, message } => Some((errno, message)),
                _ => None,
            })
            .await;
        assert_eq!(errno, 2, "{what}: ENOENT");
        assert!(message.starts_with(expected), "{what}: {message}");
        let record = run.record();
        assert_eq!(
            (record.start_error.as_deref(), record.pid, record.exit.clone()),
            (Some(&*message), None, None)
        );
        assert_eq!(process::children(run.shim.pid), NOTHING);
        run.send(ToShim::Release).await;
        run.shim_gone().await;
    }
}

#[tokio::test]
async fn it_works_in_the_directory_it_is_told() {
    let mut run = Run::with(&[], |spec| spec.dir = Some("/proc".into())).await;
    let (pid, _) = run.listening().await;
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/proc"));
}

/// Where this process may make cgroups (v2) the engine lives in one of its own, and its shim does not; elsewhere the
/// engine runs without.
#[tokio::test]
async fn a_cgroup_is_used_where_there_is_one_to_be_had() {
    let run_with =
        |path: std::path::PathBuf| Run::with(&["double_fork=true"], |spec| spec.cgroup = Some(path));
    let mut run = run_with("/proc/no/cgroup".into()).await;
    run.listening().await;
    assert!(run.log().iter().any(|line| line.starts_with("no cgroup for this run")));
    run.send(ToShim::Kill).await;
    assert_eq!(run.ended().await, NOTHING);

    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let parent = roots.iter().find(|root| std::path::Path::new(root).join("cgroup.procs").exists());
    let path =
        std::path::Path::new(parent.unwrap_or(&"/nowhere")).join(format!("mainstay-test-{}", unique()));
    if std::fs::create_dir(&path).is_err() {
        println!("no cgroup may be made here: that half is not tested");
        return;
    }
    let mut run = run_with(path.clone()).await;
    let (pid, _) = run.listening().await;
    let members = || std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let is_member = |pid: u32| members().lines().any(|line| line == pid.to_string());
    assert!(is_member(pid) && !is_member(run.shim.pid), "{}", members());
    run.send(ToShim::Kill).await;
    assert_eq!(run.ended().await, NOTHING);
    assert!(!path.exists(), "the cgroup is removed with the run");
}

/// It stops before it comes to mainstay's own code: whoever has to tell that it lives must not need its help.
#[tokio::test]
async fn a_shim_is_known_to_live_from_its_birth_to_its_end_and_its_engine_is_no_part_of_that() {
    use mainstay::shim::{SOCKET, lock};
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let slow = dir.path().join("slow");
    let script = format!("#!/bin/sh\nkill -STOP $$\nexec {} \"$@\"\n", mainstay().display());
    std::fs::write(&slow, script).unwrap();
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o700)).unwrap();
    let spec = spec(&dir, &["ignore_term=true"]);
    let lifeline = Lifeline::new().unwrap();
    assert_eq!(lock::is_held(&spec.run_dir), None);
    let shim = spawn_as(&slow, &spec, lifeline.read.as_fd()).unwrap();
    until("it has stopped", || process::status(shim.pid, "State").starts_with('T').then_some(()));
    assert_eq!(lock::is_held(&spec.run_dir), Some(true));
    assert_eq!(lock::holders(&spec.run_dir).unwrap(), [Main::of(shim.pid).unwrap().unwrap()]);
    assert!(!spec.run_dir.join(SOCKET).exists(), "it is known before it listens");

    signal(shim.pid, Signal::CONT);
    let link = Link::connect(&spec.run_dir, PATIENCE).await.unwrap();
    let mut run = Run { _dir: dir, spec, shim, lifeline: Some(lifeline), link };
    let (engine, _) = run.listening().await;
    assert_eq!(lock::holders(&run.spec.run_dir).unwrap(), [Main::of(run.shim.pid).unwrap().unwrap()]);
    pidfd_send_signal(&run.shim.pidfd, Signal::KILL).unwrap();
    until("its end is seen", || (lock::is_held(&run.spec.run_dir) == Some(false)).then_some(()));
    assert!(process::is_alive(engine), "and the engine's is not");
}

/// What the loader says then is all that anybody will ever hear. With less than that the kernel ends it without a word, and
/// with more it starts.
#[tokio::test]
async fn a_shim_that_has_no_memory_leaves_words() {
    use mainstay::shim::{LastWords, SOCKET};
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let poor = dir.path().join("poor");
    let lifeline = Lifeline::new().unwrap();
    let said = (2_000..200_000).step_by(500).find_map(|kib| {
        let script = format!("#!/bin/sh\nulimit -v {kib}\nexec {} \"$@\"\n", mainstay().display());
        std::fs::write(&poor, script).unwrap();
        std::fs::set_permissions(&poor, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut spec = spec(&dir, &[]);
        spec.run_dir = dir.path().join(kib.to_string());
        let shim = spawn_as(&poor, &spec, lifeline.read.as_fd()).unwrap();
        until("it ends", || (!process::is_alive(shim.pid)).then_some(()));
        assert!(!spec.run_dir.join(SOCKET).exists(), "it left no word with {kib} KiB or less");
        match shim.last_words() {
            LastWords::Text(words) if words.is_empty() => None,
            words => Some(words),
        }
    });
    let Some(LastWords::Text(said)) = said else { panic!("{said:?}") };
    assert!(said.contains("failed to map segment") || said.contains("memory allocation of"), "{said}");
}
