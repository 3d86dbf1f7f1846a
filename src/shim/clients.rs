//! The far ends of the shim's socket. None of them can make the shim wait: what a client does not read is kept up to a
//! bound, and past it the client is dropped and may connect again, to be told everything that still holds.
use super::protocol::{FromShim, MESSAGE_MAX, SOCKET, ToShim};
use crate::policy::Moment;
use rustix::event::PollFlags;
use rustix::fs::Mode;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One agent, one that takes over from it, and somebody who looks.
const CLIENTS_MAX: usize = 4;
/// A listener stays ready while there is no descriptor for who waits there: so long it is not looked at then.
const PAUSE: Duration = Duration::from_millis(100);
/// Most that is kept for a client that does not read, in bytes.
const UNSENT_MAX: usize = 64 * 1024;

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    gone: bool,
}

/// The shim's socket, and who is connected to it.
#[derive(Debug)]
pub(super) struct Clients {
    listener: UnixListener,
    clients: Vec<Client>,
    path: PathBuf,
    /// When to accept again.
    paused_until: Option<Moment>,
}

impl Drop for Clients {
    /// A socket that nobody listens at would only mislead.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Clients {
    /// Listens at the run's socket, which only the owner may use.
    pub fn listen(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        let _ = std::fs::remove_file(&path);
        // With chmod(2) afterwards there would be a moment at which others may connect.
        let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let listener = UnixListener::bind(&path);
        rustix::process::umask(umask);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: Vec::new(), path, paused_until: None })
    }

    /// What to poll, and for what: the listener first, then each client.
    pub fn poll_list(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let listens = if self.paused_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let clients = self.clients.iter().map(|client| {
            let writes = if client.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            (client.stream.as_fd(), PollFlags::IN | writes)
        });
        std::iter::once((self.listener.as_fd(), listens)).chain(clients)
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.paused_until
    }

    /// The moment that [`Clients::deadline`] named may have come.
    pub fn tick(&mut self, now: Moment) {
        self.paused_until = self.paused_until.filter(|until| now < *until);
    }

    /// Accepts whoever waits, and tells them the state so far.
    pub fn accept(&mut self, now: Moment, state: &[FromShim]) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.paused_until = Some(now + PAUSE);
                    break;
                }
            };
            if self.clients.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client { stream, received: Vec::new(), unsent: Vec::new(), gone: false };
            state.iter().for_each(|message| client.send(message));
            self.clients.push(client);
        }
        self.forget_gone();
    }

    pub fn send(&mut self, message: &FromShim) {
        self.clients.iter_mut().for_each(|client| client.send(message));
        self.forget_gone();
    }

    /// Reads and writes what can be without waiting, and gives what was asked.
    pub fn turn(&mut self) -> Vec<ToShim> {
        let mut asked = Vec::new();
        for client in &mut self.clients {
            client.write();
            client.read(&mut asked);
        }
        self.forget_gone();
        asked
    }

    fn forget_gone(&mut self) {
        self.clients.retain(|client| !client.gone);
    }
}

impl Client {
    fn send(&mut self, message: &FromShim) {
        // Our own plain types cannot fail to become JSON.
        if let Ok(line) = serde_json::to_vec(message) {
            self.unsent.extend_from_slice(&line);
            self.unsent.push(b'\n');
        }
        self.write();
        self.gone |= self.unsent.len() > UNSENT_MAX;
    }

    fn write(&mut self) {
        while !self.unsent.is_empty() && !self.gone {
            match self.stream.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }

    /// One read a turn: a client that talks without end must not keep the shim from the engine's pipes.
    fn read(&mut self, asked: &mut Vec<ToShim>) {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.gone = true,
            Ok(len) => self.received.extend_from_slice(&bytes[..len]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
        while let Some(end) = self.received.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(message) => asked.push(message),
                // Not a client of ours.
                Err(_) => self.gone = true,
            }
        }
        self.gone |= self.received.len() > MESSAGE_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen() -> (tempfile::TempDir, Clients) {
        let dir = tempfile::tempdir().unwrap();
        let clients = Clients::listen(dir.path()).unwrap();
        (dir, clients)
    }

    /// Guard: without the bound in `Client::send` memory grows for as long as the client sleeps.
    #[test]
    fn a_client_that_does_not_read_is_dropped_and_the_others_are_not() {
        let (dir, mut clients) = listen();
        let sleeper = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        let mut reader = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        clients.accept(Moment::default(), &[]);
        let message = FromShim::StartFailed { errno: 0, message: "x".repeat(10_000) };
        let mut heard = vec![0; 20_000];
        let mut rounds = 0;
        while clients.clients.len() == 2 {
            clients.send(&message);
            assert!(clients.clients.iter().all(|client| client.unsent.len() <= UNSENT_MAX));
            assert!(reader.read(&mut heard).unwrap() > 0);
            rounds += 1;
            assert!(rounds < 1_000, "nobody was dropped");
        }
        assert_eq!(clients.clients.len(), 1);
        drop(sleeper);
        reader.write_all(b"{\"type\":\"kill\"}\n{\"type\":\"rel").unwrap();
        assert_eq!(clients.turn(), [ToShim::Kill]);
        reader.write_all(b"ease\"}\n").unwrap();
        assert_eq!(clients.turn(), [ToShim::Release]);
    }

    #[test]
    fn only_so_many_are_let_in() {
        let (dir, mut clients) = listen();
        let streams: Vec<UnixStream> =
            (0..9).map(|_| UnixStream::connect(dir.path().join(SOCKET)).unwrap()).collect();
        clients.accept(Moment::default(), &[]);
        assert_eq!(clients.clients.len(), CLIENTS_MAX);
        drop(streams);
        clients.turn();
        assert_eq!(clients.clients.len(), 0);
    }
}
