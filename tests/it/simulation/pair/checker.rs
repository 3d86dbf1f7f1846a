//! What must hold between the two hosts. The checker knows the truth about the world, and nothing of the code.
use super::journey::Reply;
use super::mainstay::Role;
use super::world::{Heard, Link, World};
use crate::simulation::checker::{Verdict, ensure};
use crate::simulation::fake::Mood;
use mainstay::policy::{Health, Moment, Notice, Path};
use std::collections::BTreeMap;
use std::time::Duration;

/// From the return of a tier to its first request, at the host whose tier it is: a trial every ten seconds that takes as long;
/// or, where it is remote and stayed DOWN, a check every thirty.
const OWN_KNOWN: Duration = Duration::from_secs(20);
const REMOTE_KNOWN: Duration = Duration::from_secs(35);
/// From the end of a tier to the last request that is sent there: three checks that time out, or silence and two counts.
const END_KNOWN: Duration = Duration::from_secs(30);
/// What a host tells of itself reaches the other one with the next check.
const TOLD: Duration = Duration::from_secs(15);
/// What a tier is DOWN for lies no longer back.
const FRESH: Duration = Duration::from_secs(45);
/// So long after the last change nothing moves any more.
const SETTLED: Duration = Duration::from_secs(100);
/// A request that can be answered is: it may have to leave two hung engines first, and a peer that gives no content.
const LONGEST: Duration = Duration::from_secs(90);

/// How a host reaches an engine.
#[derive(Clone, Copy, Debug)]
enum Way {
    Own,
    Third,
    PeersOwn,
    PeersThird,
}

impl Way {
    const ALL: [Self; 4] = [Self::Own, Self::Third, Self::PeersOwn, Self::PeersThird];

    fn known_after(self) -> Duration {
        match self {
            Self::Own => OWN_KNOWN,
            Self::Third => REMOTE_KNOWN,
            Self::PeersOwn => OWN_KNOWN + REMOTE_KNOWN,
            Self::PeersThird => REMOTE_KNOWN + REMOTE_KNOWN,
        }
    }
}

#[derive(Default)]
pub struct Checker {
    /// Of each host: since when each way can be gone without a pause.
    ways: [[Option<Moment>; 4]; 2],
    /// When its own tiers could last answer; when it could last hope for an answer.
    able_at: [Moment; 2],
    hope_at: [Moment; 2],
    /// When each of its tiers was last not well.
    bad_at: [[Moment; 3]; 2],
    /// How often each thing worth testing really happened.
    pub happened: BTreeMap<&'static str, u64>,
}

impl Checker {
    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    pub fn check(&mut self, world: &World, heard: &[Heard]) -> Verdict {
        self.follow(world);
        if world.now.since(world.changed_at) > SETTLED {
            self.count("quiet moments");
        }
        for heard in heard {
            self.hear(world, heard)?;
        }
        (0..2).try_for_each(|place| self.health(world, place))
    }

    fn follow(&mut self, world: &World) {
        let now = world.now;
        for place in 0..2 {
            let (own, third) = (works(world, place, Role::Own), works(world, place, Role::Third));
            if own || third {
                self.able_at[place] = now;
            }
        }
        for place in 0..2 {
            let other = 1 - place;
            let across = world.link == Link::Fine && world.hosts.iter().all(|host| host.up);
            let holds = |way| match way {
                Way::Own => works(world, place, Role::Own),
                Way::Third => works(world, place, Role::Third),
                Way::PeersOwn => across && works(world, other, Role::Own),
                Way::PeersThird => across && works(world, other, Role::Third),
            };
            for way in Way::ALL {
                let since = &mut self.ways[place][way as usize];
                *since = holds(way).then(|| since.unwrap_or(now));
            }
            let others_hope = across && now.since(self.able_at[other]) <= END_KNOWN;
            if self.able_at[place] == now || others_hope {
                self.hope_at[place] = now;
            }
            for (rank, role) in world.hosts[place].roles.iter().enumerate() {
                let well = match role {
                    Role::Own | Role::Third => works(world, place, *role),
                    Role::Peer => across && self.able_at[other] == now,
                };
                if !well {
                    self.bad_at[place][rank] = now;
                }
            }
        }
    }

    /// A way that every check must have noticed, for so much longer.
    fn way(&self, now: Moment, place: usize, longer: Duration) -> Option<(Way, Moment)> {
        let since = |way: &Way| Some((*way, self.ways[place][*way as usize]?));
        let known = |(way, since): &(Way, Moment)| now.since(*since) > way.known_after() + longer;
        Way::ALL.iter().filter_map(since).find(known)
    }

