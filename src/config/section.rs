//! One table of the document, read key by key; what nobody asked for is an unknown key.
use super::document::Lost;
use super::environment::Environment;
use super::keys;
use super::problem::Problems;
use super::value::{Given, Wrong};
use std::collections::BTreeSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What every reader needs besides the table itself.
pub(super) struct Context<'a> {
    pub(super) environment: &'a Environment,
    pub(super) problems: &'a Problems,
    pub(super) lost: &'a Lost,
}

pub(super) struct Section<'a> {
    pub(super) context: &'a Context<'a>,
    /// As in messages: `[server]`, `[[tier]]`, `health`.
    title: &'static str,
    /// Where its header, or the value that holds it, begins.
    pub(super) at: usize,
    table: Option<&'a DeTable<'a>>,
    asked: BTreeSet<&'static str>,
    refused: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        title: &'static str,
        at: usize,
        table: &'a DeTable<'a>,
    ) -> Self {
        Self { context, title, at, table: Some(table), asked: BTreeSet::new(), refused: BTreeSet::new() }
    }

    /// A section that was not written: every key has its default.
    pub(super) fn absent(context: &'a Context<'a>, title: &'static str) -> Self {
        Self { context, title, at: 0, table: None, asked: BTreeSet::new(), refused: BTreeSet::new() }
    }

    /// The raw value of a key, which from now on is a known one.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Given<'a>> {
        self.asked.insert(key);
        if self.refused.contains(key) {
            return None;
        }
        let (name, value) = self.table?.get_key_value(key)?;
        Some(Given::new(key, name.span().start, value))
    }

    /// Is the key written, right or wrong?
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    /// The value of a key, if it is there and right; a wrong one is reported.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Given<'a>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let given = self.take(key)?;
        self.parsed(&given, parse)
    }

    /// The elements of a list, each parsed for itself, so that each wrong one is reported. `None` when the key is absent
    /// or anything in it is wrong.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&Given<'a>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        self.places(key, example, parse).map(|items| items.into_iter().map(|(_, item)| item).collect())
    }

    /// As [`Self::list`], with the offset of each element.
    pub(super) fn places<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&Given<'a>) -> Result<T, Wrong>,
    ) -> Option<Vec<(usize, T)>> {
        let given = self.take(key)?;
        let DeValue::Array(elements) = given.value else {
            self.report(&given, given.of_wrong_type(&format!("write a list, such as {example}")));
            return None;
        };
        let parsed: Vec<Option<(usize, T)>> = elements
            .iter()
            .map(|element| Given::element(key, element))
            .map(|element| self.parsed(&element, &parse).map(|item| (element.at, item)))
            .collect();
        parsed.into_iter().collect()
    }

    /// The table under a key. `Section::absent` when there is none, or when it is no table (which is reported).
    pub(super) fn table(&mut self, key: &'static str, title: &'static str) -> Self {
        self.table_if_given(key, title).unwrap_or_else(|| Self::absent(self.context, title))
    }

    pub(super) fn table_if_given(&mut self, key: &'static str, title: &'static str) -> Option<Self> {
        let given = self.take(key)?;
        match given.value {
            DeValue::Table(table) => Some(Self::new(self.context, title, given.at, table)),
            DeValue::Array(_) if title.starts_with('[') => {
                self.report(&given, Wrong::new(format!("`{key}` is a list"), format!("write {title}, once")));
                None
            }
            _ => {
                let remedy = if title.starts_with('[') {
                    format!("write a section {title}")
                } else {
                    format!("write a table, {key} = {{ … }}")
                };
                self.report(&given, given.of_wrong_type(&remedy));
                None
            }
        }
    }

    /// Every entry, for tables whose keys are the operator's own.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, usize, &'a Spanned<DeValue<'a>>)> {
        self.table.into_iter().flatten().map(|(key, value)| (key.get_ref().as_ref(), key.span().start, value))
    }

    /// Does it stand in the file?
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Was everything read that was written of this section? Only then can something be missing.
    pub(super) fn is_whole(&self) -> bool {
        let lost = self.context.lost;
        lost.spared(self.at) && (self.table.is_some() || lost.has_every_section())
    }

    /// Says that a key must be there, unless it may be among what could not be read.
    pub(super) fn report_missing(&self, key: &str, remedy: impl Into<String>) {
        if self.is_whole() {
            self.context.problems.add(self.at, format!("{} has no `{key}`", self.title), remedy);
        }
    }

    /// Refuses a key that has no meaning here; its value is not looked at any more.
    pub(super) fn refuse(&mut self, key: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        if let Some(given) = self.take(key) {
            self.context.problems.add(given.key_at, what, remedy);
        }
        self.refused.insert(key);
    }

    /// Reports at the key, if it is there, else at the section: for rules over several keys.
    pub(super) fn report_at(
        &mut self,
        key: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let at = self.take(key).map_or(self.at, |given| given.at);
        self.context.problems.add(at, what, remedy);
    }

    /// What `key` names may come later: what needs it waits.
    pub(super) fn report_pending(&mut self, key: &'static str, what: &str, remedy: &str) {
        let at = self.take(key).map_or(self.at, |given| given.at);
        self.context.problems.add_pending(at, format!("`{key}` {what}"), remedy);
    }

    pub(super) fn report(&self, given: &Given<'_>, wrong: Wrong) {
        self.context.problems.add(given.at, wrong.what, wrong.remedy);
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, at, _) in self.entries() {
            if !self.asked.contains(key) {
                let remedy = keys::remedy(key, self.title, &self.asked);
                let what = format!("unknown key `{}` in {}", super::value::clipped(key), self.title);
                self.context.problems.add(at, what, remedy);
            }
        }
    }

    fn parsed<T>(&self, given: &Given<'a>, parse: impl Fn(&Given<'a>) -> Result<T, Wrong>) -> Option<T> {
        parse(given).map_err(|wrong| self.report(given, wrong)).ok()
    }
}
