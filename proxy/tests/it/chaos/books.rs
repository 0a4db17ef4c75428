//! What must hold when a run is over.

use super::backend::Chaos;
use super::client::{Ended, How, TENANTS};
use super::house::Leftovers;
use std::collections::HashMap;
use std::time::Duration;
use tidegate::canon::{Outcome, Record, UsageSource};

/// Every request has one record, which says what its client saw.
pub fn agree(records: &[Record], ended: &[Ended]) {
    let wrong: Vec<_> = ended.iter().filter(|ended| matches!(ended.how, How::Wrong(_) | How::Lost(_))).collect();
    assert!(wrong.is_empty(), "{} of {}, first {:#?}", wrong.len(), ended.len(), &wrong[..wrong.len().min(5)]);
    let mut by_id: HashMap<&str, Vec<&Record>> = HashMap::new();
    records.iter().for_each(|record| by_id.entry(&record.request_id).or_default().push(record));
    for ended in ended {
        let found = by_id.remove(ended.id.as_str()).unwrap_or_default();
        // A client that leaves before its request is there has asked nothing.
        if found.is_empty() && ended.how == How::Left {
            continue;
        }
        let [record] = found[..] else { panic!("{} records of {ended:?}: {found:#?}", found.len()) };
        let (organization, project, _) = TENANTS[ended.tenant];
        assert_eq!((&*record.organization, &*record.project), (organization, project), "{ended:?}");
        assert_eq!(record.model_requested, ended.model, "{ended:?}");
        let fits = match &ended.how {
            How::Whole => {
                let said = (record.input_tokens, record.output_tokens, record.usage_source);
                let reported = said == (Some(11), Some(ended.words as u64 + 1), UsageSource::Reported);
                // A chat stream may break off between its last word and the counts behind it.
                let lost =
                    record.stream && record.usage_source == UsageSource::Estimated && breaks_off(&record.backend);
                record.outcome == Outcome::Ok && record.status == 200 && (reported || lost)
            }
            How::Refused(status) => {
                record.status == *status && matches!(record.outcome, Outcome::BackendError | Outcome::Refused)
            }
            How::Broken => record.outcome == Outcome::Cut,
            // It may have been answered the moment it left.
            How::Left => true,
            How::Lost(_) | How::Wrong(_) => false,
        };
        assert!(fits, "{ended:?} and its record differ: {record:#?}");
    }
    assert!(by_id.is_empty(), "records of requests that nobody made: {by_id:#?}");
}

/// Backends that may stop at any byte.
fn breaks_off(backend: &str) -> bool {
    matches!(backend, "wild" | "resetting" | "flapping")
}

/// After kills: what a client has whole is there once; nothing is there twice.
pub fn hold_what_clients_have(records: &[Record], ended: &[Ended]) {
    let mut by_id: HashMap<&str, usize> = HashMap::new();
    records.iter().for_each(|record| *by_id.entry(&record.request_id).or_default() += 1);
    let twice: Vec<_> = by_id.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let missing: Vec<_> =
        ended.iter().filter(|ended| ended.is_whole() && !by_id.contains_key(ended.id.as_str())).collect();
    assert!(missing.is_empty(), "{} missing, first {:?}", missing.len(), missing[0]);
    let wrong: Vec<_> = ended.iter().filter(|ended| matches!(ended.how, How::Wrong(_))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// What a run leaves is what it found.
pub fn nothing_left(plateau: &Leftovers, after: &Leftovers) {
    assert_eq!(after.in_flight, 0, "{after:?}");
    assert_eq!(after.threads, plateau.threads, "{plateau:?} {after:?}");
    // Idle connections to backends may differ by a few; a leak would grow with the thousands of requests.
    assert!(after.files <= plateau.files + 40, "{plateau:?} {after:?}");
    assert!(after.resident_kib <= plateau.resident_kib + plateau.resident_kib / 4 + 4096, "{plateau:?} {after:?}");
}

/// A replica that answers well has its part of the traffic, and one that does not is set aside without being forgotten.
pub fn nobody_starved(backends: &[(&str, Chaos)], records: &[Record]) {
    let pool: Vec<_> = records.iter().filter(|record| record.model_requested == "pool").collect();
    let done = pool.iter().filter(|record| record.outcome == Outcome::Ok).count();
    assert!(
        done * 10 >= pool.len() * 7,
        "three further tries over replicas that mostly work: {done} of {}",
        pool.len()
    );
    for (name, backend) in backends.iter().skip(2) {
        let (asked, _) = backend.served();
        let least = if *name == "closing" { pool.len() / 20 } else { 5 };
        assert!(asked >= least, "{name} had {asked} of {} requests", pool.len());
    }
}

/// The figures, for people.
pub fn print(ended: &[Ended], backends: &[(&str, Chaos)], plateau: &Leftovers, after: &Leftovers) {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for ended in ended {
        let how = match &ended.how {
            How::Refused(status) => format!("{} refused {status}", ended.model),
            how => format!("{} {how:?}", ended.model).to_lowercase(),
        };
        match counts.iter_mut().find(|(name, _)| *name == how) {
            Some((_, count)) => *count += 1,
            None => counts.push((how, 1)),
        }
    }
    counts.sort();
    println!("{} requests of {} tenants", ended.len(), TENANTS.len());
    counts.iter().for_each(|(how, count)| println!("  {count:>8}  {how}"));
    for (name, backend) in backends {
        let (asked, good) = backend.served();
        println!("  backend {name}: {asked} requests, {good} answered well, {} connections left", backend.open());
    }
    let slowest = ended.iter().map(|ended| ended.took).max().unwrap_or(Duration::ZERO);
    println!("  slowest answer {slowest:?}; before {plateau:?}; after {after:?}");
}
