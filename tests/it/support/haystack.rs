//! Everything in which a secret could be found, and the search for one.
use std::fs;
use std::path::Path;

/// Texts by the name of the place where each was found.
#[derive(Default)]
pub struct Haystack {
    places: Vec<(String, Vec<u8>)>,
}

impl Haystack {
    pub fn add(&mut self, place: &str, text: impl AsRef<[u8]>) {
        self.places.push((place.to_owned(), text.as_ref().to_vec()));
    }

    /// Every file below a directory, whatever it is. (Sockets and pipes hold nothing.)
    pub fn add_files(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).expect("a directory to search").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind of file"));
            if kind.is_dir() {
                self.add_files(&path);
            } else if kind.is_file()
                && let Ok(text) = fs::read(&path)
            {
                self.add(&path.display().to_string(), text);
            }
        }
    }

    /// What everybody on the host can read of a process, and its environment.
    pub fn add_process(&mut self, what: &str, pid: u32) {
        for file in ["cmdline", "environ", "comm"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).expect("a living process of ours");
            self.add(&format!("{file} of the {what}"), text);
        }
    }

    /// Is this anywhere? For making sure that what was searched is what was meant.
    pub fn has(&self, needle: &str) -> bool {
        self.places.iter().any(|(_, text)| contains(text, needle.as_bytes()))
    }

    /// Where these secrets are, whole or by half.
    pub fn finds(&self, secrets: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for secret in secrets {
            let (first, last) = secret.split_at(secret.len() / 2);
            for (place, text) in &self.places {
                for part in [first, last].iter().filter(|part| contains(text, part.as_bytes())) {
                    let line = String::from_utf8_lossy(text);
                    let line = line.lines().find(|line| line.contains(part)).unwrap_or_default().to_owned();
                    found.push(format!("{part} of {secret} in {place}: {line:.300}"));
                }
            }
        }
        found
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}
