//! PURE. Tells requests apart without keeping them: a keyed hash of what was asked.
use crate::kinds::Endpoint;
use serde_json::Value;
use std::hash::{BuildHasher, Hash, Hasher};

/// Two requests with the same one ask for the same, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint(pub u64);

/// Of a longer string the ends are read. A body may be many MiB, and this runs between the tokens of others.
const READ_WHOLE: usize = 4 * 1024;
/// Of a longer list or object the ends are read.
const READ_EACH: usize = 256;
/// Values that are read in all.
const VALUES: usize = 4 * 1024;

impl Fingerprint {
    /// Of a request with a JSON body.
    pub fn of(keys: &impl BuildHasher, endpoint: Endpoint, body: &Value) -> Self {
        let mut hasher = keys.build_hasher();
        endpoint.hash(&mut hasher);
        read(body, &mut VALUES.clone(), &mut hasher);
        Self(hasher.finish())
    }

    /// Of a request whose body is not looked at.
    pub fn of_path(keys: &impl BuildHasher, path: &str) -> Self {
        Self(keys.hash_one(path))
    }

    /// Of a request whose body is not read for what it says.
    pub fn of_bytes(keys: &impl BuildHasher, path: &str, body: &[u8]) -> Self {
        let mut hasher = keys.build_hasher();
        path.hash(&mut hasher);
        read_bytes(body, &mut hasher);
        Self(hasher.finish())
    }
}

fn read(value: &Value, left: &mut usize, hasher: &mut impl Hasher) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Bool(it) => it.hash(hasher),
        Value::Number(number) => number.hash(hasher),
        Value::String(text) => read_text(text, hasher),
        Value::Array(values) => {
            values.len().hash(hasher);
            ends(values.len(), |place| {
                values.get(place).into_iter().for_each(|value| read(value, left, hasher))
            });
        }
        Value::Object(fields) => {
            fields.len().hash(hasher);
            for (name, value) in fields.iter().take(READ_EACH) {
                read_text(name, hasher);
                read(value, left, hasher);
            }
        }
    }
}

fn read_text(text: &str, hasher: &mut impl Hasher) {
    read_bytes(text.as_bytes(), hasher);
}

fn read_bytes(bytes: &[u8], hasher: &mut impl Hasher) {
    bytes.len().hash(hasher);
    if bytes.len() <= READ_WHOLE {
        return bytes.hash(hasher);
    }
    bytes[..READ_WHOLE / 2].hash(hasher);
    bytes[bytes.len() - READ_WHOLE / 2..].hash(hasher);
}

/// The places of a list at which it is read.
fn ends(length: usize, mut read: impl FnMut(usize)) {
    let middle = length.saturating_sub(READ_EACH / 2);
    (0..length.min(READ_EACH / 2)).for_each(&mut read);
    (middle.max(READ_EACH / 2)..length).for_each(read);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::hash::RandomState;

    #[test]
    fn what_differs_is_told_apart() {
        let keys = RandomState::new();
        let of = |body: &Value| Fingerprint::of(&keys, Endpoint::Chat, body);
        let long = |end: &str| json!({"prompt": "x".repeat(100_000) + end});
        let many = |last: u32| json!({"messages": (0..10_000).chain([last]).collect::<Vec<_>>()});
        let bodies = [
            json!({}),
            json!({"a": null}),
            json!({"a": 1}),
            json!({"a": "1"}),
            json!({"a": ["1"]}),
            long("a"),
            long("b"),
            many(1),
            many(2),
        ];
        for (place, body) in bodies.iter().enumerate() {
            assert_eq!(of(body), of(&body.clone()), "{place}");
            for other in &bodies[..place] {
                assert_ne!(of(body), of(other), "{place}");
            }
        }
        assert_ne!(of(&bodies[0]), Fingerprint::of(&keys, Endpoint::Completions, &bodies[0]));
        assert_ne!(of(&bodies[0]), Fingerprint::of(&RandomState::new(), Endpoint::Chat, &bodies[0]), "keyed");
    }
}
