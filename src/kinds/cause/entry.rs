//! One line of the catalogue: a wording, and what it means.
use crate::kinds::Kind;
use crate::policy::Cause;

/// Whose logs an entry is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Engines(u8);

pub(super) const VLLM: Engines = Engines(1);
pub(super) const LLAMA: Engines = Engines(2);
pub(super) const OLLAMA: Engines = Engines(4);
/// llama.cpp's own wording: Ollama's runner prints it into Ollama's log.
pub(super) const GGML: Engines = Engines(LLAMA.0 | OLLAMA.0);
pub(super) const ALL: Engines = Engines(VLLM.0 | GGML.0);

impl Engines {
    /// `None`: nobody said which engine wrote the lines.
    pub(super) const fn hold(self, kind: Option<Kind>) -> bool {
        let asked = match kind {
            Some(Kind::Vllm) => VLLM,
            Some(Kind::LlamaServer) => LLAMA,
            Some(Kind::Ollama) => OLLAMA,
            Some(Kind::Remote(_)) | None => ALL,
        };
        self.0 & asked.0 != 0
    }
}

/// How much a line of this wording says. The strongest class that a log holds decides; within it the earliest line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Nothing: the line is left alone, whatever else it holds.
    Benign,
    /// The root, however late it is printed: the kernel's word, broken hardware, a refusal by name.
    Decisive,
    /// Names one cause.
    Specific,
    /// Something broke here, without saying why.
    Symptom,
    /// Somebody noticed that another process is gone.
    Consequence,
    /// What everybody says once an engine is dead.
    Aftermath,
    /// The engine lives: one request, or a restriction it works under.
    Note,
}

/// Will the same start fail the same way?
pub(super) const AGAIN: Option<bool> = Some(true);
pub(super) const PASSES: Option<bool> = Some(false);
pub(super) const OPEN: Option<bool> = None;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub engines: Engines,
    pub weight: Weight,
    pub cause: Cause,
    pub deterministic: Option<bool>,
    /// One of these is in the line. Case does not matter.
    pub patterns: &'static [&'static str],
    /// A real line (shortened) that it is for.
    #[cfg(test)]
    pub sample: &'static str,
}

macro_rules! constructors {
    ($($name:ident = $weight:ident;)*) => {$(
        pub(super) const fn $name(
            engines: Engines,
            cause: Cause,
            deterministic: Option<bool>,
            patterns: &'static [&'static str],
            #[cfg_attr(not(test), expect(unused_variables, reason = "samples are for the tests"))] sample: &'static str,
        ) -> Entry {
            Entry { engines, weight: Weight::$weight, cause, deterministic, patterns, #[cfg(test)] sample }
        }
    )*};
}

constructors! {
    decisive = Decisive;
    specific = Specific;
    symptom = Symptom;
    consequence = Consequence;
    aftermath = Aftermath;
    note = Note;
}

/// A line that only looks bad, whoever prints it. In the midst of a table: where nothing before knows better.
pub(super) const fn benign(
    patterns: &'static [&'static str],
    #[cfg_attr(not(test), expect(unused_variables, reason = "samples are for the tests"))]
    sample: &'static str,
) -> Entry {
    Entry {
        engines: ALL,
        weight: Weight::Benign,
        cause: Cause::None,
        deterministic: OPEN,
        patterns,
        #[cfg(test)]
        sample,
    }
}
