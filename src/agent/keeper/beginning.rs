//! From the order to start a run to its shim: earlier runs, the intent, TMPDIR, late variables, the port.
use super::Keeper;
use crate::agent::{late_env, ports, previous, tmpdir, unstarted};
use crate::lookout;
use crate::policy::{Cause, EngineEvent, Nature, Remains};
use crate::shim::{self, Spawned, ToShim};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TryRecvError};

/// Between two looks at earlier runs, of which one is wedged, when they cannot be looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the state directory may take to give a run its TMPDIR.
const TMP_LIMIT: Duration = Duration::from_secs(2);
/// How long the directories of old runs may take to be removed before the new run begins all the same.
const TIDY_LIMIT: Duration = Duration::from_secs(5);

/// An error with what was being done, as what became of the run.
fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> EngineEvent {
    move |why| unstarted::not_spawned(&why, format!("{doing}: {why}"))
}

/// The end was asked for before the beginning, while disks were waited for. Other orders mean nothing yet.
fn is_called_off(orders: &mut mpsc::Receiver<ToShim>) -> bool {
    loop {
        match orders.try_recv() {
            Ok(ToShim::Term { .. } | ToShim::Kill) | Err(TryRecvError::Disconnected) => return true,
            Ok(ToShim::KillWorkers { .. } | ToShim::Release | ToShim::Ping | ToShim::Unknown) => {}
            Err(TryRecvError::Empty) => return false,
        }
    }
}

fn called_off() -> EngineEvent {
    let evidence = "it was stopped before it was started".to_owned();
    EngineEvent::SpawnFailed { cause: Cause::Asked, nature: Nature::Engine, evidence }
}

impl Keeper {
    /// Makes what the run needs, in this order: a TMPDIR of which no intent tells is removed as an old one.
    pub(super) async fn set_out(&mut self) -> Result<Spawned, EngineEvent> {
        self.write_intent()?;
        self.make_tmp().await;
        self.take_late_env().await?;
        if is_called_off(&mut self.orders) {
            return Err(called_off());
        }
        self.begin()
    }

    /// Not without an intent on disk: an agent that comes after a crash would know nothing of the run, and start another one
    /// beside it.
    fn write_intent(&mut self) -> Result<(), EngineEvent> {
        if !self.is_intended {
            // The space that old runs took has been freed since it was tried first.
            let saved = self.intent.save(&self.spec.run_dir);
            saved.map_err(failed("the run cannot be written down in the runtime directory"))?;
            self.is_intended = true;
        }
        Ok(())
    }

    /// Reads the variables that were not there when the agent started; nobody may see them from now on.
    async fn take_late_env(&mut self) -> Result<(), EngineEvent> {
        for (name, value) in late_env::read(&self.late_env, &self.spec.tier).await? {
            self.sender.secret(&value).await;
            self.spec.secrets.push(value.expose().to_owned());
            self.spec.env.insert(name, value.expose().to_owned());
        }
        Ok(())
    }

    /// Starts the shim, or says why there is none.
    fn begin(&self) -> Result<Spawned, EngineEvent> {
        let port = self.spec.port.unwrap_or(0);
        let short = |shortage| unstarted::short(shortage, &format!("port {port} cannot be tried"));
        if !ports::is_free(port).map_err(short)? {
            // Whoever it is would be asked, and believed, in the engine's place.
            return Err(unstarted::port_in_use(format!("another program listens at port {port}")));
        }
        let spawned = shim::spawn(&self.spec, self.lifeline.read.as_fd());
        spawned.map_err(failed("the shim cannot be started"))
    }

