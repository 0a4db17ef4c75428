//! How the policies spread requests, and what moves when a target leaves.

use super::*;
use std::collections::HashMap;

#[derive(Clone)]
struct Replica {
    key: u64,
    weight: u32,
    in_flight: usize,
    first_token: f64,
}

impl Member for Replica {
    fn key(&self) -> u64 {
        self.key
    }
    fn weight(&self) -> u32 {
        self.weight
    }
    fn in_flight(&self) -> usize {
        self.in_flight
    }
    fn first_token(&self) -> f64 {
        self.first_token
    }
}

fn replicas(weights: &[u32]) -> Vec<Replica> {
    let replica =
        |(index, &weight)| Replica { key: of(&format!("gpu/{index}")), weight, in_flight: 0, first_token: 0.0 };
    weights.iter().enumerate().map(replica).collect()
}

/// How often each is chosen, in a thousandth of all.
fn shares(policy: Policy, members: &[Replica], keys: bool) -> Vec<usize> {
    let (turn, rounds) = (Turn::default(), 40_000);
    let mut counts = vec![0; members.len()];
    for at in 0..rounds {
        counts[choose(policy, members, &turn, keys.then(|| of(&at.to_string())))] += 1;
    }
    counts.iter().map(|count| (count * 1000 + rounds / 2) / rounds).collect()
}

#[test]
fn weights_are_obeyed_by_every_policy() {
    fastrand::seed(7);
    for policy in [Policy::LeastLoad, Policy::RoundRobin, Policy::Weighted, Policy::Session, Policy::Prefix] {
        for (weights, expected) in [
            (vec![1, 1], vec![500, 500]),
            (vec![1, 3], vec![250, 750]),
            (vec![5, 1, 1], vec![714, 143, 143]),
            (vec![1; 10], vec![100; 10]),
            (vec![u32::MAX, u32::MAX], vec![500, 500]),
        ] {
            for (share, expected) in shares(policy, &replicas(&weights), true).into_iter().zip(expected) {
                assert!(share.abs_diff(expected) <= 15, "{policy:?} {weights:?}: {share} instead of {expected}");
            }
        }
    }
}

#[test]
fn turns_are_exact_and_smooth() {
    for (weights, round) in [(vec![1, 1, 1], 3), (vec![5, 1, 1], 7), (vec![200, 100], 3), (vec![3, 2], 5)] {
        let (members, turn) = (replicas(&weights), Turn::default());
        let order: Vec<usize> = (0..round * 4).map(|_| choose(Policy::RoundRobin, &members, &turn, None)).collect();
        for of_round in order.chunks(round) {
            for (index, weight) in weights.iter().enumerate() {
                let times = of_round.iter().filter(|&&chosen| chosen == index).count();
                let all: u32 = weights.iter().sum();
                assert_eq!(times, *weight as usize * round / all as usize, "{weights:?}: {order:?}");
            }
        }
        let row = order.chunk_by(|one, next| one == next).map(<[usize]>::len).max().unwrap();
        assert!(row <= 4, "{weights:?}: {order:?}");
    }
}

#[test]
fn turns_are_taken_by_each_route_for_itself() {
    let members = replicas(&[1, 1]);
    let (one, two) = (Turn::default(), Turn::default());
    let chosen: Vec<usize> =
        [&one, &two, &one, &two].map(|turn| choose(Policy::RoundRobin, &members, turn, None)).into();
    assert_eq!(chosen, [0, 0, 1, 1], "a shared counter would send every route to one replica of its own");
}

#[test]
fn the_slow_and_the_busy_get_less() {
    fastrand::seed(7);
    let mut members = replicas(&[1, 1, 1, 1]);
    members[0].in_flight = 10;
    assert!(shares(Policy::LeastLoad, &members, false)[0] == 0);
    let mut members = replicas(&[1, 1, 1, 1]);
    members[0].first_token = 2.0;
    assert!(shares(Policy::LeastLoad, &members, false)[0] == 0);
    // A target of twice the weight may have twice as much to do.
    let mut members = replicas(&[1, 2]);
    (members[0].in_flight, members[1].in_flight) = (5, 9);
    assert_eq!(shares(Policy::LeastLoad, &members, false), [0, 1000]);
}

#[test]
fn a_replica_that_leaves_moves_only_its_own_keys_and_they_return() {
    let (all, turn) = (replicas(&[1, 1, 2, 1, 1]), Turn::default());
    for policy in [Policy::Session, Policy::Prefix] {
        let home = |members: &[Replica], key: u64| members[choose(policy, members, &turn, Some(key))].key;
        let before: HashMap<u64, u64> =
            (0..5000).map(|at| of(&format!("key {at}"))).map(|key| (key, home(&all, key))).collect();
        let mut fewer = all.clone();
        let gone = fewer.remove(2).key;
        let mut found = HashMap::<u64, usize>::new();
        for (&key, &was) in &before {
            let now = home(&fewer, key);
            if was == gone {
                *found.entry(now).or_default() += 1;
            } else {
                assert_eq!(now, was, "{policy:?}: a key moved that need not have");
            }
        }
        assert_eq!(found.len(), 4, "its keys go to all the others: {found:?}");
        assert!(found.values().max().unwrap() < &(2 * found.values().min().unwrap()), "{found:?}");
        // The order in which members stand does not matter, nor does one that came and went.
        fewer.insert(0, all[2].clone());
        assert!(before.iter().all(|(&key, &was)| home(&fewer, key) == was));
    }
}

#[test]
fn a_hot_prefix_is_bounded() {
    let (mut members, turn) = (replicas(&[1; 8]), Turn::default());
    // One prompt for all, and nobody finishes.
    for _ in 0..800 {
        let chosen = choose(Policy::Prefix, &members, &turn, Some(7));
        members[chosen].in_flight += 1;
    }
    let most = members.iter().map(|member| member.in_flight).max().unwrap();
    assert!((100..=126).contains(&most), "at most a quarter above the share: {most}");
    // Few at once all stay at home.
    let mut members = replicas(&[1; 8]);
    for _ in 0..8 {
        let chosen = choose(Policy::Prefix, &members, &turn, Some(7));
        members[chosen].in_flight += 1;
    }
    assert_eq!(members.iter().filter(|member| member.in_flight > 0).count(), 1);
}

#[test]
fn without_a_key_load_decides() {
    let (mut members, turn) = (replicas(&[1, 1]), Turn::default());
    members[0].in_flight = 3;
    for policy in [Policy::Session, Policy::Prefix] {
        assert_eq!(choose(policy, &members, &turn, None), 1);
    }
}
