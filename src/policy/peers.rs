//! Mainstays that are each other's fallback: the instances that a request went through, and those through which an
//! engine is reached.
//!
//! This is a path vector, as routers between networks use it. An instance tells a peer the paths on which it reaches
//! engines, and leaves out those that the peer is on; the peer drops what leads through itself. No path holds an
//! instance twice, so no instance is healthy because of itself, and nothing counts to infinity.
use std::fmt;
use std::slice;

/// A request that went through so many instances is not sent on.
const VIA_MAX: usize = 16;
/// What one instance tells another: so many paths, the shortest first, of so many instances.
const PATHS_MAX: usize = 8;
const PATH_MAX: usize = 8;

/// One agent process. Random, and new with each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(u64);

impl InstanceId {
    pub const fn new(random: u64) -> Self {
        Self(random)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Instances in the order in which a request passes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<InstanceId>);

/// Why a request may not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misled {
    /// It went through this instance before.
    Loop,
    TooLong,
    /// What it says is no list of instances.
    Garbled,
}

impl Path {
    /// `ID, ID, …`
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',').map(|id| InstanceId::parse(id.trim())).collect::<Option<_>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The way of a request that comes to `own`, with `own` at its end.
    pub fn onward(mut self, own: InstanceId) -> Result<Self, Misled> {
        if self.0.contains(&own) {
            return Err(Misled::Loop);
        }
        if self.0.len() >= VIA_MAX {
            return Err(Misled::TooLong);
        }
        self.0.push(own);
        Ok(self)
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|id| other.0.contains(id))
    }

    fn behind(&self, own: InstanceId) -> Self {
        Self(slice::from_ref(&own).iter().chain(&self.0).copied().collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, id) in self.0.iter().enumerate() {
            write!(f, "{}{id}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What is behind a tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leads {
    /// An engine, or a remote server that is no mainstay.
    #[default]
    Engine,
    /// Another mainstay, which reaches engines on these paths. It is the first of each.
    Peer(Vec<Path>),
}

impl Leads {
    /// What a peer told `own`.
    pub fn told(own: InstanceId, paths: impl IntoIterator<Item = Path>) -> Self {
        let usable = |path: &Path| (1..=PATH_MAX).contains(&path.0.len()) && !path.0.contains(&own);
        Self::Peer(paths.into_iter().filter(usable).take(PATHS_MAX).collect())
    }

    /// A mainstay that reaches no engine without this one.
    pub fn is_dead_end(&self) -> bool {
        matches!(self, Self::Peer(paths) if paths.is_empty())
    }

    /// A request that went this way would come back to where it was.
    pub fn leads_back(&self, via: &Path) -> bool {
        match self {
            Self::Engine => false,
            // Of one that tells of no path nothing is known but that; its health decides.
            Self::Peer(paths) => !paths.is_empty() && paths.iter().all(|path| path.meets(via)),
        }
    }
}

/// The paths on which `own` reaches engines through its open tiers, for a question that went through `via`. None: it can
/// answer nobody that asks this way.
pub fn paths<'t>(own: InstanceId, open: impl IntoIterator<Item = &'t Leads>, via: &Path) -> Vec<Path> {
    let mut all = Vec::new();
    for leads in open {
        match leads {
            Leads::Engine => all.push(Path(vec![own])),
            Leads::Peer(told) => {
                let usable = told.iter().filter(|path| !path.meets(via));
                all.extend(usable.map(|path| path.behind(own)));
            }
        }
    }
    all.retain(|path| path.0.len() <= PATH_MAX);
    all.sort_by(|one, other| (one.0.len(), one).cmp(&(other.0.len(), other)));
    all.dedup();
    all.truncate(PATHS_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> InstanceId {
        InstanceId::new(number)
    }

    fn path(ids: &[u64]) -> Path {
        Path(ids.iter().copied().map(InstanceId::new).collect())
    }

    #[test]
    fn a_path_is_written_and_read() {
        let two = path(&[1, 0xabcd]);
        assert_eq!(two.to_string(), "0000000000000001, 000000000000abcd");
        assert_eq!(Path::parse(&two.to_string()), Some(two));
        for garbage in ["", ",", "1", "000000000000000g", "+00000000000000f", "0000000000000001,,"] {
            assert_eq!(Path::parse(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn a_request_that_comes_back_or_never_ends_is_not_taken() {
        assert_eq!(Path::default().onward(id(1)), Ok(path(&[1])));
        assert_eq!(path(&[1, 2]).onward(id(1)), Err(Misled::Loop));
        let long: Vec<u64> = (1..=16).collect();
        assert_eq!(path(&long).onward(id(17)), Err(Misled::TooLong));
        assert_eq!(path(&long[1..]).onward(id(1)).map(|path| path.0.len()), Ok(16));
    }

    #[track_caller]
    fn check(open: &[Leads], via: &[u64], expected: &[&[u64]]) {
        let expected: Vec<Path> = expected.iter().map(|ids| path(ids)).collect();
        assert_eq!(paths(id(1), open, &path(via)), expected, "{open:?} {via:?}");
    }

    #[test]
    fn a_peer_is_told_only_of_paths_that_it_is_not_on() {
        let peer = |told: &[&[u64]]| Leads::Peer(told.iter().map(|ids| path(ids)).collect());
        check(&[], &[2], &[]);
        check(&[Leads::Engine, Leads::Engine], &[2], &[&[1]]);
        check(&[peer(&[&[2]])], &[], &[&[1, 2]]);
        check(&[peer(&[&[2]])], &[2], &[]);
        check(&[peer(&[&[2, 3], &[2, 4]]), Leads::Engine], &[3], &[&[1], &[1, 2, 4]]);
        check(&[peer(&[&[2, 3, 4, 5, 6, 7, 8, 9]])], &[], &[]);
    }

    #[test]
    fn what_a_peer_tells_is_bounded_and_never_leads_through_us() {
        let many = (2..100).map(|n| path(&[n]));
        assert!(matches!(Leads::told(id(1), many), Leads::Peer(paths) if paths.len() == 8));
        let bad = [path(&[]), path(&[2, 1]), path(&[2, 3, 4, 5, 6, 7, 8, 9, 10])];
        assert!(Leads::told(id(1), bad).is_dead_end());
    }

    #[test]
    fn a_tier_leads_back_when_all_of_its_paths_do() {
        let peer = Leads::Peer(vec![path(&[2, 3]), path(&[2, 4])]);
        assert!(!Leads::Engine.leads_back(&path(&[2])));
        assert!(peer.leads_back(&path(&[9, 2])) && peer.leads_back(&path(&[3, 4])));
        assert!(!peer.leads_back(&path(&[3])) && !peer.leads_back(&path(&[])));
        assert!(!Leads::Peer(vec![]).leads_back(&path(&[2])));
    }
}
