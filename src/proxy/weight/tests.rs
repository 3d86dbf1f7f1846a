//! The estimate against an allocator that counts.
use super::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// As malloc does: eight bytes more, and in steps of sixteen.
fn note(before: usize, after: usize) {
    let real = |size: usize| if size == 0 { 0 } else { (size + 8).next_multiple_of(16).max(32) as isize };
    // A thread that ends has no count any more, and nobody asks for it.
    let _ = LIVE.try_with(|live| live.set(live.get() + real(after) - real(before)));
}

// SAFETY: everything is handed to the system's allocator as it came.
#[allow(unsafe_code, reason = "an allocator cannot be written without; it is in the unit tests alone")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(0, layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(layout.size(), 0);
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(layout.size(), size);
        unsafe { System.realloc(block, layout, size) }
    }
}

/// What the values of `text` take in truth.
fn truth(text: &str) -> usize {
    let before = LIVE.get();
    let value: Value = serde_json::from_str(text).unwrap();
    let taken = LIVE.get() - before;
    drop(value);
    assert_eq!(LIVE.get(), before);
    usize::try_from(taken).unwrap()
}

#[track_caller]
fn check(name: &str, text: &str) {
    let (estimate, truth) = (weight(text.as_bytes()), truth(text));
    assert!(estimate >= truth, "{name}: {estimate} for {truth}");
    assert!(estimate <= truth * 5 / 4 + 256, "{name}: {estimate} for {truth}");
}

#[test]
fn it_is_what_the_values_take() {
    let list = |one: &str, count: usize| format!("[{}]", vec![one; count].join(","));
    for count in [1, 3, 4, 5, 7, 8, 14, 15, 28, 29, 1000, 40_000] {
        let keys: Vec<String> = (0..count).map(|n| format!("\"key{n}\": {n}")).collect();
        check("one object of many keys", &format!("{{{}}}", keys.join(",")));
        check("numbers", &list("17", count));
        check("strings", &list("\"hello, [you] {there}: \\\"x\\\"\"", count));
        check("objects", &list("{\"a\":1}", count));
        check("lists", &list("[1]", count));
        check("nothing in them", &list("[]", count));
        check(
            "larger objects",
            &list(&format!("{{\"a\":[1,2,3],\"b\":{{}},{}}}", keys[..count.min(9)].join(",")), 50),
        );
    }
    check("a chat", r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi, there"}]}"#);
    check("one long text", &format!("{{\"prompt\":\"{}\"}}", "a, b, [c]: {d} ".repeat(10_000)));
}

#[test]
fn what_is_no_json_has_a_weight_all_the_same() {
    for text in ["", "]", "}{", "\"", "\"\\", ",,,,:::", "[[[[", "{\"a\":[1,2", "\\\\\\\"", "nul"] {
        weight(text.as_bytes());
    }
    let deep = "[".repeat(1 << 20);
    assert!(weight(deep.as_bytes()) < 1 << 20, "a parser gives up on it");
    assert!(weight(format!("[{}", "1,".repeat(1000)).as_bytes()) >= 1000 * size_of::<Value>());
}