    fn is_hopeless(&self, now: Moment, place: usize) -> bool {
        now.since(self.hope_at[place]) > END_KNOWN + TOLD
    }

    fn hear(&mut self, world: &World, heard: &Heard) -> Verdict {
        let now = world.now;
        match heard {
            Heard::Twice(place) => Err(format!("a request was at host {place} twice")),
            Heard::CameBack => {
                self.count("came back");
                let age = now.since(world.agent_at);
                ensure(age < FRESH, || format!("a request came back, and both agents are {age:?} old"))
            }
            Heard::Ended { place, came, reply } => self.ended(world, *place, *came, *reply),
            Heard::Stops(place) => {
                self.count("engines stopped");
                let bad = now.since(self.bad_at[*place][0]);
                ensure(bad <= 2 * FRESH, || format!("host {place} stops its engine, which works for {bad:?}"))
            }
            Heard::Told(place, notice) => self.told(world, *place, notice),
        }
    }

    fn ended(&mut self, world: &World, place: usize, came: Moment, reply: Reply) -> Verdict {
        let now = world.now;
        let took = now.since(came);
        self.count(if reply == Reply::Answered { "answered" } else { "refused" });
        if let Some((way, since)) = self.way(now, place, took) {
            self.count(match way {
                Way::Own => "by the own engine",
                Way::Third => "by the third",
                Way::PeersOwn | Way::PeersThird => "by the peer",
            });
            ensure(reply == Reply::Answered, || {
                format!("host {place} says {reply:?} after {took:?}, and has {way:?} since {since:?}")
            })?;
            ensure(took < LONGEST, || {
                format!("host {place} answers after {took:?}, and has {way:?} since {since:?}")
            })?;
        }
        if self.is_hopeless(came, place) && self.is_hopeless(now, place) {
            self.count("refused for want of any engine");
            ensure(reply == Reply::Unavailable && took == Duration::ZERO, || {
                format!("host {place} reaches no engine, and says {reply:?} after {took:?}")
            })?;
        }
        Ok(())
    }

    fn told(&mut self, world: &World, place: usize, notice: &Notice) -> Verdict {
        let now = world.now;
        let quiet = now.since(world.changed_at);
        let calm = || {
            ensure(quiet < SETTLED, || format!("host {place}, {quiet:?} after the last change: {notice:?}"))
        };
        match notice {
            Notice::Health { tier, to: Health::Down, why, .. } => {
                calm()?;
                let bad = now.since(self.bad_at[place][usize::from(tier.0)]);
                let role = world.hosts[place].role(*tier);
                self.count(if role == Role::Own { "own tiers DOWN" } else { "remote tiers DOWN" });
                ensure(bad <= FRESH, || {
                    format!("host {place}: {role:?} is DOWN, and is well for {bad:?}: {why}")
                })
            }
            Notice::Failover { .. } => {
                self.count("failovers");
                calm()
            }
            Notice::Return { .. } => {
                self.count("returns");
                calm()
            }
            Notice::AllDown { .. } => {
                self.count("all down");
                calm()
            }
            Notice::Health { .. } | Notice::Serving { .. } | Notice::LastResort { .. } => calm(),
            Notice::Engine { .. }
            | Notice::Exit { .. }
            | Notice::Waiting { .. }
            | Notice::CpuFallback { .. }
            | Notice::Worker { .. }
            | Notice::Operator { .. } => Ok(()),
        }
    }

    /// What `GET /health` says to anybody.
    fn health(&mut self, world: &World, place: usize) -> Verdict {
        let now = world.now;
        let (way, hopeless) = (self.way(now, place, Duration::ZERO), self.is_hopeless(now, place));
        if !world.hosts[place].up || (way.is_none() && !hopeless) {
            return Ok(());
        }
        let says = !world.hosts[place].health(&Path::default()).is_empty();
        self.count(if hopeless { "rightly not healthy" } else { "rightly healthy" });
        ensure(!hopeless || !says, || {
            format!(
                "host {place} says that it is healthy, and reached no engine since {:?}",
                self.hope_at[place]
            )
        })?;
        ensure(way.is_none() || says, || format!("host {place} says that it is not healthy, and has {way:?}"))
    }
}

/// Does this tier of the host answer, if it is asked?
fn works(world: &World, place: usize, role: Role) -> bool {
    let host = &world.hosts[place];
    let there = match role {
        Role::Own => true,
        Role::Third => host.roles.contains(&Role::Third) && world.outside[place] == Link::Fine,
        Role::Peer => false,
    };
    host.up && there && world.mood(place, role) == Mood::Fine
}
