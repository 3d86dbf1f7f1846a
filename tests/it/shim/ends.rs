//! How runs end, and how they are ended.
use super::*;

#[tokio::test]
async fn an_end_that_nobody_asked_for_is_recorded_as_it_was() {
    let cases =
        [("exit_code=0", Some(0), None), ("exit_code=3", Some(3), None), ("exit_signal=9", None, Some(9))];
    for (knob, code, by_signal) in cases {
        let mut run = Run::of(&[r#"print=["first","last words"]"#, knob]).await;
        let exited = run.exited().await;
        assert_eq!((exited.code, exited.signal, exited.asked), (code, by_signal, None), "{knob}");
        let expected_raw = code.map_or(0, |code| code << 8) | by_signal.unwrap_or(0);
        assert_eq!(exited.raw & 0xff7f, expected_raw, "{knob}: all but the core flag");
        let early = run.record();
        assert_eq!((early.exit.as_ref(), early.nonce == run.spec.nonce, early.run), (Some(&exited), true, 7));

        assert_eq!(run.ended().await, NOTHING);
        let record = run.record();
        assert_eq!(record.exit, Some(exited));
        let words: Vec<&String> =
            record.last_lines.iter().filter(|line| !line.starts_with("listening")).collect();
        assert_eq!(words, ["first", "last words"]);
        assert!(record.max_rss_bytes > 100_000 && record.started_ms <= record.ended_ms.unwrap());
        assert_eq!(record.boot_id, mainstay::clock::boot_id().unwrap());
        assert!(!run.spec.run_dir.join("tmp").exists(), "its tmp is gone");
        run.send(ToShim::Release).await;
        run.shim_gone().await;
    }
}

#[tokio::test]
async fn term_goes_to_the_main_process_and_is_enough_for_one_that_obeys() {
    let mut run = Run::of(&[r#"workers=["llama-server"]"#]).await;
    run.listening().await;
    run.send(TERM).await;
    let exited = run.exited().await;
    assert_eq!((exited.code, exited.signal, exited.asked), (Some(0), None, Some(Asked::Client)));
    assert_eq!(run.ended().await, NOTHING, "and the worker that nobody told was ended after it");
    assert!(run.log().iter().any(|line| line == "cleaning up before exit..."));
}

/// Seen to fail without the step from `Terminating` to `Killing` (it then waits for ever).
#[tokio::test]
async fn one_that_ignores_term_is_killed_when_the_grace_is_over() {
    let mut run = Run::of(&["ignore_term=true"]).await;
    let (pid, _) = run.listening().await;
    run.send(ToShim::Term { grace_ms: 100 }).await;
    let exited = run.exited().await;
    assert_eq!((exited.code, exited.signal, exited.asked), (None, Some(9), Some(Asked::Client)));
    assert_eq!(run.ended().await, NOTHING);
    assert!(!process::is_alive(pid));
    let asked_first = run.log().iter().any(|line| line == "cleaning up before exit...");
    assert!(asked_first, "it was told before it was killed");
}

/// Seen to fail without the subreaper: the double forks escape.
#[tokio::test]
async fn a_kill_takes_the_whole_tree_through_double_forks_sessions_and_empty_environments() {
    let knobs = ["double_fork=true", "double_fork_bare=true", "hold_pipe=true", r#"workers=["a","b"]"#];
    for stop in [ToShim::Kill, TERM] {
        let mut run = Run::of(&knobs).await;
        let (main, _) = run.listening().await;
        // Two workers below the main process; it and three lingerers, whose middle is gone, below the shim.
        let family = until("the family is complete", || {
            let family = [process::children(run.shim.pid), process::children(main)].concat();
            (family.len() == 6).then_some(family)
        });
        run.send(stop).await;
        run.exited().await;
        assert_eq!(run.ended().await, NOTHING);
        assert_eq!(family.iter().filter(|pid| process::is_alive(**pid)).count(), 0);
        assert_eq!(run.carriers(), NOTHING);
    }
}

/// "Exited" is when the main process is reaped, whoever holds its pipes.
#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_delays_nothing() {
    let mut run = Run::of(&["hold_pipe=true", "exit_code=0", "exit_after=0.3"]).await;
    assert_eq!(run.exited().await.code, Some(0));
    let holder = process::children(run.shim.pid);
    assert_eq!(holder.len(), 1, "it lives on for now: {holder:?}");
    assert_eq!(run.ended().await, NOTHING);
    assert!(!process::is_alive(holder[0]));
}

/// Seen to fail with `hear_lifeline` doing nothing.
#[tokio::test]
async fn when_the_lifeline_closes_everything_ends_by_itself() {
    let mut run = Run::of(&["ignore_term=true", "double_fork=true"]).await;
    run.listening().await;
    run.lifeline = None;
    run.shim_gone().await;
    let record = run.record();
    let exit = record.exit.unwrap();
    assert_eq!((exit.signal, exit.asked), (Some(9), Some(Asked::Lifeline)));
    assert!(record.ended_ms.is_some());
    assert_eq!(run.carriers(), NOTHING);
}

#[tokio::test]
async fn the_shim_takes_term_as_the_end_of_the_lifeline_and_shrugs_off_other_signals() {
    let mut run = Run::of(&[]).await;
    run.listening().await;
    for harmless in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::PIPE] {
        signal(run.shim.pid, harmless);
    }
    signal(run.shim.pid, Signal::TERM);
    run.shim_gone().await;
    let exit = run.record().exit.unwrap();
    assert_eq!((exit.code, exit.asked), (Some(0), Some(Asked::Signal)));
}

/// Seen to fail without PDEATHSIG in `engine::start`.
#[tokio::test]
async fn an_engine_does_not_outlive_its_shim() {
    let mut run = Run::of(&[]).await;
    let (pid, _) = run.listening().await;
    pidfd_send_signal(&run.shim.pidfd, Signal::KILL).unwrap();
    until("the engine is gone", || (!process::is_alive(pid)).then_some(()));
}

#[tokio::test]
async fn workers_are_killed_by_name_and_the_main_process_never_is() {
    let mut run = Run::of(&[r#"workers=["llama-server","llama-server","other"]"#]).await;
    let (main, _) = run.listening().await;
    let named = |name: &str| {
        let children = process::children(main);
        children.into_iter().filter(|pid| process::status(*pid, "Name") == name).collect::<Vec<_>>()
    };
    until("the workers are there", || {
        (named("llama-server").len() == 2 && named("other").len() == 1).then_some(())
    });
    let names = vec!["llama-server".to_owned(), "fake_engine".to_owned()];
    run.send(ToShim::KillWorkers { names }).await;
    until("the workers are gone", || named("llama-server").is_empty().then_some(()));
    assert_eq!(named("other").len(), 1);
    assert!(process::is_alive(main) && process::status(main, "Name") == "fake_engine");
}
