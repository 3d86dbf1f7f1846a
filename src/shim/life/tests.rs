use super::*;

const DEADLINE: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(30);
const TERM: Stop = Stop::Term { grace: GRACE };

fn at(seconds: f64) -> Moment {
    Moment::from_nanos((seconds * 1e9) as u64)
}

/// One thing that happens to a life, at a moment in seconds.
enum On {
    Ask(Stop),
    Abandoned,
    MainExited,
    Reaped,
    Looked(&'static [u32]),
    Swept(&'static [Found], &'static [u32]),
    Blind,
    Released,
    Tick,
}

/// Plays a script and compares the steps after each of its lines.
fn check(script: &[(f64, On, &[Step])]) -> Life {
    let mut life = Life::new(DEADLINE);
    for (line, (seconds, on, expected)) in script.iter().enumerate() {
        let now = at(*seconds);
        let steps = match on {
            On::Ask(stop) => life.ask(now, *stop, Asked::Client),
            On::Abandoned => life.abandoned(now, GRACE, Asked::Lifeline),
            On::MainExited => life.main_exited(now),
            On::Reaped => life.child_reaped(now),
            On::Looked(left) => life.looked(now, left.to_vec()),
            On::Swept(alive, holding) => {
                life.swept(now, Swept { alive: alive.to_vec(), holding: holding.to_vec() })
            }
            On::Blind => {
                life.cannot_look(now);
                vec![]
            }
            On::Released => life.released(),
            On::Tick => life.tick(now),
        };
        assert_eq!(steps, *expected, "line {line}");
    }
    life
}

#[test]
fn an_engine_that_obeys_is_never_killed() {
    let life = check(&[
        (0.0, On::Ask(TERM), &[Step::TermMain]),
        (0.5, On::MainExited, &[Step::Look]),
        (0.5, On::Looked(&[]), &[Step::Sweep]),
        (0.6, On::Swept(&[], &[]), &[Step::SayEnded(vec![])]),
        (0.7, On::Released, &[Step::Leave]),
    ]);
    assert_eq!(life.asked(), Some(Asked::Client));
}

#[test]
fn term_is_sent_once_and_asking_again_only_shortens_the_grace() {
    let shorter = Stop::Term { grace: Duration::from_secs(1) };
    let mut life = check(&[
        (0.0, On::Ask(TERM), &[Step::TermMain]),
        (1.0, On::Ask(shorter), &[]),
        (1.5, On::Ask(TERM), &[]),
        (1.9, On::Tick, &[]),
    ]);
    assert_eq!(life.deadline(), Some(at(2.0)));
    assert_eq!(life.tick(at(2.0)), [Step::KillTree]);
}

#[test]
fn no_grace_is_a_kill() {
    check(&[(0.0, On::Ask(Stop::Term { grace: Duration::ZERO }), &[Step::KillTree])]);
    check(&[(0.0, On::Ask(Stop::Kill), &[Step::KillTree])]);
}

#[test]
fn when_main_leaves_the_rest_gets_a_moment_and_is_then_killed() {
    let life = check(&[
        (0.0, On::MainExited, &[Step::Look]),
        (0.0, On::Looked(&[7]), &[]),
        (0.1, On::Tick, &[Step::Look]),
        (0.1, On::Looked(&[7]), &[]),
        (0.15, On::Reaped, &[]),
        (0.15, On::Tick, &[Step::Look]),
        (0.15, On::Looked(&[7]), &[]),
        (2.0, On::Tick, &[Step::KillTree]),
        (2.0, On::Looked(&[7]), &[]),
        (2.01, On::Reaped, &[]),
        (2.01, On::Tick, &[Step::KillTree]),
        (2.01, On::Looked(&[]), &[Step::Sweep]),
        (2.02, On::Swept(&[], &[]), &[Step::SayEnded(vec![])]),
    ]);
    assert_eq!(life.asked(), None, "nobody had asked");
}

#[test]
fn an_end_that_came_first_was_not_asked_for() {
    let life = check(&[(0.0, On::MainExited, &[Step::Look]), (0.1, On::Ask(Stop::Kill), &[Step::KillTree])]);
    assert_eq!(life.asked(), None);
}

#[test]
fn what_withstands_kill_is_reported_once_at_the_deadline_and_tried_again() {
    check(&[
        (0.0, On::Ask(Stop::Kill), &[Step::KillTree]),
        (0.0, On::Looked(&[5, 7]), &[]),
        (0.0, On::MainExited, &[]),
        (9.9, On::Tick, &[Step::KillTree]),
        (9.9, On::Looked(&[7]), &[]),
        (9.9, On::Released, &[]),
        (10.0, On::Looked(&[9, 7]), &[Step::SayEnded(vec![7, 9])]),
        (11.0, On::Tick, &[Step::KillTree]),
        (11.0, On::Looked(&[7, 9]), &[]),
        (12.0, On::Looked(&[9]), &[Step::SayEnded(vec![9])]),
        (13.0, On::Looked(&[]), &[Step::Sweep]),
        (13.0, On::Swept(&[], &[]), &[Step::SayEnded(vec![])]),
    ]);
}

#[test]
fn an_unreapable_main_process_is_left_too() {
    check(&[
        (0.0, On::Ask(Stop::Kill), &[Step::KillTree]),
        (9.0, On::Looked(&[]), &[]),
        (10.0, On::Looked(&[5]), &[Step::SayEnded(vec![5])]),
        (10.0, On::Released, &[Step::Leave]),
    ]);
}

#[test]
fn the_last_look_may_send_it_back_to_killing() {
    check(&[
        (0.0, On::MainExited, &[Step::Look]),
        (0.0, On::Looked(&[]), &[Step::Sweep]),
        (0.1, On::Swept(&[(8, 80)], &[]), &[Step::KillThese(vec![(8, 80)])]),
        (0.2, On::Tick, &[Step::KillTree]),
        (0.2, On::Looked(&[]), &[Step::Sweep]),
        (0.3, On::Swept(&[], &[66]), &[]),
        (10.2, On::Tick, &[Step::KillTree]),
        (10.2, On::Looked(&[]), &[Step::Sweep]),
        (10.2, On::Swept(&[], &[66]), &[Step::SayEnded(vec![66])]),
    ]);
}

#[test]
fn nothing_has_ended_or_withstood_a_kill_while_it_cannot_be_looked_at() {
    let life = check(&[
        (0.0, On::MainExited, &[Step::Look]),
        (0.0, On::Blind, &[]),
        (0.1, On::Tick, &[Step::Look]),
        (0.1, On::Looked(&[]), &[Step::Sweep]),
        (0.1, On::Blind, &[]),
        (0.2, On::Tick, &[Step::KillTree]),
        (0.2, On::Blind, &[]),
        (20.0, On::Tick, &[Step::KillTree]),
        (20.0, On::Blind, &[]),
        (20.0, On::Released, &[]),
        (29.9, On::Tick, &[Step::KillTree]),
        (29.9, On::Looked(&[7]), &[]),
        (30.0, On::Looked(&[7]), &[Step::SayEnded(vec![7])]),
        (31.0, On::Looked(&[]), &[Step::Sweep]),
        (31.0, On::Blind, &[]),
    ]);
    assert!(life.deadline().is_some_and(|again| again <= at(32.0)), "{life:?}");
}

#[test]
fn when_abandoned_it_stops_by_itself_and_leaves() {
    let life = check(&[
        (0.0, On::Abandoned, &[Step::TermMain]),
        (30.0, On::Tick, &[Step::KillTree]),
        (30.0, On::MainExited, &[]),
        (30.0, On::Looked(&[]), &[Step::Sweep]),
        (30.0, On::Swept(&[], &[]), &[Step::SayEnded(vec![]), Step::Leave]),
    ]);
    assert_eq!(life.asked(), Some(Asked::Lifeline));
    check(&[
        (0.0, On::Abandoned, &[Step::TermMain]),
        (30.0, On::Tick, &[Step::KillTree]),
        (40.0, On::Looked(&[5]), &[Step::SayEnded(vec![5]), Step::Leave]),
    ]);
}

#[test]
fn it_leaves_when_nobody_releases_it_for_a_minute() {
    let mut life = Life::failed(at(5.0));
    assert_eq!(life.deadline(), Some(at(65.0)));
    assert_eq!(life.tick(at(64.9)), []);
    assert_eq!(life.tick(at(65.0)), [Step::Leave]);
    assert_eq!(life.abandoned(at(6.0), GRACE, Asked::Lifeline), [Step::Leave]);
}

/// However the world answers, a stop comes to a report within grace, settling, deadline and one pause.
#[test]
fn every_stop_is_bounded() {
    for stuck in [false, true] {
        let mut life = Life::new(DEADLINE);
        let (mut now, mut queue) = (at(0.0), life.ask(at(0.0), TERM, Asked::Client));
        let mut reported = None;
        while reported.is_none() && now < at(100.0) {
            while !queue.is_empty() {
                let more = match queue.remove(0) {
                    Step::KillTree | Step::Look if stuck => life.looked(now, vec![5]),
                    Step::KillTree | Step::Look => {
                        let mut more = life.main_exited(now);
                        more.extend(life.looked(now, vec![]));
                        more
                    }
                    Step::Sweep => life.swept(now, Swept::default()),
                    Step::SayEnded(left) => {
                        reported = Some((now, left));
                        vec![]
                    }
                    Step::TermMain | Step::KillThese(_) | Step::Leave => vec![],
                };
                queue.extend(more);
            }
            now = life.deadline().unwrap_or(now).max(now);
            queue = life.tick(now);
        }
        let (when, left) = reported.expect("reported");
        assert_eq!(left, if stuck { vec![5] } else { vec![] });
        assert!(when <= at(30.0 + 10.0 + 1.0), "{when:?}");
    }
}
