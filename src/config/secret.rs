//! Values that must not be seen: where they are written, and a type that does not show them.
use super::environment::Environment;
use super::value::{Given, Wrong, clipped};
use rustix::fs::OFlags;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Longer than any key or token, and than what a variable of an environment can hold.
const LARGEST_SECRET: u64 = 64 * 1024;
const SOURCES: &str = r#"write { file = "/…" } or { credential = "…" }"#;

/// Text that `Debug` never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    kept: bool,
}

impl Secret {
    /// As it was typed.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), kept: false }
    }

    /// From a file or credential.
    fn kept(text: String) -> Self {
        Self { text, kept: true }
    }

    /// It came from a file or credential, so it is a secret whatever its name is.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// The text itself; for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of a variable: as it stands, or from a file or credential.
pub(super) fn plain_or_kept(given: &Given<'_>, environment: &Environment) -> Result<Key, Wrong> {
    match given.value {
        DeValue::String(text) if text.contains('\0') => {
            Err(given.wrong_unshown("holds a NUL byte", "remove the NUL"))
        }
        DeValue::String(text) => Ok(Key::Known(Secret::new(text.clone().into_owned()))),
        DeValue::Table(source) => kept(given, source, Form::Text, environment),
        _ => {
            Err(given.of_wrong_type(&format!("write a string in quotes, or {}", &SOURCES["write ".len()..])))
        }
    }
}

/// Only from a file or credential, never in the configuration itself.
pub(super) fn password(given: &Given<'_>, environment: &Environment) -> Result<Key, Wrong> {
    kept(given, table(given)?, Form::Text, environment)
}

/// The same for what goes into an HTTP header.
pub(super) fn api_key(given: &Given<'_>, environment: &Environment) -> Result<Key, Wrong> {
    kept(given, table(given)?, Form::Header, environment)
}

fn table<'a>(given: &Given<'a>) -> Result<&'a DeTable<'a>, Wrong> {
    match given.value {
        DeValue::Table(source) => Ok(source),
        DeValue::String(_) => {
            let remedy = format!("{SOURCES}, this file is no place for secrets");
            Err(given.wrong_unshown("is written out", remedy))
        }
        _ => Err(given.of_wrong_type(SOURCES)),
    }
}

/// A key, a password or the value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Known(Secret),
    /// Its file cannot be used as it is now: it may be on a mount that is late.
    Missing(MissingKey),
}

impl Key {
    pub fn known(&self) -> Option<&Secret> {
        match self {
            Self::Known(secret) => Some(secret),
            Self::Missing(_) => None,
        }
    }

    pub fn missing(&self) -> Option<&MissingKey> {
        match self {
            Self::Known(_) => None,
            Self::Missing(missing) => Some(missing),
        }
    }
}

/// Where a key will be, and why it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingKey {
    /// What the configuration calls it.
    name: String,
    source: Source,
    form: Form,
    pub(super) lack: Lack,
}

impl MissingKey {
    /// Looks again; in one line what is wrong, and what would be right. May hang with the file's file system.
    pub fn look(&self) -> Result<Secret, String> {
        let found = self.source.read_as(self.form);
        found.map_err(|Lack { what, remedy }| format!("`{}` {what}; {remedy}", self.name))
    }
}

/// What a secret must be fit for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Header,
}

/// What keeps a secret from being used, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Lack {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

fn kept(
    given: &Given<'_>,
    source: &DeTable<'_>,
    form: Form,
    environment: &Environment,
) -> Result<Key, Wrong> {
    let source = Source::named(given, source, environment)?;
    Ok(match source.read_as(form) {
        Ok(secret) => Key::Known(secret),
        Err(lack) => Key::Missing(MissingKey { name: given.key.to_owned(), source, form, lack }),
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    /// The second part: where the unit's credentials are.
    Credential(String, Option<PathBuf>),
}

impl Source {
    fn named(given: &Given<'_>, source: &DeTable<'_>, environment: &Environment) -> Result<Self, Wrong> {
        let mut entries = source.iter();
        let (Some((name, value)), None) = (entries.next(), entries.next()) else {
            return Err(given.wrong_unshown("must name one source", SOURCES));
        };
        let Some(place) = value.get_ref().as_str().filter(|place| !place.contains('\0')) else {
            return Err(given.wrong_unshown("names no source", SOURCES));
        };
        match name.get_ref().as_ref() {
            "file" if Path::new(place).is_absolute() => Ok(Self::File(PathBuf::from(place))),
            "file" => {
                let why = format!("names the file \"{}\"", clipped(place));
                Err(given.wrong_unshown(why, "write an absolute path"))
            }
            "credential" if place.is_empty() || place.contains('/') || place == "." || place == ".." => {
                let why = format!("names the credential \"{}\"", clipped(place));
                Err(given.wrong_unshown(why, "write the name that LoadCredential= in the unit gives it"))
            }
            "credential" => Ok(Self::Credential(clipped(place), environment.credentials_directory.clone())),
            other => {
                Err(given.wrong_unshown(format!("has the unknown source `{}`", clipped(other)), SOURCES))
            }
        }
    }

    fn read(&self) -> Result<Secret, Lack> {
        match self {
            Self::File(path) => from_file(path),
            Self::Credential(name, directory) => from_credential(name, directory.as_deref()),
        }
    }

    fn read_as(&self, form: Form) -> Result<Secret, Lack> {
        let secret = self.read()?;
        if form == Form::Header && !secret.text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = "holds spaces or characters that no HTTP header can carry";
            return Err(Lack::new(what, "keep just the key in there, on one line"));
        }
        Ok(secret)
    }
}

/// systemd has already made sure that nobody else reads a credential.
fn from_credential(name: &str, directory: Option<&Path>) -> Result<Secret, Lack> {
    let Some(directory) = directory else {
        let why = format!("needs the credential `{name}`, and $CREDENTIALS_DIRECTORY is not set");
        let remedy = format!("run under a unit with LoadCredential={name}:/…, or write {{ file = \"/…\" }}");
        return Err(Lack::new(why, remedy));
    };
    let (text, _) = contents(&directory.join(name)).map_err(|why| {
        let remedy = format!("add LoadCredential={name}:/… to the unit");
        Lack::new(format!("needs the credential `{name}`, which {why}"), remedy)
    })?;
    Ok(Secret::kept(text))
}

fn from_file(path: &Path) -> Result<Secret, Lack> {
    let shown = clipped(&path.to_string_lossy());
    let (text, mode) = contents(path).map_err(|why| {
        Lack::new(format!("needs the file {shown}, which {why}"), "name a file that mainstay may read")
    })?;
    if mode & 0o004 != 0 {
        let why = format!("is kept in {shown}, which everybody may read");
        return Err(Lack::new(why, format!("chmod o-rwx {shown}")));
    }
    Ok(Secret::kept(text))
}

/// The text without the newline at its end, and the file's mode; or what is wrong with the file.
fn contents(path: &Path) -> Result<(String, u32), String> {
    let read = || {
        // Opening a pipe that nobody writes to would wait for ever.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(LARGEST_SECRET + 1).read_to_end(&mut bytes)?;
        Ok(Some((bytes, metadata.permissions().mode())))
    };
    let (bytes, mode) = read()
        .map_err(|error: std::io::Error| format!("cannot be read ({error})"))?
        .ok_or("is no regular file")?;
    if bytes.len() as u64 > LARGEST_SECRET {
        return Err("is larger than 64 KiB".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text {
        "" => Err("is empty".to_owned()),
        text if text.contains('\0') => Err("holds a NUL byte".to_owned()),
        text => Ok((text.to_owned(), mode)),
    }
}
