//! One mail, now, to see that mail arrives.
use super::compose;
use super::message::{self, Letterhead};
use super::relay::{Patience, Relay, Session};
use super::trouble::{Stage, Trouble};
use crate::clock;

/// How far it got.
#[derive(Debug)]
pub struct Trial {
    /// Is it encrypted? `None` when there was no conversation.
    pub encrypted: Option<bool>,
    /// The relay's word that it has the mail, and who it has it not for.
    pub accepted: Result<(String, Vec<(String, Trouble)>), Trouble>,
}

/// Sends a test mail past the outbox. Takes as long as the relay does, within `patience`.
pub fn send_test(relay: &Relay, letterhead: &Letterhead, patience: Patience) -> Trial {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            let trouble = Trouble::broken(Stage::Connect, why.to_string());
            return Trial { encrypted: None, accepted: Err(trouble) };
        }
    };
    let trial = runtime.block_on(converse(relay, letterhead, patience));
    runtime.shutdown_background();
    trial
}

async fn converse(relay: &Relay, letterhead: &Letterhead, patience: Patience) -> Trial {
    let mut session = match Session::open(relay, patience).await {
        Ok(session) => session,
        Err(trouble) => return Trial { encrypted: None, accepted: Err(trouble) },
    };
    let accepted = hand_over(&mut session, letterhead).await;
    let encrypted = Some(session.encrypted);
    session.close().await;
    Trial { encrypted, accepted }
}

async fn hand_over(
    session: &mut Session,
    letterhead: &Letterhead,
) -> Result<(String, Vec<(String, Trouble)>), Trouble> {
    let at_ms = clock::wall_ms();
    let text = compose::test_mail(&letterhead.host, &clock::rfc3339(at_ms));
    let id = message::new_id(letterhead, at_ms);
    let bytes = message::build(letterhead, &text, &id, None, at_ms)
        .map_err(|why| Trouble::refused(Stage::Message, why.to_string(), true))?;
    let to: Vec<String> = letterhead.to.iter().map(|to| to.email.to_string()).collect();
    let refused = session.offer(letterhead.from.email.as_ref(), &to).await?;
    let taken = session.hand_over(&bytes, refused).await?;
    Ok((taken.reply, taken.refused))
}
