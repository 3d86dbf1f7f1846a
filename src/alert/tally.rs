//! How mail stands, for status and metrics: counted from what is told of it.
use super::outcome::Outcome;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailTally {
    pub sent: u64,
    /// Given up, or dropped from a full outbox.
    pub lost: u64,
    pub standstill: Option<Standstill>,
    /// The Message-ID of the last mail that somebody got.
    last: String,
}

/// No mail got through since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// Of the last try, for people.
    pub why: String,
    /// On the wall clock, in milliseconds.
    pub since_ms: i64,
    /// The outbox itself takes no mail.
    pub is_stuck: bool,
}

impl MailTally {
    pub fn note(&mut self, outcome: &Outcome, now_ms: i64) {
        match outcome {
            Outcome::Sent { mail, .. } => {
                self.sent += 1;
                self.last.clone_from(&mail.message_id);
                self.standstill = None;
                return;
            }
            Outcome::GivenUp { .. } | Outcome::Dropped { .. } => self.lost += 1,
            // Some have it, and the relay does not know the others: mail gets through.
            Outcome::Refused { mail, .. } if mail.message_id == self.last => return,
            Outcome::Refused { .. } | Outcome::Unreachable { .. } | Outcome::Stuck { .. } => {}
        }
        let since_ms = self.standstill.as_ref().map_or(now_ms, |standstill| standstill.since_ms);
        let is_stuck = matches!(outcome, Outcome::Stuck { .. });
        self.standstill = Some(Standstill { why: outcome.to_string(), since_ms, is_stuck });
    }

    /// The outbox takes mail again.
    pub fn note_freed(&mut self) {
        self.standstill.take_if(|standstill| standstill.is_stuck);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{PostKind, Ticket};
    use std::time::Duration;

    #[test]
    fn a_standstill_is_as_old_as_its_first_failure_and_ends_with_a_mail_that_got_through() {
        let mail =
            Ticket { message_id: "m".into(), kind: PostKind::Alert, ids: vec![1], subject: "s".into() };
        let unreachable =
            |why: &str| Outcome::Unreachable { why: why.into(), waiting: 1, again: Duration::from_secs(9) };
        let mut tally = MailTally::default();
        tally.note(&unreachable("refused"), 1_000);
        tally.note(&unreachable("timed out"), 2_000);
        let standstill = tally.standstill.clone().expect("it stands still");
        assert_eq!(
            (standstill.since_ms, standstill.why.contains("timed out")),
            (1_000, true),
            "{standstill:?}"
        );
        tally.note(&Outcome::GivenUp { mail: mail.clone(), why: "550".into() }, 3_000);
        assert_eq!((tally.lost, tally.standstill.as_ref().map(|it| it.since_ms)), (1, Some(1_000)));
        let sent = mail.clone();
        tally.note(&Outcome::Sent { mail, reply: "250".into() }, 4_000);
        assert_eq!((tally.sent, tally.lost, &tally.standstill), (1, 1, &None));
        // The same mail, for another address.
        let why = "550 no such user".into();
        tally.note(
            &Outcome::Refused { mail: sent, why, permanent: true, again: Duration::from_secs(9) },
            5_000,
        );
        assert_eq!(tally.standstill, None);
    }

    #[test]
    fn what_only_the_disk_held_up_is_over_when_that_takes_mail_again() {
        let mut tally = MailTally::default();
        tally.note(&Outcome::Stuck { why: "read-only".into() }, 1_000);
        tally.note_freed();
        assert_eq!(tally.standstill, None);
        let (why, again) = ("refused".to_owned(), Duration::from_secs(9));
        tally.note(&Outcome::Unreachable { why, waiting: 1, again }, 2_000);
        tally.note_freed();
        assert!(tally.standstill.is_some(), "the relay does not answer all the same");
    }
}
