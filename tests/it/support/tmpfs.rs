//! A tmpfs of a given size, in a mount namespace of its own: what is started there meets a real lack of space. Needs the
//! rights to mount, as root has them.
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The namespace lives in a process that sleeps, and goes with it once nobody else is in there.
pub struct Tmpfs {
    holder: Child,
    at: PathBuf,
}

impl Tmpfs {
    /// Mounts it over the directory `at`, with mount(8)'s options.
    pub fn over(at: &Path, options: &str) -> Self {
        let script = "mount -t tmpfs -o \"$1\" none \"$2\" && echo mounted && exec sleep infinity";
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", options])
            .arg(at)
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1) is there");
        let mut said = String::new();
        let out = holder.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut said).expect("its output");
        assert_eq!(said.trim(), "mounted", "nothing can be mounted here: run the tests as root");
        Self { holder, at: at.to_owned() }
    }

    /// What starts a program in there: the words before its own.
    pub fn entrance(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", self.holder.id())]
    }

    /// The tmpfs as it is seen from outside.
    pub fn inside(&self) -> PathBuf {
        let at = self.at.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(at)
    }

    /// Makes files until no more can be had but `spare`; they are called `filler-N`.
    pub fn fill_but(&self, spare: usize) {
        let name = |n: usize| self.inside().join(format!("filler-{n}"));
        let made = (0..100_000).take_while(|n| std::fs::File::create_new(name(*n)).is_ok()).count();
        (made - spare.min(made)..made).for_each(|n| std::fs::remove_file(name(n)).expect("it was made"));
    }

    /// Takes all the space that is left, and no file.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.inside().join("filler-all")).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    /// Removes what was filled in.
    pub fn empty(&self) {
        let entries = std::fs::read_dir(self.inside()).expect("it is mounted").flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("filler-")) {
            std::fs::remove_file(entry.path()).expect("it is there");
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
