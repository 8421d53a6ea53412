//! The way from a step's socket to an agent of the host.
//!
//! A thread hears the socket for as long as the step runs, and each connection has one of its own. A step may list the
//! agent's keys and have it sign; whatever else it asks for (to add keys, to lock the agent) fails without being passed on.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::ssh::SshAgent;

/// The largest message, as OpenSSH's agent takes it.
const MESSAGE_SIZE_BYTES_MAX: u32 = 256 * 1024;
/// The requests that are passed on, and the answer to others, by their numbers in the agent protocol.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const FAILURE: u8 = 5;

/// A socket that leads to an agent until this is dropped.
#[derive(Debug)]
pub(super) struct SshRelay {
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

impl SshRelay {
    /// Leads all who connect to `listener` to `agent`.
    pub(super) fn start(listener: UnixListener, agent: SshAgent) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let heard = Arc::clone(&listener);
        let thread = thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            for client in heard.incoming() {
                // Only the end of the relay makes hearing fail for good.
                let Ok(client) = client else { break };
                let agent = agent.clone();
                // A step whose connection ends early tells it better than rbuild could.
                let serve = move || drop(serve(client, &agent));
                drop(thread::Builder::new().name("ssh".to_owned()).spawn(serve));
            }
        })?;
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for SshRelay {
    fn drop(&mut self) {
        // Wakes the thread, whose next attempt to hear fails.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(mut client: UnixStream, agent: &SshAgent) -> io::Result<()> {
    let mut host = UnixStream::connect(&agent.socket)?;
    if agent.raw {
        return pass_all(&client, &host);
    }
    while let Some(request) = read(&mut client)? {
        let answer = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                write(&mut host, &request)?;
                read(&mut host)?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            _ => vec![FAILURE],
        };
        write(&mut client, &answer)?;
    }
    Ok(())
}

/// Passes everything on, both ways, until both have ended.
fn pass_all(client: &UnixStream, host: &UnixStream) -> io::Result<()> {
    let pass = |mut from: &UnixStream, mut to: &UnixStream| {
        io::copy(&mut from, &mut to)?;
        to.shutdown(Shutdown::Write)
    };
    thread::scope(|scope| {
        scope.spawn(|| drop(pass(host, client)));
        pass(client, host)
    })
}

/// A message, or `None` where the stream ends.
fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut size = [0; 4];
    match stream.read_exact(&mut size) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let size = u32::from_be_bytes(size);
    if size > MESSAGE_SIZE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; size as usize];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

fn write(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let size = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&size.to_be_bytes()[..], message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers each request with the request and a mark, and the step's end of a relay to it.
    fn relayed(raw: bool) -> (tempfile::TempDir, SshRelay, UnixStream) {
        let directory = tempfile::tempdir().unwrap();
        let (socket, step) = (directory.path().join("agent"), directory.path().join("step"));
        let agent = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut client, _) = agent.accept().unwrap();
            while let Some(mut request) = read(&mut client).unwrap() {
                request.push(b'!');
                write(&mut client, &request).unwrap();
            }
        });
        let relay = SshRelay::start(UnixListener::bind(&step).unwrap(), SshAgent { socket, raw }).unwrap();
        let client = UnixStream::connect(&step).unwrap();
        (directory, relay, client)
    }

    fn ask(client: &mut UnixStream, request: &[u8]) -> Vec<u8> {
        write(client, request).unwrap();
        read(client).unwrap().unwrap()
    }

    #[test]
    fn only_listing_and_signing_reach_the_agent() {
        let (_directory, _relay, mut client) = relayed(false);
        assert_eq!(ask(&mut client, &[REQUEST_IDENTITIES]), [REQUEST_IDENTITIES, b'!']);
        assert_eq!(ask(&mut client, &[SIGN_REQUEST, 1, 2]), [SIGN_REQUEST, 1, 2, b'!']);
        // Adding, removing and locking, extensions, and no request at all.
        for request in [&[17, 0][..], &[18], &[19], &[22], &[25], &[27], &[]] {
            assert_eq!(ask(&mut client, request), [FAILURE], "{request:?}");
        }
        assert_eq!(ask(&mut client, &[REQUEST_IDENTITIES]), [REQUEST_IDENTITIES, b'!']);
    }

    #[test]
    fn raw_passes_everything_on() {
        let (_directory, _relay, mut client) = relayed(true);
        assert_eq!(ask(&mut client, &[17, 0]), [17, 0, b'!']);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read(&mut client).unwrap(), None);
    }

    #[test]
    fn an_endless_message_ends_the_connection() {
        let (_directory, _relay, mut client) = relayed(false);
        client.write_all(&(MESSAGE_SIZE_BYTES_MAX + 1).to_be_bytes()).unwrap();
        assert!(read(&mut client).is_ok_and(|answer| answer.is_none()));
    }

    #[test]
    fn a_dropped_relay_hears_nobody() {
        let (directory, relay, _client) = relayed(false);
        drop(relay);
        assert!(UnixStream::connect(directory.path().join("step")).is_err());
    }
}
