//! PURE. A stream of server-sent events: handed on, or put together for a client that wants one object.
use super::{NO_ROOM, Piece, Reading, Wants};
use crate::kinds::{self, Assembly};
use crate::proxy::limits::{EVENT_BYTES, HELD_ANSWER_BYTES};
use crate::proxy::stream::{Choices, Cut, Meaning, Said, Splitter, data_of, event_of, with_line_feeds};
use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Events {
    splitter: Splitter,
    pub choices: Choices,
    whole: Option<Whole>,
}

/// The object that the client wants.
#[derive(Debug)]
struct Whole {
    assembly: Assembly,
    /// Of events that went into it.
    bytes: usize,
}

impl Events {
    pub fn new(wants: &Wants) -> Self {
        let whole = || Whole { assembly: Assembly::new(wants.endpoint), bytes: 0 };
        Self {
            splitter: Splitter::new(Cut::BlankLine, EVENT_BYTES),
            choices: Choices::new(wants.endpoint, wants.choices),
            whole: (!wants.events).then(whole),
        }
    }

    pub fn held(&self) -> usize {
        self.splitter.held() + self.whole.as_ref().map_or(0, |whole| whole.bytes)
    }

    pub fn let_go(&mut self) -> Result<Option<Bytes>, &'static str> {
        if self.whole.is_some() { Err(NO_ROOM) } else { Ok(self.splitter.let_go()) }
    }

    pub fn is_letting_go(&self) -> bool {
        self.splitter.is_letting_go()
    }

    pub fn push(&mut self, mut data: Bytes) -> Reading {
        let splitter = &mut self.splitter;
        let read = splitter.rest_of(&mut data).and_then(|rest| Ok((rest, splitter.push(&data)?)));
        let Ok((rest, events)) = read else { return Reading::Damaged("sent an event without end") };
        let rest = rest.map(|bytes| Piece { bytes, meaning: Meaning::Content });
        let pieces = rest.into_iter().chain(events.into_iter().map(|event| self.read(event))).collect();
        if self.whole.as_ref().is_some_and(|whole| whole.bytes > HELD_ANSWER_BYTES) {
            return Reading::Damaged("sent a stream that is too large to be put together");
        }
        Reading::Pieces(pieces)
    }

    fn read(&mut self, event: Bytes) -> Piece {
        let event = event.slice_ref(kinds::without_mark(&event));
        let Said { meaning, chunk, mended } = self.choices.read(data_of(&event).as_deref());
        let Some(whole) = &mut self.whole else {
            let bytes = match mended {
                Some(json) => event_of(&json),
                None if meaning == Meaning::Done => event_of(b"[DONE]"),
                None => with_line_feeds(event),
            };
            return Piece { bytes, meaning };
        };
        whole.bytes += event.len();
        whole.assembly.take(&chunk);
        match meaning {
            Meaning::Content | Meaning::Ending => Piece { bytes: Bytes::new(), meaning: Meaning::Gathered },
            Meaning::Done if self.choices.complete() => self.done(),
            // It is no piece of what the client gets.
            Meaning::Opening => Piece { bytes: Bytes::new(), meaning: Meaning::Nothing },
            meaning => Piece { bytes: Bytes::new(), meaning },
        }
    }

    /// The end of an answer that is whole.
    fn done(&mut self) -> Piece {
        let bytes = match &mut self.whole {
            Some(whole) => Bytes::from(whole.assembly.whole().to_string()),
            None => event_of(b"[DONE]"),
        };
        Piece { bytes, meaning: Meaning::Done }
    }

    /// What is left when nothing more will come, and the end that the upstream left out.
    pub fn finish(&mut self) -> Vec<Piece> {
        let rest = self.splitter.rest().filter(|rest| !rest.trim_ascii().is_empty());
        // The client needs the blank line that the upstream left out.
        let rest = rest.map(|rest| self.read(Bytes::from([&rest, &b"\n\n"[..]].concat())));
        let is_certain = self.choices.certain();
        // Of a whole answer an event that breaks off is no part.
        let mut pieces: Vec<Piece> =
            rest.into_iter().filter(|piece| !(is_certain && piece.meaning == Meaning::Garbage)).collect();
        let has_end = pieces.iter().any(|piece| matches!(piece.meaning, Meaning::Done | Meaning::Failed(..)));
        if is_certain && !has_end {
            pieces.push(self.done());
        }
        pieces
    }
}
