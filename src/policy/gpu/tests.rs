use super::*;

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000)
}

fn gpu(index: u32, uuid: &str) -> GpuReading {
    GpuReading {
        index,
        identity: GpuIdentity { uuid: Some(uuid.to_owned()), pci: None, name: Some("H100".to_owned()) },
        fault: None,
        figures: GpuFigures {
            temperature_c: Some(61),
            throttle: Some(Vec::new()),
            ecc_uncorrected: Some(0),
            ..GpuFigures::default()
        },
    }
}

/// A GPU that does not even tell who it is.
fn faulty(index: u32, fault: GpuFault) -> GpuReading {
    GpuReading { index, fault: Some(fault), ..GpuReading::default() }
}

fn hot(reasons: &[Throttle]) -> GpuReading {
    let mut reading = gpu(0, "a");
    reading.figures.throttle = Some(reasons.to_vec());
    reading
}

#[track_caller]
fn says(gpus: &Gpus, expected: &[(u32, Option<&str>, GpuVerdict, u64, &str)]) {
    let said: Vec<_> = gpus
        .status()
        .map(|it| {
            (
                it.index,
                it.identity.uuid.as_deref(),
                it.verdict,
                it.since.as_nanos() / 1_000_000_000,
                it.reason.as_str(),
            )
        })
        .collect();
    assert_eq!(said, expected);
}

#[test]
fn a_good_reading_is_ok_since_the_first_one() {
    let mut gpus = Gpus::default();
    gpus.take(at(1), vec![gpu(0, "a")]);
    gpus.take(at(6), vec![gpu(0, "a")]);
    says(&gpus, &[(0, Some("a"), GpuVerdict::Ok, 1, "nothing is wrong")]);
    let status = gpus.status().next().expect("a GPU");
    assert_eq!(status.figures.temperature_c, Some(61));
    assert_eq!(status.figures.power_w, None, "what was not told is not known");
    assert_eq!(status.throttle_share, Some(0.0));
}

#[test]
fn a_lost_gpu_is_unknown_keeps_its_name_and_does_not_touch_the_others() {
    let mut gpus = Gpus::default();
    gpus.take(at(1), vec![gpu(0, "a"), gpu(1, "b")]);
    gpus.take(at(6), vec![faulty(0, GpuFault::Lost), gpu(1, "b")]);
    let lost = "the driver says that it fell off the bus";
    says(
        &gpus,
        &[
            (0, Some("a"), GpuVerdict::Unknown, 6, lost),
            (1, Some("b"), GpuVerdict::Ok, 1, "nothing is wrong"),
        ],
    );
    let status = gpus.status().next().expect("a GPU");
    assert_eq!(status.figures, GpuFigures::default());
    assert_eq!(status.throttle_share, None);
    gpus.take(at(11), vec![gpu(0, "a"), gpu(1, "b")]);
    assert_eq!(gpus.status().next().map(|it| (it.verdict, it.since)), Some((GpuVerdict::Ok, at(11))));
}

#[test]
fn a_gpu_that_vanishes_is_remembered_even_when_the_others_move_up() {
    let mut gpus = Gpus::default();
    gpus.take(at(1), vec![gpu(0, "a"), gpu(1, "b")]);
    gpus.take(at(6), vec![gpu(0, "b")]);
    let gone = "the driver does not list it any more";
    says(
        &gpus,
        &[
            (0, Some("a"), GpuVerdict::Unknown, 6, gone),
            (0, Some("b"), GpuVerdict::Ok, 1, "nothing is wrong"),
        ],
    );
    gpus.take(at(11), Vec::new());
    assert!(gpus.status().all(|it| it.verdict == GpuVerdict::Unknown));
}

