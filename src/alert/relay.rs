//! One conversation with the relay, on lettre's connection.
//!
//! Every step has a time-out and everything the relay says has a limit, because a relay may be dead, slow or no relay
//! at all. Certificates are read for each conversation and forgotten after it: conversations are rare, and an idle agent
//! shall not carry them.
use super::trouble::{Stage, Trouble};
use crate::lookout;
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::transport::smtp::response::Response;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a relay may say in one conversation, in bytes. lettre looks at a line's length when the line has ended.
const SAID_MAX: usize = 1 << 20;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// The server that takes the mail.
#[derive(Clone, Debug)]
pub struct Relay {
    pub security: Security,
    /// A name or a numeric address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub login: Option<Login>,
    /// Certificates in PEM that count beside the system's.
    pub ca: Option<PathBuf>,
    /// What this host calls itself.
    pub hello: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS when the relay offers it.
    Offered,
    /// STARTTLS, or no mail.
    Required,
    /// TLS from the first byte.
    Wrapped,
}

#[derive(Clone)]
pub struct Login {
    pub username: String,
    pub password: Password,
}

#[derive(Clone)]
pub enum Password {
    Known(String),
    /// It is not there yet: looked for before each conversation. An error says what is wrong with it. May hang.
    Late(Look),
}

pub type Look = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

impl Login {
    /// The password, as it is now.
    async fn password(&self, limit: Duration) -> Result<String, Trouble> {
        let look = match &self.password {
            Password::Known(password) => return Ok(password.clone()),
            Password::Late(look) => Arc::clone(look),
        };
        let lookout = lookout::on("the password for mail");
        let look = lookout.look(move || look());
        let found = match tokio::time::timeout(limit, look).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => Err("its file cannot be read in time".to_owned()),
        };
        found.map_err(|why| Trouble::broken(Stage::Password, why))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Relay {
    /// Is it TLS or nothing? A password never goes out in clear.
    pub fn needs_tls(&self) -> bool {
        self.security != Security::Offered || self.login.is_some()
    }

    /// smtp:// promises nothing, so any certificate is better than none, as mail servers have it among themselves; whoever
    /// wants more asks for it by the relay's form or by a `ca`. A password goes to nobody whom nobody vouches for.
    pub fn verifies(&self) -> bool {
        self.security != Security::Offered || self.ca.is_some() || self.login.is_some()
    }

    fn hello(&self) -> ClientId {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if self.hello.is_empty() || !self.hello.chars().all(is_name) {
            return ClientId::default();
        }
        ClientId::Domain(self.hello.clone())
    }

    fn tls(&self) -> Result<TlsParameters, Trouble> {
        let wrong = |why: String| Trouble::broken(Stage::Certificates, why);
        let mut tls = TlsParameters::builder(self.host.clone());
        if !self.verifies() {
            tls = tls
                .certificate_store(CertificateStore::None)
                .dangerous_accept_invalid_certs(true)
                .dangerous_accept_invalid_hostnames(true);
        }
        if let Some(path) = &self.ca {
            let named = |why: &dyn fmt::Display| wrong(format!("{}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|why| named(&why))?;
            if !pem.windows(17).any(|window| window == b"BEGIN CERTIFICATE") {
                return Err(named(&"it holds no certificate"));
            }
            tls = tls.add_root_certificate(Certificate::from_pem(&pem).map_err(|why| named(&why))?);
        }
        tls.build().map_err(|why| wrong(why.to_string()))
    }
}

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one address.
    pub connect: Duration,
    /// For the answer to a command, the greeting and the TLS handshake.
    pub command: Duration,
    /// For the answer to the whole mail. Relays look for spam and viruses before they give it, and whoever gives up too
    /// early sends the mail twice.
    pub message: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), command: seconds(30), message: seconds(120) }
    }
}

/// What the relay made of a mail.
pub(super) struct Taken {
    /// "250 2.0.0 Ok: queued as 4B3F".
    pub(super) reply: String,
    /// Who it was not taken for.
    pub(super) refused: Vec<(String, Trouble)>,
}

pub(super) struct Session {
    connection: AsyncSmtpConnection,
    patience: Patience,
    pub(super) encrypted: bool,
}

impl Session {
    /// Connects, encrypts and logs in, as far as the relay's settings say.
    pub(super) async fn open(relay: &Relay, patience: Patience) -> Result<Self, Trouble> {
        let login = match &relay.login {
            Some(login) => Some((login, login.password(patience.command).await?)),
            None => None,
        };
        let may_be_plain = !relay.needs_tls() && !relay.verifies();
        let mut session = match Self::encrypted(relay, patience).await {
            // A relay whose TLS is broken or of another age still takes mail, and nothing better was asked for.
            Err(trouble) if may_be_plain && trouble.stage == Stage::Tls => {
                Self::greeted(relay, patience).await?
            }
            session => session?,
        };
        if let Some((login, password)) = login {
            session.log_in(&login.username, &password).await?;
        }
        Ok(session)
    }

    async fn encrypted(relay: &Relay, patience: Patience) -> Result<Self, Trouble> {
        let hello = relay.hello();
        if relay.security == Security::Wrapped {
            let tls = relay.tls()?;
            let place = (relay.host.as_str(), relay.port);
            let limit = patience.connect + patience.command;
            let connected =
                AsyncSmtpConnection::connect_tokio1(place, Some(patience.connect), &hello, Some(tls), None);
            let connection = within(limit, Stage::Tls, connected).await?;
            return Ok(Self { connection, patience, encrypted: true });
        }
        let mut session = Self::greeted(relay, patience).await?;
        if session.connection.can_starttls() {
            let tls = relay.tls()?;
            let upgraded = session.connection.starttls(tls, &hello);
            within(patience.command, Stage::Tls, upgraded).await?;
            session.encrypted = true;
        } else if relay.needs_tls() {
            let why = match relay.login {
                Some(_) => "the relay offers no STARTTLS, and a password does not go out without TLS",
                None => "the relay offers no STARTTLS",
            };
            return Err(Trouble::broken(Stage::NoTls, why));
        }
        Ok(session)
    }

