//! A server that plays faults, and writes down what it is asked; what it answers besides is others' business.

use std::fmt;
use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Fault;
use super::message::{Answer, Request};

#[derive(Debug)]
struct Rule {
    method: &'static str,
    path_part: String,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    requests: Vec<Request>,
}

impl Script {
    /// The fault for a request, if one is due.
    fn due_fault(&mut self, request: &Request) -> Option<Fault> {
        let fits = |rule: &&mut Rule| {
            rule.times > 0 && rule.method == request.method && request.path.contains(&rule.path_part)
        };
        let rule = self.rules.iter_mut().find(fits)?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }
}

/// What a server answers, if nothing goes wrong, to a request that came to this `host:port`.
type Answering = dyn Fn(&Request, &str) -> Answer + Send + Sync;

/// A server in this process that can be told to misbehave. Stops when dropped.
pub struct FaultyServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
}

impl fmt::Debug for FaultyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FaultyServer {
    /// Starts one on a free port.
    pub(super) fn start(
        answer: impl Fn(&Request, &str) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (script, stop) = (Arc::<Mutex<Script>>::default(), Arc::<AtomicBool>::default());
        let served =
            Served { answer: Arc::new(answer), script: Arc::clone(&script), stop: Arc::clone(&stop) };
        thread::spawn(move || served.accept(&listener));
        Ok(Self { address, script, stop })
    }

    /// `127.0.0.1:<port>`.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Plays a fault for the next `times` requests of this method whose path and query have this part.
    pub fn plan(&self, method: &'static str, path_part: &str, times: usize, fault: Fault) {
        lock(&self.script).rules.push(Rule { method, path_part: path_part.to_owned(), times, fault });
    }

    /// Plays no more faults.
    pub fn forgive(&self) {
        lock(&self.script).rules.clear();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.script).requests.clone()
    }

    /// How many requests of this method had this part in their path and query.
    pub fn count(&self, method: &str, path_part: &str) -> usize {
        let fits = |request: &&Request| request.method == method && request.path.contains(path_part);
        lock(&self.script).requests.iter().filter(fits).count()
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
    }
}

/// What its threads have in common.
#[derive(Clone)]
struct Served {
    answer: Arc<Answering>,
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
}

impl Served {
    fn accept(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let served = self.clone();
            // A client that goes away is part of the tests.
            thread::spawn(move || served.serve(stream).ok());
        }
    }

    /// Serves one request.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut request = Request::read(&mut BufReader::new(stream.try_clone()?))?;
        let fault = {
            let mut script = lock(&self.script);
            script.requests.push(request.clone());
            script.due_fault(&request)
        };
        if matches!(fault, Some(Fault::Silence)) {
            self.say_nothing();
            return Ok(());
        }
        if matches!(fault, Some(Fault::HalfLost)) {
            request.body.truncate(request.body.len() / 2);
        }
        let answer = self.answered(&request, fault.as_ref(), &stream.local_addr()?.to_string());
        answer.send(&mut stream, &request, (fault.as_ref(), &self.stop))
    }

    fn answered(&self, request: &Request, fault: Option<&Fault>, host: &str) -> Answer {
        let with = |answer: Answer, headers: &[(&'static str, String)]| {
            headers.iter().fold(answer, |answer, (name, value)| answer.header(*name, value))
        };
        match fault {
            Some(Fault::Status(status, headers, body)) => {
                return with(Answer::new(*status).body(body.as_str()), headers);
            }
            Some(Fault::Redirect(to)) => return Answer::new(307).header("Location", to),
            _ => {}
        }
        let answer = (self.answer)(request, host).ranged(request.header("range"), fault);
        match fault {
            Some(Fault::LostAnswer | Fault::HalfLost) => Answer::new(502),
            Some(Fault::Headers(headers)) => with(answer, headers),
            _ => answer,
        }
    }

    fn say_nothing(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
