//! Just enough of HTTP/1.1: keep-alive, bodies with a length, chunked answers. One thread per connection.
use super::answers::{self, Answer};
use super::knobs::Shared;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
    closes: bool,
}

pub fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || converse(&stream, &shared));
    }
}

/// Answers one request after the other. `None`: the connection is over.
fn converse(stream: &TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let request = read(&mut reader)?;
        // What a stopped process does: nothing at all, until somebody lets it go on.
        while shared.knobs().hang && request.path != "/knobs" {
            std::thread::sleep(Duration::from_millis(20));
        }
        match answers::answer(&request, shared) {
            Answer::Whole { status, headers, body } => write_whole(stream, status, &headers, &body)?,
            Answer::Stream(tokens) => {
                let mut chunks = Chunks { stream, open: true };
                chunks.head()?;
                tokens(&mut chunks);
                chunks.end()?;
            }
            Answer::Reset => return reset(stream),
            Answer::Cut => return None,
        }
        if request.closes {
            return None;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut closes) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|len| *len > 0)?;
        let header = header.trim_end().to_ascii_lowercase();
        match header.split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().ok()?,
            Some(("connection", value)) => closes = value.trim() == "close",
            _ if header.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = path.split('?').next().unwrap_or_default().to_owned();
    Some(Request { method, path, body, closes })
}

fn write_whole(mut stream: &TcpStream, status: u16, headers: &str, body: &str) -> Option<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Fake\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all((head + body).as_bytes()).ok()
}

/// The connection ends with RST, and whoever reads it gets "connection reset".
fn reset(stream: &TcpStream) -> Option<()> {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    None
}

/// An event stream under way.
pub struct Chunks<'a> {
    stream: &'a TcpStream,
    open: bool,
}

impl Chunks<'_> {
    fn head(&mut self) -> Option<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).ok()
    }

    /// One event. False: nobody listens any more.
    pub fn event(&mut self, data: &str) -> bool {
        let chunk = format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
        self.open = self.open && self.stream.write_all(chunk.as_bytes()).is_ok();
        self.open
    }

    /// Nothing more will come, and no proper end either.
    pub fn cut(&mut self) {
        self.open = false;
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    pub fn reset(&mut self) {
        self.open = false;
        reset(self.stream);
    }

    fn end(&mut self) -> Option<()> {
        if !self.open {
            return None;
        }
        self.stream.write_all(b"0\r\n\r\n").ok()
    }
}
