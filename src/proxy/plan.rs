//! PURE. Which tiers may be asked for one request, best first; or why there is none.
use super::fingerprint::Fingerprint;
use super::history::Others;
use super::marks::Marks;
use super::numerals::Numerals;
use super::route::{RouteTable, TierRoute};
use crate::kinds::{self, Endpoint, Kind, Misfit};
use crate::policy::{Moment, Path, Standing, TierId};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What a request asks for, as far as routing goes.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub endpoint: Endpoint,
    /// The client wants a stream.
    pub streaming: bool,
    /// The model's name; `None` when there is none, or an empty one.
    pub model: Option<String>,
    /// `x-mainstay-degrade: refuse`
    pub refuses_weakened: bool,
    /// The mainstays that it went through, this one last.
    pub via: Path,
    pub body: Arc<Value>,
    pub numerals: Arc<Numerals>,
    /// Tells it from other requests.
    pub fingerprint: Fingerprint,
}

impl Ask {
    /// How many choices a whole answer has, if it is not weakened.
    pub fn choices(&self) -> usize {
        let each = self.body.get("n").and_then(Value::as_u64).map_or(1, |n| n.max(1));
        usize::try_from(each).unwrap_or(usize::MAX).saturating_mul(self.prompts())
    }

    /// The same of a weakened answer: one for each prompt.
    pub fn prompts(&self) -> usize {
        match self.body.get("prompt").filter(|_| self.endpoint == Endpoint::Completions) {
            // One prompt as its tokens is a list too.
            Some(Value::Array(prompts)) if prompts.iter().any(|prompt| !prompt.is_number()) => prompts.len(),
            _ => 1,
        }
    }
}

impl RouteTable {
    /// The open tiers that a plain chat request is asked of, best first, when it came through the instances of `via`, this
    /// one last. The door through which a simulation of several hosts uses the plan.
    pub fn ways(&self, via: &Path, now: Moment) -> Vec<TierId> {
        let ask = Ask {
            endpoint: Endpoint::Chat,
            streaming: false,
            model: None,
            refuses_weakened: false,
            via: via.clone(),
            body: json!({"messages": []}).into(),
            numerals: Arc::default(),
            fingerprint: Fingerprint(0),
        };
        let open = plan(self, &ask, now).chain.into_iter().filter(|to| to.standing == Standing::Open);
        open.map(|to| to.tier).collect()
    }
}

/// A tier that can carry the request, and is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub tier: TierId,
    pub kind: Kind,
    pub standing: Standing,
    pub first_content: Option<Duration>,
    pub between_chunks: Option<Duration>,
    pub marks: Marks,
    /// What it did for other requests.
    pub others: Others,
}

/// The tiers for one request, as things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In rank order, but those last that asked to be left alone for now.
    pub chain: Vec<Candidate>,
    /// Tiers that are to serve and could carry the request, but take no new ones now.
    pub down: Vec<TierId>,
    /// Tiers that would have been asked if they could carry the request, with the reason.
    pub skipped: Vec<(TierId, String)>,
}

/// Why nobody can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoTier {
    /// No tier or alias has this name.
    UnknownModel(String),
    /// No tier, up or down, could carry it: name and reason of each.
    NobodyCarries(Vec<(TierId, String)>),
    /// The request is wrong whichever tier gets it: a field, and what is wrong with it.
    Wrong { field: &'static str, what: String },
    /// Only weakened answers are to be had, and the client refuses them.
    OnlyWeakened,
    /// `skipped`: those that would have been asked if they could carry the request, with the reason.
    AllDown { skipped: Vec<(TierId, String)> },
}

/// Why a tier is passed over that is a mainstay itself.
const LEADS_BACK: &str = "leads back to a mainstay that the request came through";

/// Why a tier is passed over whose model is not the one that embeddings were asked of.
const OTHER_VECTORS: &str = "its vectors would be of another model";

