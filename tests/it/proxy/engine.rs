//! A scripted engine: a real listener, and a closure that answers each request with whatever bytes it likes.
use super::PATIENCE;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Engine {
    pub port: u16,
    pub seen: Arc<Seen>,
}

/// What came to an engine.
#[derive(Default)]
pub struct Seen {
    pub requests: Mutex<Vec<Request>>,
    pub connections: AtomicUsize,
    stopped: AtomicBool,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}:");
        self.head.lines().find_map(|line| {
            let is_it = line.get(..prefix.len())?.eq_ignore_ascii_case(&prefix);
            is_it.then(|| line[prefix.len()..].trim())
        })
    }
}

/// One request at an engine. The connection takes the next one afterwards, unless it was ended.
pub struct Talk {
    stream: TcpStream,
    pub request: Request,
    /// Requests on this connection before this one.
    pub earlier: usize,
}

impl Engine {
    pub fn start(answer: impl Fn(&mut Talk) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, answer) = (Arc::new(Seen::default()), Arc::new(answer));
        let for_threads = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_threads.stopped.load(SeqCst) {
                    return;
                }
                let (seen, answer) = (for_threads.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &*answer));
            }
        });
        Self { port, seen }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.seen.stopped.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: TcpStream, seen: &Seen, answer: &dyn Fn(&mut Talk)) {
    seen.connections.fetch_add(1, SeqCst);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut earlier = 0;
    let mut stream = stream;
    while let Some(request) = read_request(&mut stream) {
        seen.requests.lock().unwrap().push(request.clone());
        let mut talk = Talk { stream, request, earlier };
        answer(&mut talk);
        stream = talk.stream;
        earlier += 1;
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        (stream.read(&mut byte).ok()? == 1).then_some(())?;
        head.push(byte[0]);
    }
    let mut request = Request { head: String::from_utf8(head).ok()?, body: Vec::new() };
    if request.field("transfer-encoding").is_some() {
        request.body = read_chunks(stream)?;
    } else if let Some(length) = request.field("content-length") {
        request.body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut request.body).ok()?;
    }
    Some(request)
}

fn read_chunks(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Some(body);
        }
    }
}

impl Talk {
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may be gone already; what it saw is what the test looks at.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// A whole answer with its length.
    pub fn whole(&mut self, status: &str, fields: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let length = body.len();
        self.write(format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n"
        ));
        self.write(body);
    }

    /// The head of an event stream.
    pub fn stream(&mut self) {
        self.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
    }

    pub fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.write([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
    }

    pub fn event(&mut self, data: &str) {
        self.chunk(format!("data: {data}\n\n"));
    }

    /// The end of a chunked answer.
    pub fn end(&mut self) {
        self.write("0\r\n\r\n");
    }

    /// Ends the connection with a FIN.
    pub fn close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Ends the connection with a RST.
    pub fn reset(&mut self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        let fresh = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(fresh.local_addr().unwrap()).unwrap();
        // The old stream is dropped here, which resets it; the new one ends at once.
        self.stream = other;
        drop(fresh);
        self.close();
    }

    /// Waits until the other side has closed.
    pub fn wait_for_close(&mut self) {
        let mut scratch = [0; 1024];
        while !matches!(self.stream.read(&mut scratch), Ok(0) | Err(_)) {}
    }

    /// Writes until the other side takes no more for a while; how many bytes it took.
    pub fn flood(&mut self, chunk: &[u8], patience: Duration) -> usize {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let mut written = 0;
        loop {
            match self.stream.write(&chunk[written % chunk.len()..]) {
                Ok(n) => written += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return written,
                Err(_) => return written,
            }
        }
    }
}

pub const ROLE: &str = r#"{"id":"c","model":"engine","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
pub const FINISH: &str =
    r#"{"id":"c","model":"engine","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
pub const DEATH: &str = r#"{"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","param":null,"code":500}}"#;

pub fn token(text: &str) -> String {
    format!(
        r#"{{"id":"c","model":"engine","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
    )
}

/// A proper answer to whatever was asked.
pub fn good(talk: &mut Talk) {
    let asked = talk.request.json();
    if asked["stream"] == true {
        talk.stream();
        let text = talk.request.head.contains("/v1/completions");
        if text {
            talk.event(r#"{"model":"engine","choices":[{"index":0,"text":"good","finish_reason":null}]}"#);
        } else {
            talk.event(ROLE);
            talk.event(&token("go"));
            talk.event(&token("od"));
        }
        talk.event(FINISH);
        talk.event("[DONE]");
        talk.end();
    } else if talk.request.head.contains("/v1/embeddings") {
        talk.whole(
            "200 OK",
            "",
            r#"{"object":"list","model":"engine","data":[{"embedding":[0.5],"index":0}],"good":1}"#,
        );
    } else {
        talk.whole(
            "200 OK",
            "",
            r#"{"model":"engine","choices":[{"index":0,"message":{"role":"assistant","content":"good"},"finish_reason":"stop"}]}"#,
        );
    }
}

/// An engine that does its job.
pub fn good_engine() -> Engine {
    Engine::start(good)
}