    /// A plain connection, up to the answer to EHLO.
    async fn greeted(relay: &Relay, patience: Patience) -> Result<Self, Trouble> {
        let stream = connect(relay, patience).await?;
        let hello = relay.hello();
        let greeted = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello);
        let connection = within(patience.command, Stage::Greeting, greeted).await?;
        Ok(Self { connection, patience, encrypted: false })
    }

    async fn log_in(&mut self, username: &str, password: &str) -> Result<(), Trouble> {
        let credentials = Credentials::new(username.to_owned(), password.to_owned());
        let known = [Mechanism::Plain, Mechanism::Login];
        if self.connection.server_info().get_auth_mechanism(&known).is_none() {
            let why = "the relay offers no login of a kind that mainstay knows (PLAIN, LOGIN)";
            return Err(Trouble::broken(Stage::Login, why));
        }
        let answered = self.connection.auth(&known, &credentials);
        let done = within(self.patience.command, Stage::Login, answered).await;
        done.map(|_| ()).map_err(|trouble| trouble.without(password))
    }

    /// Up to the relay's word that it takes the text; returns for whom it does not. Leaving off here leaves nothing.
    pub(super) async fn offer(
        &mut self,
        from: &str,
        to: &[String],
    ) -> Result<Vec<(String, Trouble)>, Trouble> {
        let sender = address(from)?;
        let receivers: Vec<Address> = to.iter().map(|to| address(to)).collect::<Result<_, _>>()?;
        let mut parameters = Vec::new();
        if !(from.is_ascii() && to.iter().all(|to| to.is_ascii())) {
            if !self.connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                let why = "an address is not ASCII, and the relay takes no such addresses (SMTPUTF8)";
                return Err(Trouble::refused(Stage::Sender, why, true));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        self.command(Stage::Sender, Mail::new(Some(sender), parameters)).await?;
        let mut refused = Vec::new();
        for receiver in receivers {
            let name = receiver.to_string();
            match self.command(Stage::Receiver, Rcpt::new(receiver, Vec::new())).await {
                Ok(_) => {}
                Err(trouble) if trouble.is_refusal() => refused.push((name, trouble)),
                Err(broken) => return Err(broken),
            }
        }
        if refused.len() == to.len() {
            // If one of them may be taken later, it is worth waiting for.
            let by_hope = refused.into_iter().min_by_key(|(_, trouble)| trouble.is_permanent());
            let nobody = || Trouble::refused(Stage::Receiver, "there is no receiver", true);
            return Err(by_hope.map_or_else(nobody, |(name, trouble)| trouble.about(&name)));
        }
        self.command(Stage::Message, Data).await?;
        Ok(refused)
    }

    /// The mail itself. When this is left off, nobody knows whether the relay has it.
    pub(super) async fn hand_over(
        &mut self,
        bytes: &[u8],
        refused: Vec<(String, Trouble)>,
    ) -> Result<Taken, Trouble> {
        let answered = self.connection.message(bytes);
        let response = within(self.patience.message, Stage::Message, answered).await?;
        Ok(Taken { reply: reply(&response), refused })
    }

    /// Forgets a mail that was refused, so that the next one can be offered.
    pub(super) async fn reset(&mut self) -> Result<(), Trouble> {
        self.command(Stage::Sender, Rset).await.map(|_| ())
    }

    /// Says good-bye, and waits for nothing.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.connection.command(Quit)).await;
    }

    async fn command(&mut self, stage: Stage, command: impl fmt::Display) -> Result<Response, Trouble> {
        within(self.patience.command, stage, self.connection.command(command)).await
    }
}

async fn connect(relay: &Relay, patience: Patience) -> Result<Line, Trouble> {
    let place = (relay.host.as_str(), relay.port);
    let broken = |why: &io::Error| Trouble::broken(Stage::Connect, format!("{}:{}: {why}", place.0, place.1));
    let looked_up = tokio::time::timeout(patience.connect, tokio::net::lookup_host(place)).await;
    let addresses = match looked_up {
        Ok(found) => found.map_err(|why| broken(&why))?,
        Err(_) => {
            return Err(broken(&io::Error::new(io::ErrorKind::TimedOut, "the name's look-up timed out")));
        }
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses.take(ADDRESSES_MAX) {
        match tokio::time::timeout(patience.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(Line { stream, room: SAID_MAX }),
            Ok(Err(why)) => last = why,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "connecting timed out"),
        }
    }
    Err(broken(&last))
}

async fn within<T>(
    limit: Duration,
    stage: Stage,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, step).await {
        Ok(done) => done.map_err(|error| Trouble::of(stage, &error)),
        Err(_) => Err(Trouble::broken(stage, format!("no answer within {} s", limit.as_secs_f32()))),
    }
}

fn address(text: &str) -> Result<Address, Trouble> {
    text.parse().map_err(|_| Trouble::refused(Stage::Sender, format!("{text} is no mail address"), true))
}

fn reply(response: &Response) -> String {
    let words: Vec<&str> = response.message().collect();
    super::trouble::clipped(&format!("{} {}", response.code(), words.join(" ")))
}

/// The relay's end of the line, which gets no more than its share of our memory.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    /// What may still be read.
    room: usize,
}

impl AsyncTokioStream for Line {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.room == 0 {
            return Poll::Ready(Err(io::Error::other("it talks without end")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.room = self.room.saturating_sub(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
