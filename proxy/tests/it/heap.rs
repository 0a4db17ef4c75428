//! What this thread asks of the heap: an allocator that counts, for claims about memory.

#![allow(unsafe_code, reason = "an allocator cannot be written without; it adds up sizes and hands on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted for each thread by itself.
pub struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes allocated and not freed by this thread; negative where it freed what others had allocated.
#[allow(dead_code, reason = "the tests read it, the benchmark does not")]
pub fn live() -> isize {
    LIVE.get()
}

/// Allocations so far by this thread, growth in place included.
#[allow(dead_code, reason = "the benchmark reads it, the tests do not")]
pub fn asked() -> u64 {
    ASKED.get()
}

fn note(bytes: isize, asked: u64) {
    // A thread that is ending has no counters any more.
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
    let _ = ASKED.try_with(|count| count.set(count.get() + asked));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize, 1);
        // SAFETY: the caller's promise, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(-(layout.size() as isize), 0);
        // SAFETY: the caller's promise, handed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as isize - layout.size() as isize, 1);
        // SAFETY: the caller's promise, handed on.
        unsafe { System.realloc(at, layout, size) }
    }
}
