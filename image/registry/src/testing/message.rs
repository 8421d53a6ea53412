//! HTTP/1.1 messages, as far as a test needs them: one request and one answer a connection.

use std::borrow::Cow;
use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Fault;

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET` and the like.
    pub method: String,
    /// The path and the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The decoded values of a parameter of the query.
    pub fn query(&self, name: &str) -> Vec<String> {
        parameters(self.path.split_once('?').map_or("", |(_, query)| query), name)
    }

    pub(super) fn form(&self, name: &str) -> Option<String> {
        parameters(&String::from_utf8_lossy(&self.body), name).into_iter().next()
    }

    pub(super) fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let mut words = Vec::new();
        words.extend(line(stream)?.split(' ').map(str::to_owned));
        let mut words = words.into_iter();
        let mut request = Self {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            ..Self::default()
        };
        request.headers = read_headers(stream)?;
        request.body = read_body(stream, &request.headers, 0)?;
        Ok(request)
    }

    /// Sends it as it came, but for how its body is divided.
    pub(super) fn send(&self, stream: &mut impl Write) -> io::Result<()> {
        write!(stream, "{} {} HTTP/1.1\r\n", self.method, self.path)?;
        for (name, value) in self.headers.iter().filter(|(name, _)| !is_of_connection(name)) {
            write!(stream, "{name}: {value}\r\n")?;
        }
        write!(stream, "content-length: {}\r\nconnection: close\r\n\r\n", self.body.len())?;
        stream.write_all(&self.body)
    }
}

/// Names in lower case.
fn read_headers(stream: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(stream)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(headers) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// A body, which has `unsaid` bytes where no header says how many.
fn read_body(stream: &mut impl BufRead, headers: &[(String, String)], unsaid: u64) -> io::Result<Vec<u8>> {
    let header = |name| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let size = u64::from_str_radix(&line(stream)?, 16).unwrap_or(0);
            stream.by_ref().take(size).read_to_end(&mut body)?;
            line(stream)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let size = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(unsaid);
    stream.by_ref().take(size).read_to_end(&mut body)?;
    Ok(body)
}

/// Whether a header is about the connection, or how the body is divided on it.
fn is_of_connection(name: &str) -> bool {
    matches!(name, "connection" | "content-length" | "transfer-encoding" | "keep-alive")
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn parameters(text: &str, name: &str) -> Vec<String> {
    let query = reqwest::Url::parse(&format!("http://fake/?{text}"));
    let pairs = query.iter().flat_map(reqwest::Url::query_pairs);
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

/// An answer before it is spoilt.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(Cow<'static, str>, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) const fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(super) fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Reads what a server answered to a request of this method.
    pub(super) fn read(stream: &mut impl BufRead, method: &str) -> io::Result<Self> {
        let status = line(stream)?.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        let headers = read_headers(stream)?;
        let body = match (method, status) {
            ("HEAD", _) => {
                // Only its length is sent on.
                let length = headers.iter().find(|(name, _)| name == "content-length");
                vec![0; length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0)]
            }
            (_, 204 | 304) => Vec::new(),
            _ => read_body(stream, &headers, u64::MAX)?,
        };
        let headers = headers.into_iter().filter(|(name, _)| !is_of_connection(name));
        Ok(headers.fold(Self::new(status).body(body), |answer, (name, value)| answer.header(name, value)))
    }

    /// An error in the form of the specification.
    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::new(status).body(format!(r#"{{"errors":[{{"code":"{code}","message":"as planned"}}]}}"#))
    }

    /// The part of the body that a `Range` asks for.
    pub(super) fn ranged(self, range: Option<&str>, fault: Option<&Fault>) -> Self {
        let is_whole = self.status == 200 && !matches!(fault, Some(Fault::RangeIgnored));
        let asked = range.filter(|_| is_whole);
        let asked = asked.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let Some((start, last)) = asked.and_then(|(start, last)| Some((start.parse().ok()?, last))) else {
            return self;
        };
        let size = self.body.len();
        let start: usize = if matches!(fault, Some(Fault::RangeElsewhere)) { start + 1 } else { start };
        if start >= size {
            return Self::new(416);
        }
        let end = match fault {
            Some(Fault::ShortRange(length)) => (start + length).min(size),
            _ => last.parse().map_or(size, |last: usize| size.min(last + 1)),
        };
        let part = self.body[start..end].to_vec();
        let content_range = format!("bytes {start}-{}/{size}", end - 1);
        Self { status: 206, ..self.header("Content-Range", content_range) }.body(part)
    }

    /// Sends the answer, spoilt by a fault of its bytes if there is one.
    pub(super) fn send(
        mut self,
        stream: &mut TcpStream,
        request: &Request,
        (fault, stop): (Option<&Fault>, &AtomicBool),
    ) -> io::Result<()> {
        match fault {
            Some(Fault::WrongBytes) => {
                self.body.first_mut().into_iter().for_each(|byte| *byte ^= 1);
            }
            Some(Fault::Shorter(length)) => self.body.truncate(*length),
            _ => {}
        }
        let length = match fault {
            Some(Fault::Endless) => "Transfer-Encoding: chunked".to_owned(),
            _ => format!("Content-Length: {}", self.body.len()),
        };
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        write!(stream, "HTTP/1.1 {} Fake\r\n{headers}{length}\r\nConnection: close\r\n\r\n", self.status)?;
        if request.method == "HEAD" {
            return Ok(());
        }
        match fault {
            Some(Fault::CutAfter(length)) => stream.write_all(&self.body[..(*length).min(self.body.len())]),
            Some(Fault::Endless) => endless(stream, stop),
            Some(Fault::Drip(pause)) => {
                for byte in self.body.chunks(1).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    thread::sleep(*pause);
                    stream.write_all(byte)?;
                }
                Ok(())
            }
            _ => stream.write_all(&self.body),
        }
    }
}

fn endless(stream: &mut TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}
