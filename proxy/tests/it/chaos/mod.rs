//! The proof: many tenants at once before backends that fail in every way they can, and what must hold all the same.
//!
//! Every request gets exactly one answer, a whole reply or an error of its own protocol; the reply is its own, with nothing
//! missing; there is exactly one record of it, which says the same; and when all is over nothing is left: no request in
//! flight, no connection, no thread, no memory. A second run kills the gateway over and over and holds the books against
//! what clients have in their hands.
//!
//! A few seconds in the tests; `make soak` runs it for ten minutes and prints the figures.

mod backend;
mod books;
mod client;
mod house;

use backend::{Chaos, Fate};
use client::{Ended, Tenants};
use house::House;
use std::time::Duration;

/// How long each of the two runs takes; `TIDEGATE_SOAK_SECONDS` says otherwise.
fn seconds() -> u64 {
    std::env::var("TIDEGATE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// The backends: one that is good, one that is everything, and replicas of which each has a vice.
fn backends() -> Vec<(&'static str, Chaos)> {
    use Fate::*;
    let all = [
        (Good, 30),
        (Trickle, 5),
        (Slow, 5),
        (Hang, 2),
        (Reset, 6),
        (Cut, 6),
        (Early, 6),
        (Status(500), 4),
        (Status(503), 4),
        (Status(429), 4),
        (Status(529), 2),
        (Status(400), 2),
        (TooLong, 4),
        (TooShort, 4),
        (Headers, 2),
        (Garbage, 4),
        (NoJson, 4),
        (Silent, 4),
    ];
    vec![
        ("good", Chaos::start(&[(Good, 1)])),
        ("wild", Chaos::start(&all)),
        ("bursts", Chaos::start(&[(Good, 3), (Status(500), 1), (Status(503), 1), (Status(529), 1)])),
        ("closing", Chaos::start(&[(Early, 1)])),
        ("resetting", Chaos::start(&[(Good, 1), (Reset, 1)])),
        ("flapping", Chaos::flapping(&[(Good, 1)], Duration::from_millis(300))),
    ]
}

#[test]
fn every_request_has_one_answer_and_one_record() {
    let backends = backends();
    let house = House::start(&backends);
    let time = Duration::from_secs(seconds());
    // What the first requests leave for good (pools, threads, arenas) is no leak.
    let mut ended = Tenants::before(house.api()).run(24, time / 3);
    house.settle();
    let plateau = house.leftovers();
    ended.extend(Tenants::before(house.api()).run(24, time));
    house.settle();
    let after = house.leftovers();
    books::agree(&house.records(), &ended);
    books::nothing_left(&plateau, &after);
    books::nobody_starved(&backends, &house.records());
    books::print(&ended, &backends, &plateau, &after);
}

#[test]
fn what_a_client_has_whole_is_in_the_books_after_kill_nine() {
    let backends = vec![("good", Chaos::start(&[(Fate::Good, 4), (Fate::Trickle, 1)]))];
    let mut house = House::start(&backends);
    let kills = (seconds() / 2).clamp(3, 120);
    let mut ended: Vec<Ended> = Vec::new();
    for _ in 0..kills {
        let tenants = Tenants::before(house.api());
        let clients = std::thread::spawn(move || tenants.run(16, Duration::from_secs(1)));
        std::thread::sleep(Duration::from_millis(fastrand::u64(400..900)));
        house.kill();
        house.restart();
        ended.extend(clients.join().unwrap());
    }
    house.settle();
    let records = house.records();
    books::hold_what_clients_have(&records, &ended);
    let whole = ended.iter().filter(|ended| ended.is_whole()).count();
    println!(
        "kill -9: {kills} times under load, {whole} whole replies, {} records, none missing, none twice",
        records.len()
    );
    assert!(whole > 30, "too few to say anything: {whole}");
}
