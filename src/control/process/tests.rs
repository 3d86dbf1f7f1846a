use super::*;
use std::process::{Child, Command, Stdio};

#[test]
fn a_tree_is_summed_over_every_descendant_and_ends_even_in_a_circle() {
    let check = |root: u32, links: &[(u32, &[u32])], expected: Option<u64>| {
        let children: BTreeMap<u32, Vec<u32>> = links.iter().map(|(p, c)| (*p, c.to_vec())).collect();
        // Process n of this world uses 10ⁿ bytes, and only 0 to 5 are alive.
        let usage = |pid: u32| (pid <= 5).then(|| Usage { rss: 10u64.pow(pid), cpu_s: 1.0 });
        let sum = sum(root, &tree(root, &children), &usage);
        assert_eq!(sum.map(|u| u.rss), expected, "root {root} in {links:?}");
    };
    check(1, &[], Some(10));
    check(1, &[(1, &[2, 3]), (3, &[4])], Some(11_110));
    check(3, &[(1, &[2, 3]), (3, &[4])], Some(11_000));
    check(1, &[(1, &[2]), (2, &[3]), (3, &[1])], Some(1_110));
    check(1, &[(1, &[7]), (7, &[2])], Some(110));
    check(9, &[(9, &[1])], None);
}

/// A shell that has a child of its own, and ends both when dropped.
struct Family(Child);

impl Family {
    fn new() -> Self {
        let shell = Command::new("sh")
            .args(["-c", "cat <&0 >/dev/null & read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(shell.expect("sh is there"))
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_living_tree_has_memory_and_a_dead_root_has_no_entry() {
    let family = Family::new();
    let root = family.0.id();
    let us = std::process::id();
    let gauge = Gauge::default();
    let reading = gauge.read(BTreeSet::from([root, us, u32::MAX - 1])).await;
    assert_eq!(reading.trees.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([root, us]));
    let (of_root, of_us) = (reading.trees[&root], reading.trees[&us]);
    assert!(of_root.rss > 0, "{of_root:?}");
    assert!(of_us.rss > of_root.rss, "the shell is one of our descendants: {of_us:?} with {of_root:?}");
    let host = reading.host;
    assert!(host.memory_available <= host.memory_total && host.memory_total > Some(0), "{host:?}");
    assert!(host.load.is_some(), "{host:?}");
}

#[tokio::test]
async fn a_fresh_reading_is_given_again_unless_another_root_is_asked_for() {
    let gauge = Gauge::default();
    let us = BTreeSet::from([std::process::id()]);
    let first = gauge.read(us.clone()).await;
    let more = gauge.read(us.iter().copied().chain([1]).collect()).await;
    assert!(!Arc::ptr_eq(&first, &more), "pid 1 had not been looked at");
    // The time of the reading is set by hand, so that a loaded machine cannot make a fresh one stale.
    let taken = |gauge: &mut Gauge, at: Moment| {
        gauge.last.get_mut().as_mut().expect("it was read").at = at;
    };
    let mut gauge = gauge;
    taken(&mut gauge, clock::now() + Duration::from_secs(3600));
    let again = gauge.read(us.clone()).await;
    assert!(Arc::ptr_eq(&more, &again), "still fresh");
    taken(&mut gauge, Moment::from_nanos(0));
    let later = gauge.read(us).await;
    assert!(!Arc::ptr_eq(&more, &later), "that was long ago");
}

/// The kernel does not come back from a look: nothing is known then, and no second look is begun.
#[tokio::test]
async fn a_look_that_hangs_costs_the_figures_and_not_the_answer() {
    let gauge = Gauge::default();
    let (end, held) = std::sync::mpsc::channel::<()>();
    let hung = gauge.lookout.look(move || held.recv().is_ok());
    assert!(tokio::time::timeout(Duration::ZERO, hung).await.is_err());
    let us = BTreeSet::from([std::process::id()]);
    assert_eq!(*gauge.read(us.clone()).await, Reading::default());
    drop(end);
    let back = async {
        while gauge.lookout.look(|| ()).await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    back.await;
    let known = Gauge { lookout: gauge.lookout, ..Gauge::default() };
    assert_eq!(known.read(us.clone()).await.trees.keys().copied().collect::<BTreeSet<_>>(), us);
}
