//! Error bodies: what a backend says of its failure, and what a client is then told.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use tidegate_fuzz::canon::{Event, Fault, FaultKind};
use tidegate_fuzz::wire::{Dialect, complaint};
use tidegate_fuzz::wire::object::Object;
use tidegate_fuzz::{mutate, read_stream};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate(data, size, max_size, seed, false) });

fn told(body: &[u8]) -> Option<String> {
    complaint(body).map(|complaint| complaint.message)
}

fuzz_target!(|data: &[u8]| {
    let Some(message) = told(data) else { return };
    assert!(!message.is_empty() && message.chars().count() <= 1001, "{message:?}");
    let fault = Fault::new(FaultKind::BackendError, message.clone()).with_param("p\"").with_code("c");
    for client in Dialect::ALL {
        let codec = client.codec();
        let body = codec.write_fault(&fault, "req_1");
        Object::read(body.clone()).unwrap_or_else(|refusal| panic!("{client:?}: {refusal:?}"));
        let said = told(&body).unwrap_or_else(|| panic!("{client:?}: {}", String::from_utf8_lossy(&body)));
        assert_eq!(told(&codec.write_fault(&Fault { message: said.clone(), ..fault.clone() }, "r")), Some(said));
        let events = read_stream(client, [Bytes::from(codec.write_fault_frame(&fault, "req_1", None))]);
        assert!(
            matches!(events[..], [Event::Fault(_)] | [Event::Start { .. }, Event::Fault(_)]),
            "{client:?}: {events:?}"
        );
        assert!((400..600).contains(&codec.fault_status(&fault)));
    }
});
