//! Variables of an engine whose files were not there, or not good, when the agent started: read at each start of it.
use super::unstarted;
use crate::config::{MissingKey, Secret};
use crate::lookout;
use crate::policy::EngineEvent;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long their file systems may take.
const LIMIT: Duration = Duration::from_secs(5);

/// All of them, or why the tier cannot start yet.
pub async fn read(
    late: &BTreeMap<String, MissingKey>,
    tier: &str,
) -> Result<Vec<(String, Secret)>, EngineEvent> {
    if late.is_empty() {
        return Ok(Vec::new());
    }
    let late = late.clone();
    let look = move || -> Result<Vec<_>, String> {
        late.into_iter().map(|(name, missing)| missing.look().map(|value| (name, value))).collect()
    };
    let lookout = lookout::on(&format!("variables of {tier}"));
    match tokio::time::timeout(LIMIT, lookout.look(look)).await {
        Ok(Some(found)) => found.map_err(unstarted::no_secret),
        Ok(None) | Err(_) => Err(unstarted::no_secret(
            "a file that `env` names cannot be read in time; see to its file system".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::policy::{Cause, Nature};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_file_that_comes_later_is_read_at_the_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        let text = format!(
            "[[tier]]\nname = \"a\"\nengine = \"vllm\"\nmodel = \"m\"\n\
             env = {{ HF_TOKEN = {{ file = \"{}\" }}, PLAIN = \"p\" }}\n",
            file.display()
        );
        let config = config::parse("f.toml", &text, &Environment::of_process()).expect("the agent may start");
        let local = config.tiers[0].local().expect("a local tier");
        assert_eq!(local.env.keys().collect::<Vec<_>>(), ["PLAIN"]);
        let late = &local.late_env;
        let Err(EngineEvent::SpawnFailed { cause, nature, evidence }) = read(late, "a").await else {
            panic!("it is not there")
        };
        assert_eq!((cause, nature), (Cause::AuthGated, Nature::Environment));
        let names = format!("`HF_TOKEN` needs the file {}, which cannot be read", file.display());
        assert!(evidence.starts_with(&names), "{evidence}");
        for value in ["two words", "another"] {
            fs::write(&file, value).expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
            let found = read(late, "a").await.expect("it is there");
            let found: Vec<(&str, &str)> = found.iter().map(|(n, v)| (n.as_str(), v.expose())).collect();
            assert_eq!(found, [("HF_TOKEN", value)]);
        }
    }
}
