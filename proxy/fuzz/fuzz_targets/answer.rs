//! Whole replies: `read_answer`, what the books see of them, and what every dialect writes of them.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use tidegate_fuzz::canon::event::Grammar;
use tidegate_fuzz::canon::{Event, Usage};
use tidegate_fuzz::wire::Dialect;
use tidegate_fuzz::wire::object::Object;
use tidegate_fuzz::wire::reply::rename_answer;
use tidegate_fuzz::{alike, dialect, fold, head, mutate, read_stream, said, write_stream};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate(data, size, max_size, seed, false) });

fuzz_target!(|data: &[u8]| {
    let (codec, body) = (dialect().codec(), Bytes::copy_from_slice(data));
    let answer = codec.read_answer(&body);
    let Ok(object) = Object::read(body.clone()) else { return };
    assert_eq!(codec.read_object(&object), answer, "an object that was read before is the same reply");
    let glance = codec.glance_answer(&object);
    Object::read(rename_answer(&object, "another")).expect("a renamed reply is an object");
    let Ok(events) = answer else { return };
    Grammar::check(&events).unwrap_or_else(|rule| panic!("{rule}: {events:#?}"));
    assert!(matches!(events.last(), Some(Event::Stop(_))), "a reply that is read ends well: {events:#?}");
    assert!(glance.fault.is_none(), "the books see a fault where the reader sees none: {glance:?}");
    let mut usage = Usage::default();
    events.iter().for_each(|event| {
        if let Event::Usage(later) = event {
            usage.update(later)
        }
    });
    let seen = glance.usage.unwrap_or_default();
    assert!(alike(&seen, &usage), "the books and the reader count alike: {seen:?} {usage:?}");

    let folded = fold(&events).expect("it has an end");
    for client in Dialect::ALL {
        // Where calls hold objects, one with other arguments cannot be told.
        let Ok(whole) = client.codec().write_answer(&folded, &head()) else { continue };
        let again = client.codec().read_answer(&whole);
        let again = again.unwrap_or_else(|fault| panic!("{client:?}: {fault:?}: {}", String::from_utf8_lossy(&whole)));
        Grammar::check(&again).unwrap_or_else(|rule| panic!("{client:?}: {rule}"));
        let stream = read_stream(client, [write_stream(client, &events)]);
        Grammar::check(&stream).unwrap_or_else(|rule| panic!("{client:?}: {rule}"));
        let (again, stream) = (fold(&again).expect("written whole"), fold(&stream).expect("written as a stream"));
        assert!(said(&again).contains(&said(&folded)), "{client:?}: {again:#?} for {folded:#?}");
        assert_eq!(said(&again), said(&stream), "{client:?}: whole and streamed say the same");
        assert_eq!(again.stop, stream.stop, "{client:?}");
    }
});