/// The plan for `ask`. It may be made again while the request runs: tiers come and go.
pub(super) fn plan(table: &RouteTable, ask: &Ask, now: Moment) -> Plan {
    let (mut plan, mut busy) = (Plan::default(), Vec::new());
    let space = vectors_of(table, ask);
    for route in asked(table) {
        let standing = route.standing_now();
        let is_shut = standing == Standing::Closed;
        if (is_shut && !route.wanted) || (ask.refuses_weakened && weakens(route, ask)) {
            continue;
        }
        let fit = fits(route, ask, space);
        if standing != Standing::Open && route.wanted && fit.is_ok() {
            plan.down.push(route.tier);
        }
        match fit {
            _ if is_shut => {}
            Ok(()) if route.live.is_busy(now) => busy.push(candidate(route, standing, ask)),
            Ok(()) => plan.chain.push(candidate(route, standing, ask)),
            Err(misfit) => plan.skipped.push((route.tier, misfit.to_string())),
        }
    }
    // They are never left out: one of them may be the last that can answer.
    plan.chain.append(&mut busy);
    plan
}

/// Why an empty plan is empty, or of no use any more.
pub(super) fn why_none(table: &RouteTable, ask: &Ask) -> NoTier {
    let is_shut = |route: &TierRoute| route.standing_now() == Standing::Closed;
    let space = vectors_of(table, ask);
    let cannot = |route: &TierRoute| carries(route, ask, space).err();
    let misfits: Vec<_> = table.tiers.iter().filter_map(|route| Some((route, cannot(route)?))).collect();
    let nobody_carries = !table.tiers.is_empty() && misfits.len() == table.tiers.len();
    let wrong = misfits.iter().find_map(|(route, misfit)| match misfit {
        Misfit::Wrong { field, what } if nobody_carries || !is_shut(route) => Some((*field, what.clone())),
        Misfit::Wrong { .. } | Misfit::Lacks(_) => None,
    });
    if let Some((field, what)) = wrong {
        return NoTier::Wrong { field, what };
    }
    if nobody_carries {
        let reasons = misfits.into_iter().map(|(route, misfit)| (route.tier, misfit.to_string()));
        return NoTier::NobodyCarries(reasons.collect());
    }
    let only_weakened = ask.refuses_weakened
        && table.tiers.iter().any(|route| {
            weakens(route, ask) && route.standing_now() == Standing::Open && cannot(route).is_none()
        });
    if only_weakened {
        return NoTier::OnlyWeakened;
    }
    let open = table.tiers.iter().filter(|route| !is_shut(route));
    let skipped = open.filter_map(|route| Some((route.tier, fits(route, ask, space).err()?.to_string())));
    NoTier::AllDown { skipped: skipped.collect() }
}

/// The tiers that may be asked at all, up or down.
fn asked(table: &RouteTable) -> impl Iterator<Item = &TierRoute> {
    let ranks = if table.failover { table.tiers.len() } else { 1 };
    table.tiers.iter().take(ranks)
}

/// The model that embeddings are asked of; `None` for other requests. Vectors of two models cannot be compared, and
/// nothing in them shows it, so this depends on the configuration and the request, and never on which tier is up.
fn vectors_of<'a>(table: &'a RouteTable, ask: &Ask) -> Option<&'a str> {
    if ask.endpoint != Endpoint::Embeddings {
        return None;
    }
    let carries = |route: &&TierRoute| kinds::carries(route.kind, ask.endpoint, &ask.body).is_ok();
    let named = asked(table).find(|route| ask.model.as_deref() == Some(route.model.as_str()));
    // A model that was named is the one, also where none of its tiers has embeddings.
    let entry = named.or_else(|| asked(table).find(carries));
    entry.map(|route| route.model.as_str())
}

/// Is this tier one to ask, if it is up?
fn fits(route: &TierRoute, ask: &Ask, space: Option<&str>) -> Result<(), Misfit> {
    if route.leads_back(&ask.via) {
        return Err(Misfit::Lacks(LEADS_BACK.to_owned()));
    }
    carries(route, ask, space)
}

/// Could this tier ever answer? `space`: of [`vectors_of`].
fn carries(route: &TierRoute, ask: &Ask, space: Option<&str>) -> Result<(), Misfit> {
    if space.is_some_and(|model| route.model != model) {
        return Err(Misfit::Lacks(OTHER_VECTORS.to_owned()));
    }
    kinds::carries(route.kind, ask.endpoint, &ask.body)
}

/// A name that leads nowhere, if the request has one.
pub(super) fn unknown_model(table: &RouteTable, ask: &Ask) -> Option<NoTier> {
    let name = ask.model.as_deref()?;
    if table.tiers.is_empty() {
        // Nothing is known yet, so nothing is unknown.
        return None;
    }
    (!table.names().contains(&name)).then(|| NoTier::UnknownModel(name.to_owned()))
}

