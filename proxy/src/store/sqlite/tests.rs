use super::*;
use crate::canon::{Outcome, UsageSource};
use crate::store::{Filter, Group};

#[test]
fn a_record_comes_back_as_it_was_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("t.db")).unwrap();
    let record = Record {
        id: uuid::Uuid::now_v7(),
        request_id: "r".into(),
        organization: "acme".into(),
        project: "web".into(),
        model_requested: "m".into(),
        outcome: Outcome::Cut,
        usage_source: UsageSource::Estimated,
        input_tokens: Some(u64::from(u32::MAX) + 1),
        output_tokens: Some(0),
        cost: Some(0.5),
        currency: Some("USD".into()),
        tags: vec!["a".into(), "b".into()],
        queue_ms: Some(1.5),
        ..Record::default()
    };
    for _ in 0..2 {
        let mut batch = store.batch().unwrap();
        batch.insert([&record]).unwrap();
        batch.advance("j", 7).unwrap();
        batch.commit().unwrap();
    }
    assert_eq!(store.batch().unwrap().offset("j").unwrap(), 7);
    assert_eq!(store.records(&Filter::default()).unwrap(), std::slice::from_ref(&record));
    let totals = store.totals(&Filter::default(), &[Group::Organization]).unwrap();
    assert_eq!((totals.len(), totals[0].requests, totals[0].input_tokens), (1, 1, u64::from(u32::MAX) + 1));
    // Neither a batch that was not committed nor another process leaves a kind that is not there.
    let refused = Record { id: uuid::Uuid::now_v7(), status: 404, request_id: String::new(), ..record.clone() };
    drop(store.batch().map(|mut batch| batch.insert([&refused])).unwrap());
    let mut other = Store::open(&folder.path().join("t.db")).unwrap();
    let again = Record { id: uuid::Uuid::now_v7(), ..record.clone() };
    for (store, record) in [(&mut store, &refused), (&mut other, &again)] {
        let mut batch = store.batch().unwrap();
        batch.insert([record]).unwrap();
        batch.commit().unwrap();
    }
    assert_eq!(store.records(&Filter::default()).unwrap(), [record, refused, again]);
    assert_eq!(store.connection.query_row("SELECT count(*) FROM kinds", [], |row| row.get::<_, i64>(0)), Ok(2));
}

#[test]
fn a_ledger_of_a_newer_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", VERSION + 1).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(Store::open(&path).err().unwrap().contains("newer version"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_ledger_of_version_1_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../version_1.sql")).unwrap();
    drop(old);
    for _ in 0..2 {
        let mut store = Store::open(&path).unwrap();
        let records = store.records(&Filter::default()).unwrap();
        assert_eq!(records.len(), 3);
        let first = &records[0];
        assert_eq!((&*first.organization, &*first.model, first.status), ("acme", "smol", 200));
        assert_eq!((first.first_token_ms, first.duration_ms, first.overhead_ms), (Some(12.345), 43.162, 0.063));
        assert_eq!(
            (first.cost, first.currency.as_deref(), &*first.tags),
            (Some(6.9e-6), Some("USD"), &["a".into(), "b".into()][..])
        );
        assert_eq!(
            (records[1].input_tokens, records[1].outcome, &*records[2].request_id),
            (None, Outcome::Refused, "mine")
        );
        assert_eq!(store.batch().unwrap().offset("j.jsonl").unwrap(), 99);
    }
}

#[test]
fn a_ledger_of_version_2_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let mut record = Record { id: uuid::Uuid::now_v7(), request_id: "r".into(), ..Record::default() };
    let mut store = Store::open(&path).unwrap();
    let mut batch = store.batch().unwrap();
    batch.insert([&record]).unwrap();
    batch.commit().unwrap();
    let back = format!("DROP VIEW records; ALTER TABLE requests DROP COLUMN queue_us; {}; PRAGMA user_version = 2", {
        VIEW.trim().trim_end_matches(';').replace(", queue_us / 1000.0 AS queue_ms", "")
    });
    store.connection.execute_batch(&back).unwrap();
    drop(store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.records(&Filter::default()).unwrap(), [record.clone()]);
    (record.id, record.queue_ms) = (uuid::Uuid::now_v7(), Some(3.5));
    let mut batch = store.batch().unwrap();
    batch.insert([&record]).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.records(&Filter::default()).unwrap()[1], record);
}
