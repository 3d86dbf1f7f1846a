//! Two hosts that are each other's fallback, each a real `Host` with an engine that starts, hangs and crashes, and a request
//! on its way through both. Which tiers it is asked of, what a host tells the other one, and how that is taken, are the
//! product's own functions: `RouteTable::ways`, `RouteTable::reach` and `kinds::peer::judge`.
mod checker;
mod journey;
mod mainstay;
mod world;

use super::{S, seeds};
use checker::Checker;
use std::collections::BTreeMap;
use world::{Plant, World};

const EVENTS_PER_PAIR: u64 = 20_000;

type Happened = BTreeMap<&'static str, u64>;

fn trial(seed: u64, plant: Plant) -> Result<Happened, String> {
    let mut world = World::new(seed, plant);
    let mut checker = Checker::default();
    for event in 0..EVENTS_PER_PAIR {
        world.turn();
        let heard = std::mem::take(&mut world.heard);
        let verdict = checker.check(&world, &heard);
        verdict.map_err(|what| format!("seed {seed}, event {event} at {:?}: {what}", world.now))?;
    }
    Ok(checker.happened)
}

/// The seeds are a list that `seeds` explains: always the same in `scripts/test`, new ones elsewhere.
#[test]
fn each_others_fallback() {
    let (first, fixed) = seeds::first();
    let pairs = seeds::budget().div_ceil(EVENTS_PER_PAIR).min(100);
    let (mut sum, mut failed) = (Happened::new(), Vec::new());
    for seed in first..first + pairs {
        match trial(seed, Plant::Nothing) {
            Ok(happened) => {
                happened.into_iter().for_each(|(what, times)| *sum.entry(what).or_default() += times);
            }
            Err(what) => failed.push(format!(
                "{what}\n  again: MAINSTAY_SIM_SEED={seed} MAINSTAY_SIM_EVENTS={EVENTS_PER_PAIR}"
            )),
        }
    }
    println!("{pairs} pairs from seed {first}: {sum:?}");
    assert!(failed.is_empty(), "{} of {pairs} failed:\n{}", failed.len(), failed.join("\n"));
    // What has not been seen is not tested.
    if fixed && pairs >= 50 {
        for what in [
            "answered",
            "by the own engine",
            "by the third",
            "by the peer",
            "refused for want of any engine",
            "rightly healthy",
            "rightly not healthy",
            "engines stopped",
            "failovers",
            "returns",
            "all down",
            "quiet moments",
        ] {
            assert!(sum.get(what).is_some_and(|times| *times >= 20), "{what}: {sum:?}");
        }
    }
}

/// Each planted bug is caught within a few pairs, and for the right reason.
#[test]
fn every_bug_between_two_hosts_is_caught() {
    let plants: [(Plant, &[&str]); 5] = [
        (Plant::OwnIdMissing, &["twice"]),
        (Plant::BelievesHealth, &["came back", "reaches no engine", "reached no engine"]),
        (Plant::Forgets, &["after the last change", "is DOWN, and is well"]),
        (Plant::BlamesThird, &["Third is DOWN, and is well"]),
        (Plant::FirstOnly, &["and has Peers", "and has Third"]),
    ];
    for (plant, reasons) in plants {
        let caught = (1..60).find_map(|seed| trial(seed, plant).err());
        let caught = caught.unwrap_or_else(|| panic!("{plant:?} was not caught"));
        println!("{plant:?}: {caught}");
        assert!(reasons.iter().any(|reason| caught.contains(reason)), "{plant:?} was caught as: {caught}");
    }
}
