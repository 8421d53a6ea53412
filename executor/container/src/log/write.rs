//! Writing a log: output comes in pieces, and goes out as lines.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rbuild_executor::Stream;

use super::{LogLine, rotated};
use crate::spec::LogOptions;

/// A line that is longer is written in parts, as Docker does.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The log of a running container.
#[derive(Debug)]
pub(crate) struct LogWriter {
    directory: PathBuf,
    options: LogOptions,
    file: File,
    size_bytes: u64,
    /// What of each stream has no newline yet.
    partial: [Vec<u8>; 2],
    /// Lines that are to be written at once.
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Opens the log in a container's directory, to go on with it.
    pub(crate) fn open(directory: &Path, options: &LogOptions) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(directory.join(rotated(0)))?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            directory: directory.to_owned(),
            options: options.clone(),
            file,
            size_bytes,
            partial: Default::default(),
            buffer: Vec::new(),
        })
    }

    /// Takes output in, at a time in Unix nanoseconds.
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8], now_ns: i64) -> io::Result<()> {
        if self.options.discard {
            return Ok(());
        }
        let time = time(now_ns);
        while !bytes.is_empty() {
            let partial = &mut self.partial[index(stream)];
            let room = LINE_BYTES_MAX - partial.len();
            let newline = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let taken = newline.map_or(room.min(bytes.len()), |at| at + 1);
            partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if newline.is_some() || partial.len() == LINE_BYTES_MAX {
                self.line(stream, &time)?;
            }
        }
        self.flush()
    }

    /// Writes what has no newline: nothing more is to come.
    pub(crate) fn finish(&mut self, now_ns: i64) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial[index(stream)].is_empty() {
                self.line(stream, &time(now_ns))?;
            }
        }
        self.flush()
    }

    fn line(&mut self, stream: Stream, time: &str) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.partial[index(stream)]).into_owned();
        self.partial[index(stream)].clear();
        let stream = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        let line = LogLine { log: text, stream: stream.to_owned(), time: time.to_owned() };
        let before = self.buffer.len();
        serde_json::to_writer(&mut self.buffer, &line)?;
        self.buffer.push(b'\n');
        self.size_bytes += (self.buffer.len() - before) as u64;
        if self.options.max_size_bytes.is_some_and(|max| self.size_bytes >= max) {
            self.flush()?;
            self.rotate()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written
    }

    /// Begins a new file; the oldest one goes.
    fn rotate(&mut self) -> io::Result<()> {
        let last = self.options.max_files.unwrap_or(1).max(1) - 1;
        for number in (0..last).rev() {
            let (from, to) = (self.directory.join(rotated(number)), self.directory.join(rotated(number + 1)));
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let path = self.directory.join(rotated(0));
        if last == 0 {
            // Readers that follow find the end of a file that has no name any more, and the new one.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = File::options().append(true).create(true).open(path)?;
        self.size_bytes = 0;
        Ok(())
    }
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// RFC 3339 with nanoseconds, as Docker writes it.
pub(crate) fn time(now_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(now_ns.into())
        .map_or_else(|_| String::new(), |time| format!("{time:.9}"))
}
