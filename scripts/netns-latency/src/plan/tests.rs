use std::collections::BTreeSet;

use super::*;

#[test]
fn a_trial_removes_the_things_that_it_adds() {
    // A sequence deletes the namespaces of the preceding one, see below.
    let others = |situation: &Situation| *situation != Situation::Sequence;
    for situation in Situation::ALL.into_iter().filter(others) {
        let mut there = BTreeSet::new();
        for step in situation.trial(3, 7) {
            for thing in step.things {
                match (thing, step.present) {
                    (Thing::LinkUp { .. }, _) => {}
                    (thing, true) => assert!(there.insert(thing)),
                    (thing, false) => assert!(there.remove(&thing)),
                }
            }
        }
        assert!(there.is_empty(), "{situation} leaves {there:?}");
    }
}

#[test]
fn names_are_never_used_twice() {
    let mut names = BTreeSet::new();
    for situation in Situation::ALL {
        for number in 0..20 {
            for thing in situation.trial(number, 30).swap_remove(0).things {
                assert!(names.insert(thing.clone()), "{thing:?}");
            }
        }
    }
}

#[test]
fn names_of_programs_are_kept_whole_by_the_kernel() {
    for situation in [Situation::Process, Situation::Unannounced, Situation::Moved] {
        let last = situation.trials(200) - 1;
        for thing in situation.trial(last, 0).swap_remove(0).things {
            let kept = matches!(&thing, Thing::Namespace { name } if name.len() <= 15);
            assert!(kept, "{thing:?}");
        }
    }
}

#[test]
fn trials_wait_for_the_other_namespaces() {
    for (situation, count) in [(Situation::Others200, 200), (Situation::Others1000, 1000)] {
        let preparation = situation.preparation(1000);
        assert_eq!(preparation.len(), count);
        assert!(preparation.iter().all(|(_, awaited)| awaited.is_some()));
    }
}

#[test]
fn a_burst_is_many_in_one_step() {
    for step in Situation::Burst1000.trial(0, 1000) {
        assert_eq!(step.things.len(), 1000);
    }
}

#[test]
fn a_sequence_replaces_the_namespaces_of_the_one_before() {
    assert_eq!(Situation::Sequence.apart(), Some(SEQUENCE_APART));
    let prepared = Situation::Sequence.preparation(1000);
    let awaited = prepared.into_iter().filter_map(|(_, awaited)| awaited);
    let mut there: BTreeSet<_> = awaited.collect();
    for number in 0..3 {
        let before = there.clone();
        let steps = Situation::Sequence.trial(number, 1000);
        assert_eq!(steps.len(), 10);
        for step in steps {
            let [thing] = &step.things[..] else {
                panic!("{step:?}");
            };
            if step.present {
                assert!(there.insert(thing.clone()), "{step:?}");
            } else {
                assert!(there.remove(thing) && before.contains(thing), "{step:?}");
            }
        }
        assert!(there.len() == 5 && there.is_disjoint(&before));
    }
}

#[test]
fn slow_situations_have_fewer_trials_but_at_least_one() {
    let trials = |asked| Situation::ALL.map(|it| it.trials(asked));
    assert_eq!(
        trials(200),
        [
            200, 200, 200, 200, 200, 200, 200, 10, 200, 200, 20, 200, 20, 200, 20, 20
        ]
    );
    assert_eq!(trials(1), [1; 16]);
}

#[test]
fn changes_occur_in_all_phases_of_the_sweeps() {
    let mut pauses: Vec<_> = (0..20).map(|it| Situation::Silent.pause(it)).collect();
    pauses.sort_unstable();
    assert!(pauses[0] >= APART && pauses[19] < APART + SWEEP);
    for pair in pauses.windows(2) {
        assert!(pair[1] - pair[0] < SWEEP / 10, "{pair:?}");
    }
}

#[test]
fn situations_that_share_labs_follow_each_other() {
    let mut surroundings = Situation::ALL.map(Situation::surroundings).to_vec();
    surroundings.dedup();
    assert_eq!(surroundings.len(), 6);
}

#[test]
fn names_are_the_same_in_json_and_command_line() {
    for situation in Situation::ALL {
        let json = serde_json::to_string(&situation).unwrap();
        assert_eq!(json, format!("\"{situation}\""));
        let value = situation.to_possible_value().unwrap();
        assert_eq!(value.get_name(), situation.to_string());
    }
}