    /// Waits until no earlier run of this engine is left. False when this one is over before it began.
    pub(super) async fn alone(&mut self) -> bool {
        let (run_dir, tier, number) = (self.run_dir.clone(), self.spec.tier.clone(), self.run.number);
        let mut is_wedged = false;
        loop {
            let left = tokio::select! {
                left = previous::ended(&run_dir, &tier, number) => match left {
                    Ok(left) => left,
                    Err(_) if is_wedged => {
                        tokio::time::sleep(LOOK_AGAIN).await;
                        continue;
                    }
                    Err(why) => {
                        previous::forget(&self.spec.run_dir);
                        self.tell(failed("earlier runs of this engine cannot be looked at")(why)).await;
                        return false;
                    }
                },
                order = self.orders.recv() => match order {
                    // What is wedged is looked at, and killed, again and again anyway.
                    Some(ToShim::Term { .. } | ToShim::Kill) if is_wedged => continue,
                    Some(ToShim::Term { .. } | ToShim::Kill) | None => {
                        self.tell(called_off()).await;
                        return false;
                    }
                    Some(ToShim::KillWorkers { .. } | ToShim::Release | ToShim::Ping | ToShim::Unknown) => {
                        continue;
                    }
                },
            };
            if left.is_empty() {
                break;
            }
            // A run of an earlier agent is wedged, and so is this engine until it comes loose.
            is_wedged = true;
            self.tell(EngineEvent::Ended(Remains::Processes(left))).await;
        }
        if is_wedged {
            // Policy has given this run up; it starts the next one.
            self.tell(EngineEvent::Ended(Remains::Nothing)).await;
            return false;
        }
        // The space that an old run's files took may be what the new one's log needs.
        let lookout = lookout::on(&format!("old runs of {tier}"));
        let (state_dir, state) = (self.state_dir.clone(), Arc::clone(&self.state));
        let tidy = lookout.look(move || {
            previous::tidy(&run_dir, &tier, number);
            // Runs of another agent would not be known here.
            if state.open().is_ok()
                && let Err(why) = tmpdir::tidy(&state_dir, || previous::living(&run_dir, &tier, number))
            {
                tracing::warn!(tier, %why, "TMPDIRs of earlier runs are not removed for now");
            }
        });
        let _ = tokio::time::timeout(TIDY_LIMIT, tidy).await;
        true
    }

    /// Makes the run's TMPDIR in the state directory; where that cannot be, its shim makes one in the run's own directory.
    async fn make_tmp(&mut self) {
        let Some(place) = self.spec.tmp.clone() else { return };
        let state = Arc::clone(&self.state);
        let lookout = lookout::on(&format!("TMPDIR of {}", self.spec.tier));
        let making = lookout.look(move || state.open().and_then(|()| tmpdir::make(&place)));
        let why = match tokio::time::timeout(TMP_LIMIT, making).await {
            Ok(Some(Ok(()))) => return,
            Ok(Some(Err(why))) => why.to_string(),
            Ok(None) | Err(_) => "the disk does not answer".to_owned(),
        };
        let run = self.run.number;
        tracing::warn!(
            tier = self.spec.tier,
            run,
            why,
            "TMPDIR lies in the small runtime directory for once"
        );
        let place = self.spec.tmp.take().map(|place| place.display().to_string());
        if self.spec.env.get("TMPDIR") == place.as_ref() {
            self.spec.env.remove("TMPDIR");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_stopped_before_it_began_does_not_begin() {
        let stop = [ToShim::Kill, ToShim::Term { grace_ms: 1_000 }];
        for stop in stop {
            let (order, mut orders) = mpsc::channel(4);
            assert!(!is_called_off(&mut orders), "nobody has said a word");
            order.try_send(ToShim::KillWorkers { names: vec![] }).expect("there is room");
            assert!(!is_called_off(&mut orders), "it has no workers, and is wanted");
            order.try_send(ToShim::KillWorkers { names: vec![] }).expect("there is room");
            order.try_send(stop).expect("there is room");
            assert!(is_called_off(&mut orders));
        }
        let (order, mut orders) = mpsc::channel(1);
        drop(order);
        assert!(is_called_off(&mut orders), "nobody could stop it later");
    }
}
