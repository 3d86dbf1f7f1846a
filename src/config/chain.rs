//! The tiers together: rules that no tier can keep alone.
use super::section::Section;
use super::tier::{self, Placed, Tier, Upstream};
use super::value::{Given, Wrong};
use super::{address, agent, server};
use std::collections::{BTreeMap, BTreeSet};
use toml::de::DeValue;

/// More rungs than any host has; keeps ranks small everywhere.
const MOST_TIERS: usize = 100;

pub(super) fn read(root: &mut Section<'_>, server: &server::Placed, agent: &agent::Placed) -> Vec<Tier> {
    let context = root.context;
    let mut placed = tables(root);
    distinct_names(root, &placed);
    default_models(root, &mut placed);
    distinct_ports(root, &placed, server);
    no_loops(root, &placed, server);
    if placed.len() > MOST_TIERS {
        let at = placed[MOST_TIERS].at;
        context.problems.add(at, format!("there are {} tiers", placed.len()), "keep at most 100");
    }
    let header_at = placed.first().map_or(0, |first| first.at);
    let tiers: Vec<Tier> = placed.into_iter().map(|placed| placed.tier).collect();
    if let Some(Wrong { what, remedy }) = agent::misfit(&agent.agent.run_dir, &tiers) {
        context.problems.add(agent.run_dir_at.unwrap_or(header_at), what, remedy);
    }
    tiers
}

/// Each `[[tier]]`, read.
fn tables(root: &mut Section<'_>) -> Vec<Placed> {
    let context = root.context;
    let remedy = "write [[tier]] with name, engine and model";
    let Some(given) = root.take("tier") else {
        if context.lost.has_every_section() {
            context.problems.add(0, "there is no [[tier]]", remedy);
        }
        return Vec::new();
    };
    match given.value {
        DeValue::Array(elements) => {
            if elements.is_empty() {
                context.problems.add(given.at, "there is no [[tier]]", remedy);
            }
            let mut tiers = Vec::new();
            for element in elements {
                match element.get_ref() {
                    DeValue::Table(table) => {
                        tiers.push(tier::read(Section::new(
                            context,
                            "[[tier]]",
                            element.span().start,
                            table,
                        )));
                    }
                    _ => {
                        let element = Given::element("tier", element);
                        root.report(&element, element.of_wrong_type(remedy));
                    }
                }
            }
            tiers
        }
        DeValue::Table(table) => {
            context.problems.add(given.header_at(), "[tier] is a single table", "write [[tier]]");
            vec![tier::read(Section::new(context, "[[tier]]", given.at, table))]
        }
        _ => {
            root.report(&given, given.of_wrong_type(remedy));
            Vec::new()
        }
    }
}

fn distinct_names(root: &Section<'_>, placed: &[Placed]) {
    let mut seen = BTreeSet::new();
    for Placed { tier, name_at, .. } in placed.iter().filter(|placed| !placed.tier.name.is_empty()) {
        if !seen.insert(&tier.name) {
            let what = format!("a tier above is named \"{}\" already", tier.name);
            root.context.problems.add(*name_at, what, "give each tier a name of its own");
        }
    }
}

/// A remote tier without a model is asked for the first tier's.
fn default_models(root: &Section<'_>, placed: &mut [Placed]) {
    let Some((first, others)) = placed.split_first_mut() else { return };
    if first.wants_model && root.context.lost.has_every_section() {
        let what = "the first [[tier]] has no `model`, and there is none above to take it from";
        root.context.problems.add(
            first.at,
            what,
            "write model = \"…\", the name that the remote server knows",
        );
    }
    for other in others.iter_mut().filter(|other| other.wants_model) {
        other.tier.model.clone_from(&first.tier.model);
    }
}

/// Every fixed port is one engine's alone, and the range has one to spare: a port is not used again for a minute.
fn distinct_ports(root: &Section<'_>, placed: &[Placed], server: &server::Placed) {
    let mut fixed: BTreeMap<u16, &str> = BTreeMap::new();
    let mut from_range: u32 = 0;
    let (first, last) = server.server.engine_ports;
    let listeners = &server.server.listen;
    for Placed { tier, port_at, .. } in placed {
        let Some(local) = tier.local() else { continue };
        let Some(port) = local.port else {
            from_range += 1;
            continue;
        };
        if let Some(listener) = listeners.iter().find(|listener| listener.port() == port) {
            let what = format!("`port` is {port}, where mainstay itself listens ({listener})");
            root.context.problems.add(*port_at, what, "choose another port");
        }
        if let Some(other) = fixed.insert(port, &tier.name) {
            let what = format!("`port` is {port}, which tier \"{other}\" has already");
            root.context.problems.add(*port_at, what, "choose another port");
        }
    }
    // A fixed port may lie in the range, and is then no other engine's.
    let reserved = fixed.range(first..=last).count() as u32;
    let ports = (u32::from(last) - u32::from(first) + 1).saturating_sub(reserved);
    if from_range > 0 && ports <= from_range {
        let beside = if reserved > 0 { format!(" beside {reserved} fixed") } else { String::new() };
        let what = format!("`engine_ports` holds {ports}{beside} for {from_range} engines");
        let remedy = "give it more ports than engines, one is not used again for a minute";
        root.context.problems.add(server.engine_ports_at, what, remedy);
    }
}

/// A remote tier that is this very endpoint would send each request round for ever.
fn no_loops(root: &Section<'_>, placed: &[Placed], server: &server::Placed) {
    for Placed { tier, url_at, .. } in placed {
        let Upstream::Remote(remote) = &tier.upstream else { continue };
        let listener = server.server.listen.iter().find(|it| address::leads_to(&remote.url, **it));
        if let Some(listener) = listener {
            let what = format!("`url` leads back to mainstay itself ({listener})");
            root.context.problems.add(*url_at, what, "name another server");
        }
    }
}