fn weakens(route: &TierRoute, ask: &Ask) -> bool {
    route.degrade.is_some() && ask.endpoint.generates()
}

fn candidate(route: &TierRoute, standing: Standing, ask: &Ask) -> Candidate {
    let weakened = route.degrade.as_ref().filter(|_| weakens(route, ask));
    Candidate {
        tier: route.tier,
        kind: route.kind,
        standing,
        first_content: route.first_content,
        between_chunks: route.between_chunks,
        marks: Marks {
            tier: route.name.clone(),
            model: route.model.clone(),
            notice: weakened.map(|degrade| degrade.notice.clone()),
        },
        others: route.live.others_than(ask.fingerprint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{Api, Degrade};
    use crate::policy::Leads;
    use crate::proxy::{Live, Upstream};

    fn route(rank: u16, kind: Kind, standing: Standing) -> TierRoute {
        TierRoute {
            tier: TierId(rank),
            run: None,
            name: format!("t{rank}"),
            kind,
            model: format!("m{rank}"),
            aliases: vec![format!("a{rank}")],
            upstream: Some(Upstream { host: "h".into(), port: 1, base_path: String::new(), api_key: None }),
            connect: Duration::from_secs(2),
            first_content: None,
            between_chunks: None,
            degrade: None,
            standing,
            wanted: true,
            reason: String::new(),
            brief: "",
            live: Live::new(Arc::default(), None),
        }
    }

    fn table(tiers: Vec<TierRoute>) -> RouteTable {
        RouteTable { tiers, ..RouteTable::default() }
    }

    fn ask(body: Value) -> Ask {
        let fingerprint = Fingerprint(0);
        Ask {
            endpoint: Endpoint::Chat,
            streaming: false,
            model: None,
            refuses_weakened: false,
            via: Path::default(),
            body: body.into(),
            numerals: Arc::default(),
            fingerprint,
        }
    }

    fn plain() -> Ask {
        ask(json!({"messages": [{"role": "user", "content": "hi"}]}))
    }

    fn with_tools() -> Ask {
        ask(json!({"messages": [], "tools": [{"type": "function"}]}))
    }

    fn weak(route: TierRoute) -> TierRoute {
        let degrade = Degrade { max_tokens: Some(1), temperature: None, notice: "n".into() };
        TierRoute { degrade: Some(degrade), ..route }
    }

    #[track_caller]
    fn check(table: &RouteTable, ask: &Ask, chain: &[u16], skipped: &[u16]) {
        let plan = plan(table, ask, now());
        let ranks: Vec<u16> = plan.chain.iter().map(|c| c.tier.0).collect();
        let left_out: Vec<u16> = plan.skipped.iter().map(|(tier, _)| tier.0).collect();
        assert_eq!((ranks.as_slice(), left_out.as_slice()), (chain, skipped));
    }

    fn now() -> Moment {
        crate::clock::now()
    }

    use Standing::{Closed, Leaving, Open};

    #[test]
    fn closed_tiers_are_not_asked() {
        let tiers = [(Closed, Kind::Vllm), (Open, Kind::Ollama), (Leaving, Kind::LlamaServer)];
        let tiers = tiers.into_iter().enumerate().map(|(r, (s, k))| route(r as u16, k, s)).collect();
        check(&table(tiers), &plain(), &[1, 2], &[]);
    }

    #[test]
    fn what_a_run_has_learned_counts_more_than_the_table() {
        let tiers: Vec<_> = (0..3).map(|rank| route(rank, Kind::Vllm, Open)).collect();
        tiers[0].live.cut();
        tiers[1].live.set_standing(Leaving);
        let table = table(tiers);
        check(&table, &plain(), &[1, 2], &[]);
        assert_eq!(plan(&table, &plain(), now()).chain[0].standing, Leaving);
    }

    #[test]
    fn a_tier_without_an_address_is_not_asked() {
        let tiers =
            vec![TierRoute { upstream: None, ..route(0, Kind::Vllm, Open) }, route(1, Kind::Vllm, Open)];
        check(&table(tiers), &plain(), &[1], &[]);
    }

    #[test]
    fn tiers_that_cannot_carry_the_request_are_skipped() {
        let both = table(vec![route(0, Kind::Ollama, Open), route(1, Kind::Vllm, Open)]);
        check(&both, &with_tools(), &[1], &[0]);
        let closed = table(vec![route(0, Kind::Ollama, Closed), route(1, Kind::Vllm, Closed)]);
        check(&closed, &with_tools(), &[], &[]);
        assert_eq!(why_none(&closed, &with_tools()), NoTier::AllDown { skipped: vec![] });
        let nobody = table(vec![route(0, Kind::Ollama, Closed)]);
        assert!(matches!(why_none(&nobody, &with_tools()), NoTier::NobodyCarries(_)));
        assert_eq!(why_none(&table(vec![]), &with_tools()), NoTier::AllDown { skipped: vec![] });
    }

    #[test]
    fn a_clients_mistake_is_told_by_an_open_tier_or_where_nobody_could_carry_it() {
        let wrong = ask(json!({"messages": "hi"}));
        let told = NoTier::Wrong { field: "messages", what: "messages are not a list".into() };
        let with = |remote, ollama| {
            table(vec![route(0, Kind::Remote(Api::OpenAi), remote), route(1, Kind::Ollama, ollama)])
        };
        assert_eq!(why_none(&with(Closed, Open), &wrong), told);
        assert_eq!(why_none(&with(Closed, Closed), &wrong), NoTier::AllDown { skipped: vec![] });
        assert_eq!(why_none(&table(vec![route(0, Kind::Ollama, Closed)]), &wrong), told);
        // The body went out with the first try: nothing can be said of it.
        let skipped = vec![(TierId(1), "messages are empty".into())];
        assert_eq!(why_none(&with(Closed, Open), &ask(Value::Null)), NoTier::AllDown { skipped });
    }

    #[test]
    fn a_mainstay_that_leads_back_is_skipped() {
        let tiers: Vec<_> = (0..2).map(|rank| route(rank, Kind::Remote(Api::OpenAi), Open)).collect();
        let ids = |text: &str| Path::parse(text).expect("a path");
        let (came, other) = (ids("00000000000000aa, 00000000000000bb"), ids("00000000000000cc"));
        tiers[0].live.set_leads(Leads::Peer(vec![came.clone()]));
        tiers[1].live.set_leads(Leads::Peer(vec![came.clone(), other]));
        let table = table(tiers);
        check(&table, &plain(), &[0, 1], &[]);
        check(&table, &Ask { via: came.clone(), ..plain() }, &[1], &[0]);
        let only = RouteTable { tiers: table.tiers[..1].to_vec(), ..RouteTable::default() };
        let none = why_none(&only, &Ask { via: came, ..plain() });
        assert_eq!(none, NoTier::AllDown { skipped: vec![(TierId(0), LEADS_BACK.into())] });
    }

    #[test]
    fn a_tier_that_asked_to_be_left_alone_comes_last() {
        let tiers: Vec<_> = (0..3).map(|rank| route(rank, Kind::Vllm, Open)).collect();
        tiers[0].live.leave_alone(Duration::from_secs(3_600));
        let table = table(tiers);
        check(&table, &plain(), &[1, 2, 0], &[]);
        let order = |now| plan(&table, &plain(), now).chain.first().map(|candidate| candidate.tier);
        assert_eq!(order(now() + Duration::from_secs(3_601)), Some(TierId(0)), "its time is over");
        table.tiers[1..].iter().for_each(|route| route.live.leave_alone(Duration::from_secs(3_600)));
        check(&table, &plain(), &[0, 1, 2], &[]);
    }

    #[test]
    fn a_tier_that_is_down_counts_when_it_is_to_serve_and_could_carry_the_request() {
        let down = |tiers: &[TierRoute], ask: &Ask| plan(&table(tiers.to_vec()), ask, now()).down;
        let tiers =
            [route(0, Kind::Vllm, Closed), route(1, Kind::Ollama, Leaving), route(2, Kind::Vllm, Open)];
        assert_eq!(down(&tiers, &plain()), [TierId(0), TierId(1)]);
        assert_eq!(down(&tiers, &with_tools()), [TierId(0)], "it could not carry it");
        let refusing = Ask { refuses_weakened: true, ..plain() };
        assert_eq!(down(&[weak(tiers[0].clone()), tiers[2].clone()], &refusing), []);
        let embeddings = Ask { endpoint: Endpoint::Embeddings, model: Some("m2".into()), ..plain() };
        assert_eq!(down(&tiers, &embeddings), [], "its vectors would be of another model");
        let stopped = TierRoute { wanted: false, ..route(0, Kind::Vllm, Closed) };
        assert_eq!(down(&[stopped, tiers[2].clone()], &plain()), []);
        tiers[2].live.cut();
        assert_eq!(down(&tiers[2..], &plain()), [TierId(2)], "its run has just died");
    }

    #[test]
    fn weakened_answers_can_be_refused() {
        let table = table(vec![route(0, Kind::Vllm, Closed), weak(route(1, Kind::Vllm, Open))]);
        check(&table, &plain(), &[1], &[]);
        assert_eq!(plan(&table, &plain(), now()).chain[0].marks.notice.as_deref(), Some("n"));
        let refusing = Ask { refuses_weakened: true, ..plain() };
        check(&table, &refusing, &[], &[]);
        assert_eq!(why_none(&table, &refusing), NoTier::OnlyWeakened);
        // What cannot be weakened need not be refused.
        let mut table = table;
        table.tiers[0].model = table.tiers[1].model.clone();
        let embeddings = Ask { endpoint: Endpoint::Embeddings, ..refusing };
        check(&table, &embeddings, &[1], &[]);
        assert_eq!(plan(&table, &embeddings, now()).chain[0].marks.notice, None);
    }

    #[test]
    fn embeddings_stay_with_one_model() {
        let embeddings = |model: Option<&str>| Ask {
            endpoint: Endpoint::Embeddings,
            model: model.map(str::to_owned),
            ..ask(json!({"input": "x"}))
        };
        let mut table = table((0..4).map(|rank| route(rank, Kind::Vllm, Open)).collect());
        table.tiers[2].model = "m0".into();
        for entry in [None, Some("m0"), Some("a0"), Some("a1"), Some("other")] {
            check(&table, &embeddings(entry), &[0, 2], &[1, 3]);
        }
        check(&table, &embeddings(Some("m1")), &[1], &[0, 2, 3]);
        check(&RouteTable { failover: false, ..table.clone() }, &embeddings(Some("m1")), &[0], &[]);
        // Which tier is up changes nothing.
        table.tiers[0].standing = Closed;
        check(&table, &embeddings(None), &[2], &[1, 3]);
        table.tiers[2].standing = Closed;
        check(&table, &embeddings(None), &[], &[1, 3]);
        let skipped = vec![(TierId(1), OTHER_VECTORS.into()), (TierId(3), OTHER_VECTORS.into())];
        assert_eq!(why_none(&table, &embeddings(None)), NoTier::AllDown { skipped });
        // An engine that has no embeddings is not where they enter the chain.
        table.tiers[0].kind = Kind::Ollama;
        check(&table, &embeddings(None), &[1], &[3]);
        // But the one that is named is.
        table.tiers[2].standing = Open;
        check(&table, &embeddings(Some("m0")), &[2], &[1, 3]);
        table.tiers[2].kind = Kind::Ollama;
        check(&table, &embeddings(Some("m0")), &[], &[1, 2, 3]);
        assert!(matches!(why_none(&table, &embeddings(Some("m0"))), NoTier::NobodyCarries(_)));
    }

    #[test]
    fn names_lead_into_the_chain() {
        let table = table(vec![route(0, Kind::Vllm, Open), route(1, Kind::Vllm, Open)]);
        assert_eq!(table.names(), ["m0", "m1", "a0", "a1"]);
        for (name, known) in [("m0", true), ("m1", true), ("a1", true), ("M0", false), ("gpt-9", false)] {
            let ask = Ask { model: Some(name.into()), ..plain() };
            assert_eq!(unknown_model(&table, &ask).is_none(), known, "{name}");
        }
        assert_eq!(unknown_model(&table, &plain()), None);
    }

    #[test]
    fn without_failover_there_is_one_tier() {
        let tiers = vec![route(0, Kind::Vllm, Open), route(1, Kind::Vllm, Open)];
        check(&RouteTable { failover: false, ..table(tiers) }, &plain(), &[0], &[]);
    }
}
