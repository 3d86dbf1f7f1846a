//! A relay with a certificate of its own making: whom a password goes to.
use super::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

/// Certificate and key, for 127.0.0.1, signed by itself.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/alert/tests/relay.pem");

/// Answers one conversation over STARTTLS; every command that it was sent goes to `heard`.
fn relay(heard: std::sync::mpsc::Sender<String>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        let mut plain = BufReader::new(stream.try_clone()?);
        converse(&mut plain, &stream, "STARTTLS", &heard)?;
        let tls = StreamOwned::new(ServerConnection::new(settings()).expect("settings"), stream);
        secured(tls, &heard)
    });
    port
}

fn settings() -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let certificate = CertificateDer::from_pem_file(OWN).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(OWN).expect("a key");
    let settings = versions.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
    Arc::new(settings.expect("a pair"))
}

/// The plain half: up to the answer to STARTTLS.
fn converse(
    lines: &mut impl BufRead,
    mut out: &TcpStream,
    last: &str,
    heard: &std::sync::mpsc::Sender<String>,
) -> std::io::Result<()> {
    out.write_all(b"220 own ESMTP\r\n")?;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let command = line.trim_end().to_owned();
        line.clear();
        let ends = command == last;
        out.write_all(if ends { b"220 go on\r\n" } else { b"250-own\r\n250 STARTTLS\r\n" })?;
        let _ = heard.send(command);
        if ends {
            break;
        }
    }
    Ok(())
}

fn secured(
    mut tls: StreamOwned<ServerConnection, TcpStream>,
    heard: &std::sync::mpsc::Sender<String>,
) -> std::io::Result<()> {
    let mut line = String::new();
    let mut in_text = false;
    loop {
        line.clear();
        if BufReader::with_capacity(1, &mut tls).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let command = line.trim_end();
        let answer: &[u8] = match command.get(..4) {
            _ if in_text && command == "." => b"250 taken\r\n",
            _ if in_text => continue,
            Some("EHLO") => b"250-own\r\n250 AUTH PLAIN\r\n",
            Some("AUTH") => b"235 welcome\r\n",
            Some("DATA") => b"354 go on\r\n",
            Some("QUIT") => b"221 bye\r\n",
            _ => b"250 fine\r\n",
        };
        in_text = command == "DATA";
        let _ = heard.send(command.to_owned());
        tls.write_all(answer)?;
    }
}

fn send(login: bool, ca: bool) -> (Trial, Vec<String>) {
    let (heard, commands) = channel();
    let login =
        login.then(|| Login { username: "me".to_owned(), password: Password::Known("hunter2".to_owned()) });
    let settings = Relay {
        security: Security::Offered,
        host: "127.0.0.1".to_owned(),
        port: relay(heard),
        login,
        ca: ca.then(|| PathBuf::from(OWN)),
        hello: "gpu1".to_owned(),
    };
    let trial = send_test(&settings, &letterhead(&["a@x.example"]), Patience::default());
    (trial, commands.try_iter().collect())
}

fn logged_in(commands: &[String]) -> bool {
    commands.iter().any(|command| command.starts_with("AUTH"))
}

#[test]
fn a_password_does_not_go_to_a_relay_that_cannot_be_verified() {
    let (trial, commands) = send(true, false);
    let trouble = trial.accepted.expect_err("nobody vouches for this relay");
    assert_eq!(trouble.stage, Stage::Tls, "{trouble}");
    assert!(!logged_in(&commands), "{commands:?}");
    assert!(trouble.to_string().contains("UnknownIssuer"), "{trouble}");
    assert!(trouble.remedy().contains("in `ca`"), "{}", trouble.remedy());

    let (trial, commands) = send(true, true);
    assert_eq!(trial.accepted.expect("its certificate is known").0, "250 taken");
    assert!(trial.encrypted == Some(true) && logged_in(&commands), "{commands:?}");

    // Without a password nothing was promised, and any encryption is better than none.
    let (trial, commands) = send(false, false);
    assert_eq!(trial.accepted.expect("it is taken").0, "250 taken");
    assert!(trial.encrypted == Some(true) && !logged_in(&commands), "{commands:?}");
}
