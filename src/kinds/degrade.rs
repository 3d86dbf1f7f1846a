//! A tier's `degrade` table: how its answers are weakened, and what clients are told about it.
use super::Endpoint;
use serde_json::Value;

/// The contract's default of `degrade.notice`.
pub const DEFAULT_NOTICE: &str = "Answered by a fallback: may be slower or shorter";

#[derive(Clone, Debug, PartialEq)]
pub struct Degrade {
    /// Upper limit of generated tokens; also the limit of a request that has none.
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    /// For clients, as `_notice`.
    pub notice: String,
}

/// Names under which an engine takes a token limit. llama-server knows its own beside OpenAI's two.
const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "n_predict"];

/// Fields that have an engine generate several answers, each with the whole limit. llama-server's own name is the last.
const MULTIPLIERS: [&str; 3] = ["n", "best_of", "n_cmpl"];

/// Weakens a request body. Returns whether the table applies to this endpoint at all: when it does the answer is
/// marked as weakened, also if the request happened to ask for less than the table allows.
pub fn apply(degrade: &Degrade, endpoint: Endpoint, body: &mut Value) -> bool {
    if !endpoint.generates() {
        return false;
    }
    // A body that is not an object is refused by whatever engine gets it, so there is nothing to weaken in it.
    if let Some(fields) = body.as_object_mut() {
        if let Some(cap) = degrade.max_tokens {
            limit(fields, cap, endpoint);
        }
        for name in MULTIPLIERS {
            if let Some(count) = fields.get_mut(name) {
                reduce(count);
            }
        }
        if let Some(temperature) = degrade.temperature {
            fields.insert("temperature".into(), temperature.into());
        }
    }
    true
}

/// To one. What every engine refuses stays as it is: the client is to be told, and not answered.
fn reduce(count: &mut Value) {
    let is_refused = match &*count {
        Value::Null | Value::Array(_) | Value::Object(_) => true,
        Value::Number(number) => number.as_f64().is_some_and(|number| number < 1.0),
        Value::Bool(_) | Value::String(_) => false,
    };
    if !is_refused {
        // vLLM reads "8" as a number, llama-server refuses it.
        *count = if count.is_string() { "1".into() } else { 1.into() };
    }
}

fn limit(fields: &mut serde_json::Map<String, Value>, cap: u64, endpoint: Endpoint) {
    let mut limited = false;
    for name in LIMITS {
        if let Some(asked) = fields.get_mut(name).filter(|value| !value.is_null()) {
            *asked = capped(asked, cap).into();
            // Not every engine knows the others, and one that does not would have no limit at all.
            limited |=
                name == "max_tokens" || (name == "max_completion_tokens" && endpoint == Endpoint::Chat);
        }
    }
    if !limited {
        fields.insert("max_tokens".into(), cap.into());
    }
    // vLLM refuses a lower limit above the upper one, and the client did not choose the upper one.
    if let Some(least) = fields.get_mut("min_tokens").filter(|value| !value.is_null()) {
        *least = capped(least, cap).into();
    }
}

/// The smaller of the two. Whatever is not a plain count becomes the cap: to llama-server -1 means "no limit", and
/// vLLM reads "9999" as a number.
fn capped(asked: &Value, cap: u64) -> u64 {
    match asked.as_u64() {
        Some(count) => count.min(cap),
        None => cap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(max_tokens: Option<u64>, temperature: Option<f64>, mut given: Value, expected: Value) {
        let degrade = Degrade { max_tokens, temperature, notice: DEFAULT_NOTICE.into() };
        assert!(apply(&degrade, Endpoint::Chat, &mut given));
        assert_eq!(given, expected);
    }

    #[test]
    fn both_limits_are_capped_and_an_absent_one_becomes_the_cap() {
        check(Some(200), None, json!({}), json!({ "max_tokens": 200 }));
        check(Some(200), None, json!({ "max_tokens": null }), json!({ "max_tokens": 200 }));
        check(Some(200), None, json!({ "max_tokens": 50 }), json!({ "max_tokens": 50 }));
        check(Some(200), None, json!({ "max_tokens": 900 }), json!({ "max_tokens": 200 }));
        check(
            Some(200),
            None,
            json!({ "max_completion_tokens": 900 }),
            json!({ "max_completion_tokens": 200 }),
        );
        let both = json!({ "max_tokens": 900, "max_completion_tokens": 30 });
        check(Some(200), None, both, json!({ "max_tokens": 200, "max_completion_tokens": 30 }));
    }

    #[test]
    fn no_spelling_of_unlimited_gets_past_the_cap() {
        for unlimited in [json!(-1), json!("9999"), json!(1e9), json!(f64::MAX), json!([1])] {
            check(Some(200), None, json!({ "max_tokens": unlimited }), json!({ "max_tokens": 200 }));
        }
        // An engine that does not know a name must be told another one.
        let both = json!({ "n_predict": 200, "max_tokens": 200 });
        check(Some(200), None, json!({ "n_predict": -1 }), both);
        let least = json!({ "max_tokens": 900, "min_tokens": 500 });
        check(Some(200), None, least, json!({ "max_tokens": 200, "min_tokens": 200 }));
    }

    #[test]
    fn the_cap_is_not_multiplied() {
        let one = json!({ "n": 1, "best_of": 1, "max_tokens": 200 });
        for many in [json!(8), json!(1), json!(8.0), json!(1e30), json!(true)] {
            check(Some(200), None, json!({ "n": many, "best_of": many }), one.clone());
        }
        check(None, None, json!({ "n": "8" }), json!({ "n": "1" }));
        for wrong in [json!(-1), json!(0), json!([8]), json!({})] {
            check(None, None, json!({ "n": wrong }), json!({ "n": wrong }));
        }
        check(None, None, json!({ "n": 4, "best_of": null }), json!({ "n": 1, "best_of": null }));
        check(None, Some(0.0), json!({ "n_cmpl": 4 }), json!({ "n_cmpl": 1, "temperature": 0.0 }));
    }

    #[test]
    fn the_temperature_is_set_whatever_was_asked() {
        check(None, Some(0.0), json!({}), json!({ "temperature": 0.0 }));
        check(None, Some(0.0), json!({ "temperature": 1.7 }), json!({ "temperature": 0.0 }));
        check(None, None, json!({ "temperature": 1.7 }), json!({ "temperature": 1.7 }));
    }

    #[test]
    fn only_generated_text_is_weakened() {
        let degrade = Degrade { max_tokens: Some(1), temperature: Some(0.0), notice: String::new() };
        for endpoint in [Endpoint::Embeddings, Endpoint::Passthrough] {
            let mut body = json!({ "input": "x" });
            assert!(!apply(&degrade, endpoint, &mut body));
            assert_eq!(body, json!({ "input": "x" }));
        }
        assert!(apply(&degrade, Endpoint::Completions, &mut json!({ "prompt": "x" })));
        assert!(apply(&degrade, Endpoint::Chat, &mut json!("not an object")));
    }
}
