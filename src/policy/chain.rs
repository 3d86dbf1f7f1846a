//! The order of the tiers: which of them may be asked, which is asked next, and what an operator hears when that
//! changes.
//!
//! Standing: a tier that is not DOWN is `Open`. One that is there but DOWN is `Leaving`: no new requests, and those that
//! have brought no content yet move to an open tier. One whose engine is not ready is `Closed`; the requests of a run that
//! drains go on until its `Cut`.
//!
//! A proven hang is DOWN also where nothing else is left: a client that is refused at once can go elsewhere, one that waits
//! for a minute behind a hung engine cannot, and whoever watches /health has to see it.
use super::engine::Engine;
use super::tier::Tier;
use super::turn::Turn;
use super::{Notice, Route, Standing, TierId};

/// What may go to each tier, in rank order.
pub(super) fn standings(tiers: &[Tier]) -> Vec<Standing> {
    let standing = |tier: &Tier| {
        if tier.is_able() {
            Standing::Open
        } else if tier.is_present() {
            Standing::Leaving
        } else {
            Standing::Closed
        }
    };
    tiers.iter().map(standing).collect()
}

/// `engine`: the tier's engine; `None` for a remote tier.
pub(super) fn route(id: TierId, tier: &Tier, engine: Option<&Engine>, standing: Standing) -> Route {
    let (reason, brief) = match standing {
        Standing::Open => (String::new(), ""),
        Standing::Leaving | Standing::Closed => {
            (tier.reason().to_owned(), tier.brief(engine.map(Engine::state)))
        }
    };
    let wanted = engine.is_none_or(Engine::is_wanted);
    Route { tier: id, run: tier.run(), standing, wanted, reason, brief }
}

/// Where the next request of the chain goes, and what was told about it.
#[derive(Debug, Default)]
pub(super) struct Chain {
    serving: Option<TierId>,
    /// The last tier that served.
    last: Option<TierId>,
    /// The best tier that a failover left; until serving is back there, every way up is a return.
    left: Option<TierId>,
    /// Has it been said that nothing can answer?
    told_down: bool,
}

impl Chain {
    pub(super) fn serving(&self) -> Option<TierId> {
        self.serving
    }

    /// `hopeless`: every engine was tried in vain, and is not counted on for now.
    pub(super) fn serve(&mut self, to: Option<TierId>, tiers: &[Tier], hopeless: bool, turn: &mut Turn) {
        let from = self.serving;
        self.serving = to;
        match to {
            Some(to) => {
                self.told_down = false;
                if from != Some(to) {
                    self.moved(from, to, tiers, turn);
                }
            }
            None if (from.is_some() || hopeless) && !self.told_down => {
                self.told_down = true;
                let mut reasons: Vec<&str> = Vec::new();
                for reason in tiers.iter().map(Tier::reason) {
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
                let cause = cause_of(tiers, from.unwrap_or(TierId(0)));
                turn.tell(Notice::AllDown { from, cause, why: reasons.join("; ") });
            }
            None => {}
        }
    }

    pub(super) fn serve_untold(&mut self, to: Option<TierId>) {
        self.serving = to;
    }

    fn moved(&mut self, from: Option<TierId>, to: TierId, tiers: &[Tier], turn: &mut Turn) {
        let why = |tier: TierId| {
            tiers.get(usize::from(tier.0)).map(|tier| tier.reason().to_owned()).unwrap_or_default()
        };
        match self.last {
            Some(last) if to > last => {
                self.left = Some(self.left.map_or(last, |left| left.min(last)));
                let cause = cause_of(tiers, last);
                turn.tell(Notice::Failover { from: last, to, cause, why: why(last) });
            }
            Some(last) if to < last && self.left.is_some() => {
                turn.tell(Notice::Return { from: last, to });
            }
            Some(_) | None => turn.tell(Notice::Serving { from, to: Some(to), why: why(to) }),
        }
        if self.left.is_some_and(|left| to <= left) {
            self.left = None;
        }
        self.last = Some(to);
    }
}

fn cause_of(tiers: &[Tier], tier: TierId) -> Option<super::Cause> {
    tiers.get(usize::from(tier.0)).and_then(Tier::cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::silence::Patience;
    use crate::policy::{Action, Check, Moment, Place, TierSettings};
    use std::time::Duration;

    const T0: TierId = TierId(0);
    const T1: TierId = TierId(1);
    const T2: TierId = TierId(2);

    fn tiers() -> Vec<Tier> {
        let second = Duration::from_secs(1);
        let check = Check { interval: second, timeout: second, slow: second, failures: 3 };
        let patience = Patience { silence: second, suspect: second, replaceable_worker: false, cap: second };
        let settings = TierSettings {
            name: "t".to_owned(),
            place: Place::Remote,
            check,
            silence: second,
            silence_on_cpu: second,
            silence_on_gpu: second,
            wants_gpu: false,
            suspect: second,
        };
        (0..3).map(|n| Tier::new(TierId(n), settings.clone(), patience, Moment::default())).collect()
    }

    fn serving(from: Option<TierId>, to: TierId) -> Notice {
        Notice::Serving { from, to: Some(to), why: "not checked yet".to_owned() }
    }

    fn failover(from: TierId, to: TierId) -> Notice {
        Notice::Failover { from, to, cause: None, why: "not checked yet".to_owned() }
    }

    fn all_down(from: TierId) -> Notice {
        Notice::AllDown { from: Some(from), cause: None, why: "not checked yet".to_owned() }
    }

    fn check(steps: &[Option<TierId>], expected: &[Notice]) {
        let (tiers, mut turn) = (tiers(), Turn::new(Moment::default(), 0));
        let mut chain = Chain::default();
        for step in steps {
            chain.serve(*step, &tiers, false, &mut turn);
        }
        let expected: Vec<Action> = expected.iter().cloned().map(Action::Tell).collect();
        assert_eq!(turn.actions, expected, "{steps:?}");
    }

    #[test]
    fn the_first_start_is_neither_failover_nor_return() {
        check(
            &[None, Some(T2), Some(T1), Some(T0)],
            &[serving(None, T2), serving(Some(T2), T1), serving(Some(T1), T0)],
        );
    }

    #[test]
    fn failover_is_down_and_return_is_back_up_in_however_many_steps() {
        check(
            &[Some(T0), Some(T1), Some(T2), Some(T1), Some(T1), Some(T0)],
            &[
                serving(None, T0),
                failover(T0, T1),
                failover(T1, T2),
                Notice::Return { from: T2, to: T1 },
                Notice::Return { from: T1, to: T0 },
            ],
        );
    }

    #[test]
    fn after_a_whole_return_a_way_up_is_no_return() {
        check(
            &[Some(T1), Some(T2), Some(T1), Some(T0)],
            &[
                serving(None, T1),
                failover(T1, T2),
                Notice::Return { from: T2, to: T1 },
                serving(Some(T1), T0),
            ],
        );
    }

    #[test]
    fn nothing_in_between_does_not_hide_a_failover() {
        check(
            &[Some(T0), None, None, Some(T1), None, Some(T1), None, Some(T0)],
            &[
                serving(None, T0),
                all_down(T0),
                failover(T0, T1),
                all_down(T1),
                serving(None, T1),
                all_down(T1),
                Notice::Return { from: T1, to: T0 },
            ],
        );
    }
}
