//! Labels, which wait for the prediction that they are compared with.

use super::*;

/// An experiment that serves and takes labels.
fn labelled(rig: &Rig, compare: Compare) -> Arc<Experiment> {
    let mut stars = experiment("stars", "1", &["a", "b"]);
    stars.label = Some(LabelRule {
        prediction: "/stars".to_owned(),
        compare,
    });
    let stars = Arc::new(stars);
    rig.adopt(&[&stars]);
    stars
}

#[test]
fn a_label_that_overtakes_its_prediction_waits_for_it() {
    let rig = Rig::new();
    let stars = labelled(&rig, Compare::Equals);
    let recorder = rig.handle.recorder(1).unwrap();
    let (scored, unscored) = (rig.decision(&stars, 0, 1), rig.decision(&stars, 0, 2));
    let label = || Posted::Label(Label::Number(5.0));
    let first = rig.post(scored, label());
    let second = rig.post(unscored, label());
    recorder.offer(logged(scored));
    recorder.offer(outcome(scored, Label::Number(5.0)));
    assert_eq!(first.wait(), judged(Verdict::Accepted));
    assert_eq!(rig.tallies(&stars)[0].rewards.sum(), 1.0);
    rig.clock.advance(60_000);
    assert_eq!(second.wait(), judged(Verdict::Unscored));
}

#[test]
fn a_label_that_waits_is_refused_when_the_disk_fails() {
    let rig = Rig::new();
    let stars = labelled(&rig, Compare::Equals);
    let waiting = rig.decision(&stars, 0, 1);
    let label = rig.post(waiting, Posted::Label(Label::Number(5.0)));
    rig.storage.set_faults(Faults {
        syncs: 1,
        creates: 1_000_000,
        ..Faults::default()
    });
    let failing = rig.post(waiting, Posted::Reward(1.0));
    assert_eq!(failing.wait(), Err(Unavailable::Failing));
    assert_eq!(label.wait(), Err(Unavailable::Failing));
}

#[test]
fn a_label_is_answered_though_the_clock_is_set_back() {
    let rig = Rig::new();
    let stars = labelled(&rig, Compare::Equals);
    let label = || Posted::Label(Label::Number(5.0));
    rig.clock.advance(24 * 3_600_000);
    let early = rig.post(rig.decision(&stars, 0, 1), label());
    rig.handle.allocated(Vec::new()).unwrap();
    rig.clock.set(Timestamp::from_millis(START));
    assert_eq!(early.wait(), judged(Verdict::Unscored));
    let late = rig.post(rig.decision(&stars, 0, 2), label());
    rig.handle.allocated(Vec::new()).unwrap();
    rig.clock.advance(60_000);
    assert_eq!(late.wait(), judged(Verdict::Unscored));
}

#[test]
fn an_outcome_that_was_offered_first_needs_no_waiting() {
    let rig = Rig::new();
    let stars = labelled(&rig, Compare::Within(1.0));
    let recorder = rig.handle.recorder(0).unwrap();
    for counter in 0..200 {
        let decision = rig.decision(&stars, 1, counter);
        recorder.offer(logged(decision));
        recorder.offer(outcome(decision, Label::Number(4.0)));
        let posted = Posted::Label(Label::Number((counter % 6) as f64));
        assert_eq!(rig.post(decision, posted).wait(), judged(Verdict::Accepted));
    }
}
