//! A client on a raw socket: it sees exactly what came, and how it ended.
use super::{PATIENCE, until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As its head said.
    Whole,
    /// The connection ended first.
    Cut,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    pub ending: Ending,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The code of an error of ours.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {self:?}")).to_owned()
    }

    /// The data of each event.
    pub fn events(&self) -> Vec<&str> {
        self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect()
    }

    /// The text that a stream's deltas make.
    pub fn text(&self) -> String {
        let delta = |event: &str| {
            let chunk: Value = serde_json::from_str(event).ok()?;
            let choice = chunk.pointer("/choices/0")?;
            let text = choice.pointer("/delta/content").or_else(|| choice.get("text"));
            text.and_then(Value::as_str).map(str::to_owned)
        };
        self.events().into_iter().filter_map(delta).collect()
    }

    #[track_caller]
    pub fn expect_good_by(&self, tier: &str) {
        assert_eq!((self.status, self.field("x-mainstay-tier")), (200, Some(tier)), "{self:?}");
        assert_eq!(self.ending, Ending::Whole, "{self:?}");
        if self.field("content-type").is_some_and(|t| t.starts_with("text/event-stream")) {
            assert_eq!(self.text(), "good", "{self:?}");
            assert_eq!(self.events().last(), Some(&"[DONE]"), "{self:?}");
            let first: Value = serde_json::from_str(self.events()[0]).unwrap();
            assert_eq!(first["_backend"], tier, "{self:?}");
        } else {
            assert!(self.body.contains("good"), "{self:?}");
            assert_eq!(self.json()["_backend"], tier, "{self:?}");
        }
    }
}

/// A JSON request.
pub fn post(path: &str, body: &Value) -> String {
    post_with(path, "", body)
}

/// A JSON request with more header fields, each ended by CR LF.
pub fn post_with(path: &str, fields: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: mainstay\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: mainstay\r\n\r\n")
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends one request and reads its answer.
#[track_caller]
pub fn ask(port: u16, request: &str) -> Answer {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut stream, request.starts_with("HEAD "))
}

/// Sends what may be refused while it is still being sent, and reads what comes until the end.
pub fn provoke(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
pub fn read_answer(stream: &mut TcpStream, no_body: bool) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte =
            read_byte(stream).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&head)));
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: String::new(), ending: Ending::Whole };
    if no_body || status == 204 || status < 200 {
        return answer;
    }
    let (body, ending) = if answer.field("transfer-encoding") == Some("chunked") {
        read_chunked(stream)
    } else {
        let length = answer.field("content-length").expect("a length").parse().unwrap();
        let mut body = vec![0; length];
        match stream.read_exact(&mut body) {
            Ok(()) => (body, Ending::Whole),
            Err(_) => (Vec::new(), Ending::Cut),
        }
    };
    answer.body = String::from_utf8(body).unwrap();
    answer.ending = ending;
    answer
}

fn read_byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

fn read_chunked(stream: &mut TcpStream) -> (Vec<u8>, Ending) {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let Some(byte) = read_byte(stream) else { return (body, Ending::Cut) };
            line.push(byte);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        if stream.read_exact(&mut chunk).is_err() {
            return (body, Ending::Cut);
        }
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return (body, Ending::Whole);
        }
    }
}

/// Waits until one of the connections is closed, and takes it out. Which one of several was idle longest only the proxy knows:
/// it may learn a little later than its client that an answer was written.
pub fn await_one_that_left(clients: &mut Vec<TcpStream>) {
    let before = clients.len();
    until("a client has left", || {
        clients.retain_mut(|client| {
            client.set_nonblocking(true).unwrap();
            let here = !matches!(client.read(&mut [0; 64]), Ok(0));
            client.set_nonblocking(false).unwrap();
            here
        });
        clients.len() < before
    });
    assert_eq!(clients.len(), before - 1, "more than one has left");
}
