//! A run that computes on the CPU.
use super::*;

#[test]
fn a_run_on_the_cpu_that_was_to_use_a_gpu_is_degraded_and_told_once() {
    let tier = check(
        true,
        &[
            (0, Wait, "check"),
            (0, Passed(5), ""),
            (0, OnCpu(true), "told: 0/33 layers, Degraded"),
            // It has its place, and no check brings it back: none comes sooner for it.
            (5, OnCpu(true), ""),
            (9, Wait, ""),
            (10, Wait, "check"),
            (13, Passed(3_000), ""),
            // Ollama has loaded the model anew, onto the GPU; the check was slow.
            (14, OnCpu(false), ""),
            (23, Wait, "check"),
            (23, Passed(5), "Healthy"),
            (24, OnCpu(true), "Degraded"),
        ],
    );
    assert_eq!(tier.cause(), Some(Cause::CpuFallback));
    assert_eq!((tier.reason(), tier.is_able()), ("it runs on the CPU, although it was to use a GPU", true));
}

#[test]
fn what_is_worse_than_the_cpu_is_said_before_it() {
    let tier = check(
        true,
        &[
            (0, OnCpu(true), "told: 0/33 layers, Degraded, check"),
            (1, STATUS, ""),
            (2, Wait, "check"),
            (2, STATUS, ""),
        ],
    );
    assert_eq!((tier.cause(), tier.reason()), (None, "2 of 3 checks failed: status 500"));
}

/// A long prompt takes a CPU minutes: it is no hang that ten silent seconds would show.
#[test]
fn a_run_on_the_cpu_may_be_silent_for_longer() {
    check(
        true,
        &[
            (0, OnCpu(true), "told: 0/33 layers, Degraded, check"),
            (1, Passed(5), ""),
            (1, Sampled(1, 1, 0, 0), ""),
            (9, Sampled(1, 1, 0, 0), ""),
            (11, Wait, "check"),
            (11, Passed(5), ""),
            (12, Sampled(1, 1, 0, 0), ""),
            (21, Wait, "check"),
            (22, OnCpu(false), "Healthy, count"),
        ],
    );
}

#[test]
fn a_tier_that_was_not_to_use_a_gpu_is_not_told_of() {
    let (mut tier, mut turn) = tier(true);
    tier.settings.wants_gpu = false;
    tier.begin_anew(tier.run, &mut turn);
    assert_eq!(step(&mut tier, &mut turn, 0, OnCpu(true)), "check");
    assert_eq!((tier.health, tier.cpu_fallback()), (Health::Healthy, Some(false)));
}

/// On a host that shows no GPU of a known driver: the log tells of one.
#[test]
fn a_run_that_shows_a_gpu_is_judged_as_one_whatever_was_expected() {
    let (mut tier, mut turn) = tier(true);
    tier.settings = TierSettings { wants_gpu: false, silence: 120 * S, ..tier.settings };
    tier.patience.silence = 120 * S;
    tier.begin_anew(tier.run, &mut turn);
    let mut all = String::new();
    for (second, happens) in
        [(0, Passed(5)), (1, Sampled(1, 1, 0, 0)), (12, Sampled(1, 1, 0, 0)), (13, OnGpu)]
    {
        assert!(!all.contains("count"), "{all}");
        all += &step(&mut tier, &mut turn, second, happens);
    }
    assert!(all.ends_with("count"), "{all}");
    assert_eq!((tier.health, tier.cpu_fallback()), (Health::Healthy, Some(false)));
}
