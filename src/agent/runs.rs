//! How a run begins: its intent is written down, it gets a port and a keeper, and its tier's seat takes it in.
use super::keeper::Keeper;
use super::launch::{self, Start};
use super::previous::{self, Intent};
use super::seat::LiveRun;
use super::tmpdir;
use super::unstarted;
use super::watch;
use super::world::World;
use crate::clock;
use crate::config::Tier;
use crate::kinds::Climb;
use crate::policy::{EngineEvent, RunId};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Orders that may wait for a keeper; policy never has more than a few for one run.
const ORDERS_MAX: usize = 16;

impl World {
    /// Makes the run's directory and writes down in it what is about to happen, before it does.
    pub(super) fn save_intent(&mut self, run: RunId) {
        let Some(tier) = self.tier_of(run) else { return };
        let intent = Intent {
            boot_id: self.boot_id.clone(),
            nonce: launch::nonce(),
            main: None,
            began: clock::now().as_nanos(),
        };
        // Its keeper tries again when old runs have made room, and starts nothing without it.
        let saved = intent.save(&previous::run_path(&self.run_dir, &tier.name, run.number));
        self.intent = Some((run, intent, saved.is_ok()));
    }

    /// Starts the run whose intent was saved just before.
    pub(super) fn start(&mut self, run: RunId) {
        let Some(tier) = self.tier_of(run) else { return };
        let (Some(local), Some((intended, intent, is_intended))) = (tier.local(), self.intent.take()) else {
            return;
        };
        debug_assert_eq!(intended, run, "policy saves the intent in the step that starts the run");
        let port = match local.port {
            Some(port) => Ok(port),
            None => self.a_port(),
        };
        let dir = previous::run_path(&self.run_dir, &tier.name, run.number);
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let tmp = tmpdir::place(&self.config.agent.state_dir, &name, &intent.nonce);
        let start = Start {
            run,
            port: *port.as_ref().unwrap_or(&0),
            dir,
            intent: &intent,
            tmp,
            cgroup: self.cgroup.as_deref(),
            secrets: &self.secrets,
            journal: self.engine_log.journal(),
        };
        let (orders, to_keeper) = mpsc::channel(ORDERS_MAX);
        let was_ready = Rc::new(Cell::new(false));
        let keeper = Keeper {
            run,
            kind: tier.kind,
            late_env: local.late_env.clone(),
            spec: launch::spec(&tier, local, &self.home, start),
            intent,
            is_intended,
            run_dir: self.run_dir.clone(),
            state_dir: self.config.agent.state_dir.clone(),
            state: Arc::clone(&self.state),
            lifeline: Rc::clone(&self.lifeline),
            sender: self.sender.clone(),
            orders: to_keeper,
            was_ready: Rc::clone(&was_ready),
            look_every: watch::look_every(local.startup.stall),
            gpus: self.gpus.clone(),
            kills: Rc::clone(&self.kills),
            echo: self.engine_log.echo(),
        };
        let live = LiveRun {
            run,
            port: *port.as_ref().unwrap_or(&0),
            pid: None,
            shim_pid: None,
            climb: Climb::new(tier.kind, clock::now()),
            height: None,
            remembered: false,
            orders,
            was_ready,
            looks: Rc::default(),
            probes: Vec::new(),
            over: false,
        };
        if let Some(seat) = self.seat_of(run) {
            seat.begin(live);
        }
        drop(match port {
            Ok(_) => tokio::task::spawn_local(keeper.keep()),
            Err(failed) => tokio::task::spawn_local(keeper.give_up(failed)),
        });
    }

    /// From the range of all engines.
    fn a_port(&mut self) -> Result<u16, EngineEvent> {
        let found = self.ports.take(clock::now());
        let found = found.map_err(|shortage| unstarted::short(shortage, "no port can be tried"))?;
        found.ok_or_else(|| unstarted::port_in_use("no port of server.engine_ports is free".to_owned()))
    }

    fn tier_of(&mut self, run: RunId) -> Option<Arc<Tier>> {
        self.seat_of(run).map(|seat| Arc::clone(&seat.tier))
    }
}
