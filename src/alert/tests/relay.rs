//! An SMTP server of one thread that does what a script says.
use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

/// What it does when its turn has come.
pub enum Reply {
    /// As a relay that is well would.
    Usual,
    /// This line.
    Say(&'static str),
    /// Nothing, until the other side gives up.
    Hang,
    Close,
    /// Bytes without a newline, until the other side gives up.
    Babble,
}

/// The number of the conversation, from 0, and the line that is to be answered: "" for the greeting, ". SUBJECT" for the
/// end of a mail.
type Script = Box<dyn Fn(usize, &str) -> Reply + Send + Sync>;

#[derive(Default)]
struct State {
    /// Receivers and text of each mail that was answered with 250.
    taken: Mutex<Vec<(Vec<String>, String)>>,
    conversations: AtomicUsize,
    stop: AtomicBool,
}

pub struct FakeRelay {
    port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl FakeRelay {
    pub fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::on(listener, Box::new(script))
    }

    pub fn on(listener: TcpListener, script: Script) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stop.load(SeqCst) {
                    return;
                }
                let number = shared.conversations.fetch_add(1, SeqCst);
                // An end of the conversation at any point is part of the plan.
                let _ = converse(stream, &shared, |line| script(number, line));
            }
        });
        Self { port, state, thread: Some(thread) }
    }

    pub fn settings(&self) -> Relay {
        Relay {
            security: Security::Offered,
            host: "127.0.0.1".to_owned(),
            port: self.port,
            login: None,
            ca: None,
            hello: "gpu1".to_owned(),
        }
    }

    pub fn conversations(&self) -> usize {
        self.state.conversations.load(SeqCst)
    }

    /// Of each mail that it has answered for: "t1" where the subject is "[ALERT] LLM held: t1 (gpu1)".
    pub fn tiers(&self) -> Vec<String> {
        let tier = |text: &str| text.split("held: ").nth(1)?.split(' ').next().map(str::to_owned);
        self.taken().iter().filter_map(|(_, text)| tier(text)).collect()
    }

    pub fn taken(&self) -> Vec<(Vec<String>, String)> {
        self.state.taken.lock().expect("no panic").clone()
    }
}

impl Drop for FakeRelay {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn converse(mut stream: TcpStream, state: &State, script: impl Fn(&str) -> Reply) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut to, mut line) = (Vec::new(), String::new());
    loop {
        let command = line.trim_end().to_owned();
        let usual = match command.get(..4) {
            Some("EHLO") => "250-fake\r\n250 8BITMIME",
            Some("DATA") => "354 go on",
            Some("QUIT") => "221 bye",
            _ if command.is_empty() => "220 fake ESMTP",
            _ => "250 fine",
        };
        let said = match script(&command) {
            Reply::Usual => usual,
            Reply::Say(words) => words,
            Reply::Close => return Ok(()),
            Reply::Hang => return std::io::copy(&mut lines, &mut std::io::sink()).map(|_| ()),
            Reply::Babble => loop {
                stream.write_all(&[b'x'; 4_096])?;
            },
        };
        if command.starts_with("RCPT") && said.starts_with("250") {
            to.push(command["RCPT TO:<".len()..command.len() - 1].to_owned());
        }
        if command.starts_with("MAIL") || command.starts_with("RSET") {
            to.clear();
        }
        write!(stream, "{said}\r\n")?;
        line.clear();
        if command == "DATA" && said.starts_with("354") {
            let text = message(&mut lines)?;
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
            let end = script(&format!(". {subject}"));
            let said = match end {
                Reply::Usual => "250 taken",
                Reply::Say(words) => words,
                Reply::Close => return Ok(()),
                Reply::Hang | Reply::Babble => {
                    return std::io::copy(&mut lines, &mut std::io::sink()).map(|_| ());
                }
            };
            if said.starts_with("250") {
                state.taken.lock().expect("no panic").push((std::mem::take(&mut to), text));
            }
            write!(stream, "{said}\r\n")?;
        }
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
}

fn message(lines: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n.\r\n") {
        if lines.read_line(&mut text)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(text)
}
