//! What goes wrong: engines crash and hang, the network is cut, agents end; also several of these at once.
use super::{Coming, Link, World};
use crate::simulation::fake::{Mood, ending};
use crate::simulation::pair::journey::Reply;
use crate::simulation::pair::mainstay::Role;

impl World {
    pub(super) fn fault(&mut self) {
        let place = self.dice.below(2) as usize;
        match self.dice.below(100) {
            0..20 => self.crash(place),
            20..40 => self.hang(place),
            40..60 => self.cut(),
            // Both at once.
            60..68 => {
                self.crash(place);
                self.cut();
            }
            68..74 => {
                self.crash(0);
                self.crash(1);
            }
            74..86 => self.trouble_outside(place),
            86..93 => self.cursed[place] = self.now + self.dice.seconds(10, 900),
            _ => self.agent_gone(place),
        }
    }

    fn crash(&mut self, place: usize) {
        let ending = ending(&mut self.dice);
        if let Some(run) = self.hosts[place].engine.as_ref().map(|process| process.run) {
            self.exit(place, run, ending);
        }
    }

    fn hang(&mut self, place: usize) {
        let now = self.now;
        let ready = self.hosts[place].engine.as_ref().filter(|process| process.is_loaded(now));
        let Some(run) = ready.map(|process| process.run) else { return };
        let mood = self.dice.pick(&[Mood::Hung, Mood::Frozen]);
        self.feel(place, mood);
        if self.dice.permille(300) {
            let lasts = self.dice.seconds(1, 120);
            self.enter(lasts, Coming::Recover(place, run));
        }
    }

    fn cut(&mut self) {
        self.link = self.other_than(self.link);
        self.changed_at = self.now;
        // What was open is reset, at once or when packets come through again.
        if self.link != Link::Dropping {
            self.say(|_, _, role| role == Role::Peer, Reply::Lost);
        }
    }

    fn other_than(&mut self, link: Link) -> Link {
        if link == Link::Fine { self.dice.pick(&[Link::Refusing, Link::Dropping]) } else { Link::Fine }
    }

    fn trouble_outside(&mut self, place: usize) {
        self.changed_at = self.now;
        if self.dice.permille(500) {
            self.outside[place] = self.other_than(self.outside[place]);
            if self.outside[place] != Link::Dropping {
                self.say(|_, at, role| (at, role) == (place, Role::Third), Reply::Lost);
            }
            return;
        }
        let bad = self.dice.pick(&[Mood::Refusing, Mood::Frozen]);
        self.third = if self.third == Mood::Fine { bad } else { Mood::Fine };
        let there = |world: &Self, at: usize, role| role == Role::Third && world.outside[at] == Link::Fine;
        match self.third {
            Mood::Fine => self.say(there, Reply::Answered),
            Mood::Frozen => {}
            _ => self.say(there, Reply::Lost),
        }
    }

    /// Its engine ends with it. Another one begins when nothing of that is left.
    fn agent_gone(&mut self, place: usize) {
        if !self.hosts[place].up {
            return;
        }
        self.hosts[place].up = false;
        self.hosts[place].engine = None;
        self.changed_at = self.now;
        self.desert(place);
        let pause = self.dice.seconds(1, 120);
        self.enter(pause, Coming::Back(place));
    }
}
