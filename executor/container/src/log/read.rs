//! Reading a log: from a line on, to its end, and further as it grows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{LogLine, rotated};

/// How much is read at a time when lines are counted from the end.
const BLOCK_SIZE_BYTES: u64 = 64 * 1024;

/// How much of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTail {
    /// All of it.
    All,
    /// The last lines.
    Lines(u64),
}

/// A place in a log.
#[derive(Debug)]
pub struct LogReader {
    directory: PathBuf,
    /// The files before the current one that are still to be read, newest first.
    older: Vec<BufReader<File>>,
    current: Option<BufReader<File>>,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl LogReader {
    /// Opens the log in a container's directory. One that was never written is empty.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(directory: &Path, tail: LogTail) -> io::Result<Self> {
        let mut files = Vec::new();
        for number in 0.. {
            match File::open(directory.join(rotated(number))) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        if let LogTail::Lines(mut lines) = tail {
            let mut wanted = Vec::new();
            for mut file in files {
                lines -= skip_to_last(&mut file, lines)?;
                wanted.push(file);
                if lines == 0 {
                    break;
                }
            }
            files = wanted;
        }
        let mut files = files.into_iter().map(BufReader::new);
        let current = files.next();
        Ok(Self { directory: directory.to_owned(), older: files.collect(), current, partial: Vec::new() })
    }

    /// The next line, or `None` where the log ends for now.
    ///
    /// # Errors
    /// When it cannot be read. A line that is no line of a log is left out.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine>> {
        while let Some(line) = self.next_bytes()? {
            if let Ok(line) = serde_json::from_slice(&line) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn next_bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(oldest) = self.older.last_mut() {
            let line = read_line(oldest, &mut self.partial)?;
            if line.is_some() {
                return Ok(line);
            }
            self.older.pop();
        }
        loop {
            if self.current.is_none() {
                self.current = self.reopen()?;
            }
            let Some(current) = &mut self.current else { return Ok(None) };
            let line = read_line(current, &mut self.partial)?;
            if line.is_some() || !self.is_rotated()? {
                return Ok(line);
            }
            self.current = None;
        }
    }

    fn reopen(&mut self) -> io::Result<Option<BufReader<File>>> {
        match File::open(self.directory.join(rotated(0))) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the log goes on in another file.
    fn is_rotated(&self) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        let own = current.get_ref().metadata()?;
        match std::fs::metadata(self.directory.join(rotated(0))) {
            Ok(named) => Ok((own.dev(), own.ino()) != (named.dev(), named.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The next whole line; what is there of one that is not whole yet is kept in `partial`.
fn read_line(reader: &mut BufReader<File>, partial: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    reader.read_until(b'\n', partial)?;
    Ok((partial.last() == Some(&b'\n')).then(|| std::mem::take(partial)))
}

/// Moves to where the last `lines` lines of a file begin. Returns how many there are.
fn skip_to_last(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut position = file.metadata()?.len();
    let mut found = 0;
    // The newline at the very end ends the last line; it does not begin another.
    let end = position.saturating_sub(1);
    let mut block = Vec::new();
    while position > 0 {
        let size = BLOCK_SIZE_BYTES.min(position);
        position -= size;
        file.seek(SeekFrom::Start(position))?;
        block.clear();
        file.take(size).read_to_end(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            let start = position + at as u64 + 1;
            if start > end {
                if lines == 0 {
                    file.seek(SeekFrom::Start(start))?;
                    return Ok(0);
                }
                continue;
            }
            found += 1;
            if found == lines {
                file.seek(SeekFrom::Start(start))?;
                return Ok(lines);
            }
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(if end > 0 { found + 1 } else { 0 })
}
