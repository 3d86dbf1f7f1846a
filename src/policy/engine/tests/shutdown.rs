//! How an engine's life ends when the agent ends.
use super::*;

#[test]
fn a_shutdown_starts_nothing_and_a_second_signal_kills() {
    check(
        always(),
        &[
            (20.0, Down(Shutdown::Drain), "Stopping"),
            (21.0, Demand(true), ""),
            (22.0, Down(Shutdown::Now), "cut 1, kill 1"),
            (22.1, Exited(9), ""),
            (22.2, Ended, "Stopped"),
        ],
    );
    let mut story = always();
    story.step(20.0, Exited(1));
    check(story, &[(20.1, Down(Shutdown::Drain), ""), (20.2, Ended, "Stopped")]);
}

/// Somebody who waits for the end sends signal after signal, as service managers and people do.
#[test]
fn no_later_signal_postpones_the_end() {
    let mut story = always();
    story.step(20.0, Down(Shutdown::Drain));
    assert_eq!(story.step(22.0, Down(Shutdown::Now)), "cut 1, kill 1");
    for seconds in [30.0, 40.0, 50.0, 56.9] {
        assert_eq!(story.step(seconds, Down(Shutdown::Now)), "cut 1, kill 1", "at {seconds} s");
        assert_eq!(story.engine.deadline(), Some(at(57.0)), "at {seconds} s");
    }
    check(story, &[(57.0, Wait, "Wedged"), (58.0, Down(Shutdown::Now), "kill 1")]);
}
