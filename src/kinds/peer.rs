//! How instances of mainstay recognise each other, and what one answers when another asks how it is.
use crate::policy::{CheckFailure, InstanceId, Leads, Path};
use serde_json::Value;

/// Of a request: the instances that it went through.
pub const VIA: &str = "x-mainstay-via";
/// Of an answer to another instance: who answers.
pub const INSTANCE: &str = "x-mainstay-instance";
/// What an instance is asked, whatever `health_path` says: only this tells where it leads.
pub const HEALTH: &str = "/health";
/// In that answer: the paths on which engines are reached.
pub const PATHS: &str = "paths";

/// What an answer to the question of `own` how a remote tier is says about it. `instance`: who answered, if that is a
/// mainstay.
pub fn judge(
    own: InstanceId,
    instance: Option<InstanceId>,
    status: u16,
    body: &[u8],
) -> (Leads, Option<CheckFailure>) {
    let good = (200..=299).contains(&status);
    match instance {
        None => (Leads::Engine, (!good).then_some(CheckFailure::Status(status))),
        Some(instance) if instance == own => (Leads::Peer(Vec::new()), Some(CheckFailure::Itself)),
        Some(_) => {
            let leads = Leads::told(own, if good { told(body) } else { Vec::new() });
            let failure = match status {
                200..=299 | 503 => leads.is_dead_end().then_some(CheckFailure::DeadEnd),
                _ => Some(CheckFailure::Status(status)),
            };
            (leads, failure)
        }
    }
}

fn told(body: &[u8]) -> Vec<Path> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let paths = answer.get(PATHS).and_then(Value::as_array);
    paths.into_iter().flatten().filter_map(|path| Path::parse(path.as_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: InstanceId = InstanceId::new(1);
    const OTHER: InstanceId = InstanceId::new(2);

    #[track_caller]
    fn check(
        instance: Option<InstanceId>,
        status: u16,
        body: &str,
        expected: Option<CheckFailure>,
        way: bool,
    ) {
        let (leads, failure) = judge(OWN, instance, status, body.as_bytes());
        assert_eq!(failure, expected, "{status} {body}");
        assert_eq!(!leads.is_dead_end(), way, "{status} {body}");
    }

    #[test]
    fn what_a_remote_says_of_itself() {
        use CheckFailure::{DeadEnd, Itself, Status};
        check(None, 200, "", None, true);
        check(None, 503, "", Some(Status(503)), true);
        let there = r#"{"paths":["0000000000000002, 0000000000000003"]}"#;
        let back = r#"{"paths":["0000000000000002, 0000000000000001"]}"#;
        check(Some(OTHER), 200, there, None, true);
        check(Some(OTHER), 200, back, Some(DeadEnd), false);
        check(Some(OTHER), 200, "<html>", Some(DeadEnd), false);
        check(Some(OTHER), 503, there, Some(DeadEnd), false);
        check(Some(OTHER), 404, "", Some(Status(404)), false);
        check(Some(OWN), 508, "", Some(Itself), false);
    }
}
