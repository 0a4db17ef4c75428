//! Requests: `Request::read` and `call()`, what they are spliced into, and what every dialect writes of them.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use tidegate_fuzz::canon::Call;
use tidegate_fuzz::wire::request::Request;
use tidegate_fuzz::wire::{Dialect, Target};
use tidegate_fuzz::{dialect, mutate, target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate(data, size, max_size, seed, false) });

fuzz_target!(|data: &[u8]| {
    let dialect = dialect();
    let Ok(request) = Request::read(dialect, Bytes::copy_from_slice(data)) else { return };
    let _ = (request.estimate_input(), request.user(), request.keys(), request.loads(), request.stream_usage());
    if let Ok(out) = request.write(&[dialect], &target()) {
        let out =
            Request::read(dialect, out.written.body).expect("what goes out to the same dialect is a request of it");
        assert_eq!((out.model.as_str(), out.stream), ("there", request.stream));
    }
    let Ok(call) = request.call() else { return };
    if let Ok(same) = request.with_call(call) {
        assert_eq!(same.body(), request.body(), "untouched means unchanged");
    }
    // A request that only loads a model is answered by us.
    if request.call_for_others().is_err() || request.loads().is_some() {
        return;
    }
    for backend in Dialect::ALL {
        for target in [target(), Target { model: "there".into(), ..Target::default() }] {
            let Ok(first) = backend.codec().write_call(call, &target) else { continue };
            let once = read(backend, &first.body);
            let second =
                backend.codec().write_call(&once, &target).expect("what was written once can be written again");
            let third = backend.codec().write_call(&read(backend, &second.body), &target).expect("and again");
            assert_eq!(text(&second.body), text(&third.body), "{backend:?}: it comes to rest");
            assert_eq!(once.stream, call.stream);
        }
    }
});

fn read(dialect: Dialect, body: &Bytes) -> Call {
    let request = Request::read(dialect, body.clone());
    let request = request.unwrap_or_else(|fault| panic!("{dialect:?}: {fault:?}: {}", text(body)));
    let call = request.call().unwrap_or_else(|fault| panic!("{dialect:?}: {fault:?}: {}", text(body)));
    call.clone()
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).expect("JSON is UTF-8")
}
