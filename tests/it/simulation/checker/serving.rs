//! What is told when another tier serves: down from a tier that had served is a failover, up after one a return, and when
//! nothing can answer that is told once.
use super::{Step, Verdict, ensure};
use mainstay::policy::{Action, HostState, Notice, TierId};

#[derive(Default)]
pub struct Serving {
    last: Option<TierId>,
    /// The best tier that a failover left, until serving is back there.
    left: Option<TierId>,
    told_down: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Move {
    Serving(Option<TierId>, TierId),
    Failover(TierId, TierId),
    Return(TierId, TierId),
    AllDown(Option<TierId>),
}

impl Serving {
    pub fn step(&mut self, step: &Step) -> Verdict {
        if step.after.status.state != HostState::Serving {
            return Ok(());
        }
        let told: Vec<Move> = step.actions.iter().filter_map(of).collect();
        let (from, to) = (step.before.status.serving, step.after.status.serving);
        let mut expected = Vec::new();
        if let Some(to) = to {
            self.told_down = false;
            if from != Some(to) {
                expected.push(match self.last {
                    Some(last) if to > last => Move::Failover(last, to),
                    Some(last) if to < last && self.left.is_some() => Move::Return(last, to),
                    Some(_) | None => Move::Serving(from, to),
                });
                if let Some(last) = self.last.filter(|last| to > *last) {
                    self.left = Some(self.left.map_or(last, |left| left.min(last)));
                }
                self.left = self.left.filter(|left| to > *left);
                self.last = Some(to);
            }
        } else if from.is_some() {
            expected.push(Move::AllDown(from));
            self.told_down = true;
        } else if !self.told_down && matches!(told.as_slice(), [Move::AllDown(None)]) {
            // Nothing ever served, and everything was tried.
            self.told_down = true;
            return Ok(());
        }
        ensure(told == expected, || {
            format!("serving {from:?} → {to:?} was told as {told:?}, not {expected:?}")
        })
    }
}

fn of(action: &Action) -> Option<Move> {
    match action {
        Action::Tell(Notice::Serving { from, to: Some(to), .. }) => Some(Move::Serving(*from, *to)),
        Action::Tell(Notice::Failover { from, to, .. }) => Some(Move::Failover(*from, *to)),
        Action::Tell(Notice::Return { from, to }) => Some(Move::Return(*from, *to)),
        Action::Tell(Notice::AllDown { from, .. }) => Some(Move::AllDown(*from)),
        _ => None,
    }
}
