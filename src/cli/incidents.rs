//! `mainstay incidents` and `mainstay incident ID|last`: what failed, why, what was done, and what clients felt. Read from
//! the state directory, so this works when no agent does.
mod page;
mod table;

use super::exit::Exit;
use super::screen::{Screen, complain, show, show_json};
use crate::agent::STATE_LINK;
use crate::alert::{Record, Store};
use crate::config::Environment;
use crate::control::client::Client;
use crate::printable;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// The kept incidents, the newest last.
pub fn list(client: &Client, state_dir: Option<&Path>, json: bool) -> Exit {
    let (store, screen) = (store(client, state_dir), Screen::of_stdout());
    let records = match store.load_all() {
        Ok(records) => records,
        Err(why) => return unreadable(&store, &why),
    };
    if json {
        return show_json(&pretty(&records)).into();
    }
    match records.iter().map(shown).collect::<io::Result<Vec<Record>>>() {
        Ok(records) => show(table::table(&records, screen, store.dir())).into(),
        Err(why) => unreadable(&store, &why),
    }
}

/// One of them; `last` is the newest.
pub fn one(client: &Client, state_dir: Option<&Path>, which: &str, json: bool) -> Exit {
    let (store, screen) = (store(client, state_dir), Screen::of_stdout());
    let ids = match store.ids() {
        Ok(ids) => ids,
        Err(why) => return unreadable(&store, &why),
    };
    let wanted = if which == "last" { ids.last().copied() } else { which.parse().ok() };
    let Some(id) = wanted else {
        return if which == "last" {
            complain(format_args!(
                "no incident is kept in {}: nothing has failed, or --state-dir names where they are",
                store.dir().display()
            ));
            Exit::Failed
        } else {
            complain(format_args!("{which:?} is no incident's number; `mainstay incidents` lists them"));
            Exit::Usage
        };
    };
    match store.load(id) {
        Ok(record) if json => show_json(&pretty(&record)).into(),
        Ok(record) => match shown(&record) {
            Ok(record) => show(page::page(&record, screen)).into(),
            Err(why) => unreadable(&store, &why),
        },
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            complain(format_args!("there is no incident {id}{}", kept(&ids)));
            Exit::Failed
        }
        Err(why) => unreadable(&store, &why),
    }
}

fn kept(ids: &[u64]) -> String {
    match (ids.first(), ids.last()) {
        (Some(first), Some(last)) => format!("; kept are {first} to {last}, see `mainstay incidents`"),
        _ => "; none is kept".to_owned(),
    }
}

/// Where the running agent keeps them; where none runs, where one would.
fn store(client: &Client, named: Option<&Path>) -> Store {
    let told = || client.status().ok().map(|(status, _)| PathBuf::from(status.agent.state_dir));
    let state_dir = match named {
        Some(named) => named.to_owned(),
        None => told().filter(|dir| dir.is_absolute()).or_else(|| left(client)).unwrap_or_else(usual),
    };
    Store::at(&state_dir)
}

/// Where the agent that was here last kept them.
fn left(client: &Client) -> Option<PathBuf> {
    std::fs::read_link(client.run_dir().join(STATE_LINK)).ok()
}

fn usual() -> PathBuf {
    let unit = PathBuf::from("/var/lib/mainstay");
    if unit.is_dir() { unit } else { Environment::of_process().state_dir() }
}

fn unreadable(store: &Store, why: &io::Error) -> Exit {
    complain(format_args!(
        "cannot read the incidents in {}: {why}; use the account that the agent runs as, or name the directory with \
         --state-dir",
        store.dir().display()
    ));
    if why.kind() == io::ErrorKind::PermissionDenied { Exit::NotPermitted } else { Exit::Failed }
}

/// The record with texts that are safe to show.
fn shown(record: &Record) -> io::Result<Record> {
    let mut value = serde_json::to_value(record)?;
    printable::value(&mut value);
    Ok(Record::deserialize(value)?)
}

fn pretty<T: serde::Serialize + ?Sized>(what: &T) -> String {
    let mut text = serde_json::to_string_pretty(what).unwrap_or_default();
    text.push('\n');
    text
}

/// "4.2 s", "12 min": how long it lasted, or that it goes on.
fn lasted(record: &Record) -> String {
    match record.lasted_s {
        Some(seconds) if seconds < 60.0 => format!("{seconds:.1} s"),
        Some(seconds) => super::status::paint::span((seconds * 1e3) as i64),
        None if record.is_open() => "goes on".to_owned(),
        None => "unknown".to_owned(),
    }
}
