//! What one side writes as the other reads it: archives that go from tree to tree without being kept.

use std::io::{self, PipeReader, PipeWriter};
use std::thread;

/// Lets a thread write what this one reads, and returns what became of both. A reader that stops breaks the writer's pipe: where both
/// failed, it is for the caller to say which is the cause.
///
/// # Errors
/// When there is no pipe to be had.
pub fn piped<W: Send, R>(
    write: impl FnOnce(&mut PipeWriter) -> W + Send,
    read: impl FnOnce(&mut PipeReader) -> R,
) -> io::Result<(W, R)> {
    let (mut reader, mut writer) = io::pipe()?;
    Ok(thread::scope(|scope| {
        let written = scope.spawn(move || write(&mut writer));
        let done = read(&mut reader);
        // A writer that nobody reads ends.
        drop(reader);
        (written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), done)
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_writer_that_nobody_reads_ends() {
        let more_than_a_pipe = vec![7; 1 << 20];
        let write = |out: &mut PipeWriter| out.write_all(&more_than_a_pipe);
        let read = |input: &mut PipeReader| input.read_exact(&mut [0; 10]);
        let (written, done) = piped(write, read).unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        done.unwrap();
        let read_all = |input: &mut PipeReader| io::copy(input, &mut io::sink());
        let (written, done) = piped(write, read_all).unwrap();
        written.unwrap();
        assert_eq!(done.unwrap(), 1 << 20);
    }
}
