//! How long the last starts of a tier took, stage by stage: `starts/TIER.json` in the state directory.
//!
//! It only serves to tell how long the next one will take, so a file that is damaged is as good as none.
use super::store::replace;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Starts that are kept of one tier.
pub const STARTS_MAX: usize = 5;
/// Far more than five starts take.
const FILE_MAX: u64 = 64 * 1024;
/// A start that took longer is none.
const SECONDS_MAX: f64 = 1e7;

/// The stages of one start in their order, and the seconds that each took.
pub type Start = Vec<(String, f64)>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Starts {
    pub tier: String,
    pub engine: String,
    pub model: String,
    /// The oldest first.
    pub starts: Vec<Start>,
}

impl Starts {
    /// Another engine or model takes another time.
    pub fn is_of(&self, tier: &str, engine: &str, model: &str) -> bool {
        (self.tier.as_str(), self.engine.as_str(), self.model.as_str()) == (tier, engine, model)
    }

    /// `None` when there is nothing to be read or understood.
    pub fn load(state_dir: &Path, tier: &str) -> Option<Self> {
        let mut text = Vec::new();
        File::open(path(state_dir, tier)).ok()?.take(FILE_MAX).read_to_end(&mut text).ok()?;
        let mut starts: Self = serde_json::from_slice(&text).ok()?;
        let sane = |start: &Start| start.iter().all(|(_, seconds)| (0.0..SECONDS_MAX).contains(seconds));
        starts.starts.retain(sane);
        let surplus = starts.starts.len().saturating_sub(STARTS_MAX);
        starts.starts.drain(..surplus);
        Some(starts)
    }

    /// Writes them in the place of those that were there.
    ///
    /// # Errors
    /// When it cannot be written; what was there is still there.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        replace(&path(state_dir, &self.tier), &serde_json::to_vec(self)?)
    }
}

fn path(state_dir: &Path, tier: &str) -> PathBuf {
    state_dir.join("starts").join(format!("{tier}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn starts(took: &[f64]) -> Starts {
        let starts = took.iter().map(|s| vec![("loading weights".to_owned(), *s)]).collect();
        Starts { tier: "a".into(), engine: "vllm".into(), model: "m".into(), starts }
    }

    #[test]
    fn what_was_saved_is_loaded_and_is_of_one_engine_and_model() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Starts::load(dir.path(), "a"), None);
        starts(&[1.5, 2.5]).save(dir.path()).expect("a writable directory");
        let loaded = Starts::load(dir.path(), "a").expect("it was saved");
        assert_eq!(loaded, starts(&[1.5, 2.5]));
        assert!(loaded.is_of("a", "vllm", "m"));
        assert!(!loaded.is_of("a", "ollama", "m") && !loaded.is_of("a", "vllm", "n"));
    }

    #[test]
    fn a_damaged_file_is_none_and_a_strange_one_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut many = starts(&[0.0; 9]);
        many.starts.extend(starts(&[-1.0, 1e30]).starts);
        many.save(dir.path()).expect("a writable directory");
        assert_eq!(Starts::load(dir.path(), "a"), Some(starts(&[0.0; STARTS_MAX])));
        let file = dir.path().join("starts/a.json");
        let whole = fs::read(&file).expect("it was saved");
        for text in [&whole[..whole.len() / 2], b"", b"[]", b"\xff\xfe", b"{\"tier\": 5}"] {
            fs::write(&file, text).expect("a writable file");
            assert_eq!(Starts::load(dir.path(), "a"), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
