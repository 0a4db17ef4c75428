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
        abandoned_tokens: 8,
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
fn a_ledger_is_read_where_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b?#.db");
    let record = Record { id: uuid::Uuid::now_v7(), request_id: "r".into(), ..Record::default() };
    let mut store = Store::open(&path).unwrap();
    insert(&mut store, &record);
    assert!(Store::open_read_only(&path).is_err(), "the record is not in this file yet");
    drop(store);
    let store = Store::open_read_only(&path).unwrap();
    assert_eq!(store.records(&Filter::default()).unwrap(), [record]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no file was made beside it");
    drop(store);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION - 1).unwrap();
    assert!(Store::open_read_only(&path).err().unwrap().contains("schema"));
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
fn ledgers_of_versions_2_and_3_are_taken_over() {
    for version in [2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let mut record = Record { id: uuid::Uuid::now_v7(), request_id: "r".into(), ..Record::default() };
        let mut store = Store::open(&path).unwrap();
        insert(&mut store, &record);
        let view = schema::VIEW.trim().trim_end_matches(';');
        let mut view = view.replace(", coalesce(abandoned_tokens, 0) AS abandoned_tokens", "");
        let mut back = "DROP VIEW records; ALTER TABLE kinds DROP COLUMN last_day; ALTER TABLE requests DROP COLUMN abandoned_tokens;".to_owned();
        if version == 2 {
            view = view.replace(", queue_us / 1000.0 AS queue_ms", "");
            back += "ALTER TABLE requests DROP COLUMN queue_us;";
        }
        let back = format!("{back} {view}; PRAGMA user_version = {version}");
        store.connection.execute_batch(&back).unwrap();
        drop(store);
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.records(&Filter::default()).unwrap(), [record.clone()], "version {version}");
        (record.id, record.queue_ms, record.abandoned_tokens) = (uuid::Uuid::now_v7(), Some(3.5), 8);
        insert(&mut store, &record);
        assert_eq!(store.records(&Filter::default()).unwrap()[1], record);
        assert_eq!(kinds_of(&store), 1, "the kind of before is known");
    }
}

#[test]
fn kinds_go_with_the_last_of_their_requests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let mut store = Store::open(&path).unwrap();
    let record = |day: i64, target: &str| {
        let id = uuid::Uuid::from_u128(((day * DAY) as u128) << 80 | fastrand::u128(..) >> 48);
        Record { id, request_id: "r".into(), target: target.into(), ..Record::default() }
    };
    for (day, target) in [(10, "gpu/10.0.0.1"), (10, "gpu/10.0.0.2"), (12, "gpu/10.0.0.2"), (11, "gpu/10.0.0.2")] {
        insert(&mut store, &record(day, target));
    }
    let mut other = Store::open(&path).unwrap();
    assert_eq!((store.delete_before(10 * DAY, 9).unwrap(), kinds_of(&store)), (0, 2));
    assert_eq!((store.delete_before(11 * DAY, 9).unwrap(), kinds_of(&store), store.kinds.len()), (2, 1, 1));
    // Who comes back is a kind again, also for a process that does not know that it was gone.
    for store in [&mut other, &mut store] {
        insert(store, &record(13, "gpu/10.0.0.1"));
    }
    let targets: Vec<_> = store.records(&Filter::default()).unwrap().into_iter().map(|record| record.target).collect();
    assert_eq!(targets.iter().map(|target| &**target).collect::<Vec<_>>(), {
        ["gpu/10.0.0.2", "gpu/10.0.0.2", "gpu/10.0.0.1", "gpu/10.0.0.1"]
    });
    assert_eq!(store.delete_before(14 * DAY, 3).unwrap(), 3);
    assert_eq!(store.records(&Filter::default()).unwrap().len(), 1, "what is left for the next round has its kind");
    assert_eq!((store.delete_before(14 * DAY, 3).unwrap(), kinds_of(&store), store.kinds.len()), (1, 0, 0));
}

fn insert(store: &mut Store, record: &Record) {
    let mut batch = store.batch().unwrap();
    batch.insert([record]).unwrap();
    batch.commit().unwrap();
}

fn kinds_of(store: &Store) -> i64 {
    store.connection.query_row("SELECT count(*) FROM kinds", [], |row| row.get(0)).unwrap()
}