#[test]
fn one_that_was_nameless_at_first_is_no_second_gpu_later() {
    let mut gpus = Gpus::default();
    gpus.take(at(1), vec![faulty(0, GpuFault::NeedsReset)]);
    says(&gpus, &[(0, None, GpuVerdict::Unknown, 1, "the driver says that it needs a reset")]);
    gpus.take(at(6), vec![gpu(0, "a")]);
    says(&gpus, &[(0, Some("a"), GpuVerdict::Ok, 6, "nothing is wrong")]);
}

#[test]
fn no_figures_at_all_are_no_data() {
    let mut gpus = Gpus::default();
    let mut mute = gpu(0, "a");
    mute.figures = GpuFigures::default();
    gpus.take(at(1), vec![mute]);
    says(&gpus, &[(0, Some("a"), GpuVerdict::Unknown, 1, "the driver tells nothing of it")]);
    gpus.take(at(2), vec![faulty(0, GpuFault::Unreadable("no permission".to_owned()))]);
    says(&gpus, &[(0, Some("a"), GpuVerdict::Unknown, 1, "it cannot be read: no permission")]);
}

#[test]
fn without_readings_every_gpu_is_unknown() {
    let mut gpus = Gpus::default();
    gpus.take(at(1), vec![gpu(0, "a")]);
    gpus.lose_sight(at(9), "no answer for 3 s");
    says(&gpus, &[(0, Some("a"), GpuVerdict::Unknown, 9, "no answer for 3 s")]);
    assert_eq!(gpus.status().next().map(|it| it.figures.clone()), Some(GpuFigures::default()));
}

#[test]
fn the_share_of_heat_is_that_of_the_last_minute() {
    let mut gpus = Gpus::default();
    let share = |gpus: &Gpus| gpus.status().next().and_then(|it| it.throttle_share);
    gpus.take(at(0), vec![hot(&[Throttle::SwThermal])]);
    assert_eq!(share(&gpus), Some(1.0));
    gpus.take(at(5), vec![hot(&[Throttle::HwSlowdown, Throttle::SwPower])]);
    assert_eq!(share(&gpus), Some(0.5), "power is not heat");
    gpus.take(at(10), vec![hot(&[Throttle::HwThermal, Throttle::HwSlowdown])]);
    for second in [15, 20] {
        gpus.take(at(second), vec![hot(&[])]);
    }
    says(&gpus, &[(0, Some("a"), GpuVerdict::Ok, 0, "nothing is wrong")]);
    gpus.take(at(25), vec![hot(&[])]);
    says(&gpus, &[(0, Some("a"), GpuVerdict::Note, 25, "slowed down by heat for 33 % of the last minute")]);
    gpus.take(at(70), vec![hot(&[])]);
    assert_eq!(share(&gpus), Some(0.2));
    gpus.take(at(71), vec![hot(&[])]);
    assert_eq!(share(&gpus), Some(0.0));
    assert_eq!(gpus.status().next().map(|it| (it.verdict, it.since)), Some((GpuVerdict::Ok, at(70))));
    let mut mute = gpu(0, "a");
    mute.figures.throttle = None;
    gpus.take(at(200), vec![mute]);
    assert_eq!(share(&gpus), None, "what the driver does not tell is not 0");
}

#[test]
fn uncorrected_memory_errors_are_worth_a_note() {
    let mut gpus = Gpus::default();
    let mut bad = gpu(0, "a");
    bad.figures.ecc_uncorrected = Some(2);
    gpus.take(at(1), vec![bad]);
    let note = "2 uncorrected memory errors since the driver was loaded";
    says(&gpus, &[(0, Some("a"), GpuVerdict::Note, 1, note)]);
}

#[test]
fn a_driver_that_invents_gpus_costs_a_bounded_amount() {
    let mut gpus = Gpus::default();
    for round in 0..100 {
        let readings = (0..10).map(|i| gpu(i, &format!("{round}-{i}"))).collect();
        gpus.take(at(round), readings);
    }
    assert_eq!(gpus.status().count(), GPUS_MAX);
}
