//! The thread that takes mail from the outbox to the relay.
//!
//! It wakes for a new mail and when a pause is over, tries every mail that is due, the oldest first, and rests. Nobody
//! waits for it: when the agent ends in the middle of a conversation, the mail is still in the outbox. Only a mail whose
//! text has gone out already gets a moment for the relay's answer, so that it need not go out again.
use super::outbox::{Envelope, Outbox, Waiting};
use super::outcome::{Outcome, Ticket};
use super::post::PostKind;
use super::relay::{Patience, Relay, Session};
use super::schedule::{Pace, Schedule};
use super::trouble::Trouble;
use crate::clock;
use crate::policy::Moment;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::sync::watch;

/// Mails in one round on which the relay broke off, after which the relay is at fault and not a mail.
const BROKEN_MAX: usize = 2;
/// How long a finished conversation may take to end when the agent does.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Courier {
    stop: watch::Sender<bool>,
    /// Closed by the thread's end.
    ended: Receiver<()>,
}

impl Courier {
    /// Starts the thread; what is in the outbox is tried at once.
    ///
    /// # Errors
    /// When there is no thread or no runtime to be had.
    pub fn start(relay: Relay, outbox: Outbox, patience: Patience, pace: Pace) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = channel();
        let schedule = Schedule::new(pace, clock::now());
        let done = BTreeSet::new();
        let rounds =
            Rounds { relay, outbox, patience, schedule, stopped, pace, done, chance: RandomState::new() };
        std::thread::Builder::new().name("courier".into()).spawn(move || {
            let _end: Sender<()> = end;
            runtime.block_on(rounds.work());
            // A name's look-up may hang; nobody waits for it.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, ended })
    }

    /// Ends the thread. Takes no time, except for a mail that is on the relay's table: a second at most.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        // Nothing is ever sent: it is the thread's end that is heard.
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

struct Rounds {
    relay: Relay,
    outbox: Outbox,
    patience: Patience,
    pace: Pace,
    schedule: Schedule,
    stopped: watch::Receiver<bool>,
    /// Sent, and yet there: their files could not be removed. They must not go out again; no other mail of this
    /// agent's gets the same number.
    done: BTreeSet<u64>,
    chance: RandomState,
}

/// How one mail fared.
enum Fate {
    Done,
    Refused,
    /// The conversation is over.
    Broken,
    Stopped,
}

impl Rounds {
    async fn work(mut self) {
        while !*self.stopped.borrow() {
            let next = self.round().await;
            let pause = next.map(|at| at.since(clock::now()));
            let mut stopped = self.stopped.clone();
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = self.outbox.rung() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Tries what is due; when to come again.
    async fn round(&mut self) -> Option<Moment> {
        let now = clock::now();
        let numbers = match self.outbox.numbers() {
            Ok(numbers) => self.not_done(numbers),
            Err(why) => {
                self.outbox.tell(&Outcome::Stuck { why: why.to_string() });
                return Some(now + self.pace.longest);
            }
        };
        self.schedule.know(&numbers, now);
        let (mut session, mut broken) = (None, 0);
        for number in self.schedule.due(now) {
            let Some(mut mail) = self.opened(number) else { continue };
            let open = match session.take() {
                Some(open) => open,
                None => match self.connected().await {
                    Some(Ok(open)) => open,
                    Some(Err(trouble)) => {
                        self.relay_failed(&trouble, &numbers);
                        break;
                    }
                    None => return None,
                },
            };
            let (fate, open) = self.deliver(number, &mut mail, open).await;
            session = Some(open);
            match fate {
                Fate::Done | Fate::Refused => self.schedule.relay_answered(clock::now()),
                Fate::Broken => {
                    session = None;
                    broken += 1;
                }
                Fate::Stopped => return None,
            }
            if broken == BROKEN_MAX {
                let chance = self.chance();
                self.schedule.relay_failed(clock::now(), chance);
                break;
            }
        }
        if let Some(session) = session {
            session.close().await;
        }
        if let Ok(left) = self.outbox.numbers() {
            let left = self.not_done(left);
            self.schedule.know(&left, clock::now());
        }
        self.schedule.next()
    }

    fn not_done(&self, numbers: Vec<u64>) -> Vec<u64> {
        numbers.into_iter().filter(|number| !self.done.contains(number)).collect()
    }

    /// `None` when the agent ends.
    async fn connected(&self) -> Option<Result<Session, Trouble>> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => None,
            session = Session::open(&self.relay, self.patience) => Some(session),
        }
    }

    /// The mail, unless it is gone or damaged; what is damaged is put aside.
    fn opened(&mut self, number: u64) -> Option<Waiting> {
        match self.outbox.open(number) {
            Ok(mail) => Some(mail),
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(why) if why.kind() == io::ErrorKind::InvalidData => {
                let mail = Ticket {
                    message_id: String::new(),
                    kind: PostKind::Alert,
                    ids: Vec::new(),
                    subject: format!("mail {number}"),
                };
                self.give_up(number, mail, format!("its file is damaged: {why}"));
                None
            }
            Err(why) => {
                self.outbox.tell(&Outcome::Stuck { why: why.to_string() });
                let chance = self.chance();
                self.schedule.mail_failed(number, clock::now(), chance);
                None
            }
        }
    }

    async fn deliver(&mut self, number: u64, mail: &mut Waiting, mut session: Session) -> (Fate, Session) {
        let mut stopped = self.stopped.clone();
        let Envelope { from, to, .. } = &mail.envelope;
        let offered = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return (Fate::Stopped, session),
            offered = session.offer(from, to) => offered,
        };
        let taken = match offered {
            Ok(refused) => session.hand_over(&mail.bytes, refused).await,
            Err(trouble) => Err(trouble),
        };
        match taken {
            Ok(taken) => {
                // Before anything else: from here to the file's end, a crash would send it twice.
                self.settle(number, mail, &taken.refused);
                self.outbox.tell(&Outcome::Sent { mail: mail.envelope.ticket(), reply: taken.reply });
                if let Some((receiver, trouble)) = taken.refused.into_iter().next() {
                    self.mail_failed(number, mail, &trouble.about(&receiver));
                }
                (Fate::Done, session)
            }
            Err(trouble) => {
                let goes_on = trouble.is_refusal() && session.reset().await.is_ok();
                self.mail_failed(number, mail, &trouble);
                (if goes_on { Fate::Refused } else { Fate::Broken }, session)
            }
        }
    }

    /// The relay has it, for all but these.
    fn settle(&mut self, number: u64, mail: &mut Waiting, refused: &[(String, Trouble)]) {
        let written = if refused.is_empty() {
            self.outbox.remove(number)
        } else {
            mail.envelope.to = refused.iter().map(|(receiver, _)| receiver.clone()).collect();
            self.outbox.update(number, mail)
        };
        if let Err(why) = written {
            self.done.insert(number);
            self.outbox.tell(&Outcome::Stuck { why: format!("{why}; what was sent is not sent again") });
        }
    }

    fn mail_failed(&mut self, number: u64, mail: &mut Waiting, trouble: &Trouble) {
        let (now, chance) = (clock::now(), self.chance());
        let why = self.outbox.redacted(&trouble.to_string());
        mail.envelope.attempts = mail.envelope.attempts.saturating_add(1);
        mail.envelope.last = Some(why.clone());
        if self.is_hopeless(number, &mail.envelope) {
            return self.give_up(number, mail.envelope.ticket(), why);
        }
        // A note for whoever looks; without it the mail is tried all the same.
        let _ = self.outbox.update(number, mail);
        let again = self.schedule.mail_failed(number, now, chance);
        let (mail, permanent) = (mail.envelope.ticket(), trouble.is_permanent());
        self.outbox.tell(&Outcome::Refused { mail, why, permanent, again });
    }

    fn relay_failed(&mut self, trouble: &Trouble, numbers: &[u64]) {
        let why = self.outbox.redacted(&trouble.to_string());
        for number in numbers {
            let Some(mail) = self.opened(*number) else { continue };
            if self.is_hopeless(*number, &mail.envelope) {
                self.give_up(*number, mail.envelope.ticket(), why.clone());
            }
        }
        let (now, chance) = (clock::now(), self.chance());
        let again = self.schedule.relay_failed(now, chance);
        self.outbox.tell(&Outcome::Unreachable { why, waiting: numbers.len(), again });
    }

    fn is_hopeless(&self, number: u64, envelope: &Envelope) -> bool {
        let age = u64::try_from(clock::wall_ms() - envelope.queued_ms).unwrap_or(0);
        self.schedule.is_hopeless(number, Duration::from_millis(age), clock::now())
    }

    fn give_up(&mut self, number: u64, mail: Ticket, why: String) {
        if let Err(stuck) = self.outbox.give_up(number) {
            self.done.insert(number);
            self.outbox.tell(&Outcome::Stuck { why: stuck.to_string() });
        }
        self.outbox.tell(&Outcome::GivenUp { mail, why });
    }

    fn chance(&self) -> u64 {
        self.chance.hash_one(clock::now().as_nanos())
    }
}
