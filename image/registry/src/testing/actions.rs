//! GitHub's cache service in this process: version 2 of its protocol, as far as GitHub's own client (`@actions/cache`), go-actions-cache and
//! rbuild speak it. A test of the command tier lets GitHub's client write and read here.
//!
//! Entries are kept in memory. The addresses that it gives away are signed; behind them it speaks Azure's protocol for block blobs.

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::message::{Answer, Request};
use super::server::{FaultyServer, lock};

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";
const TOKEN: &str = "the-token-of-a-job";
/// What a key may have, says GitHub.
const KEY_CHARS_MAX: usize = 512;
const MODIFIED: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

#[derive(Debug)]
struct Entry {
    key: String,
    version: String,
    blob: Option<Vec<u8>>,
    is_finished: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first; the position is the name of the blob. One that was removed has no name.
    entries: Vec<Entry>,
    blocks: HashMap<(usize, String), Vec<u8>>,
    is_expired: bool,
}

/// GitHub's cache service in this process. Stops when dropped.
#[derive(Debug)]
pub struct FakeActions {
    server: FaultyServer,
    state: Arc<Mutex<State>>,
}

impl Deref for FakeActions {
    type Target = FaultyServer;

    fn deref(&self) -> &FaultyServer {
        &self.server
    }
}

impl FakeActions {
    /// Starts one that has no entries on a free port.
    ///
    /// # Errors
    /// When there is no loopback interface to listen on.
    pub fn start() -> io::Result<Self> {
        let state = Arc::<Mutex<State>>::default();
        let served = Arc::clone(&state);
        let server = FaultyServer::start(move |request, host| lock(&served).answer(request, host))?;
        Ok(Self { server, state })
    }

    /// What a job has in its environment.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("ACTIONS_RESULTS_URL", self.url("/")), ("ACTIONS_RUNTIME_TOKEN", TOKEN.to_owned())]
    }

    /// Lets nobody in any more: the job has ended.
    pub fn expire(&self) {
        lock(&self.state).is_expired = true;
    }

    /// Removes the entries whose keys have this part, as the service does with what nobody reads.
    pub fn evict(&self, part: &str) {
        for entry in lock(&self.state).entries.iter_mut().filter(|entry| entry.key.contains(part)) {
            entry.key.clear();
        }
    }

    /// The keys of all entries that are whole, oldest first.
    pub fn keys(&self) -> Vec<String> {
        let state = lock(&self.state);
        let whole = state.entries.iter().filter(|entry| entry.is_finished && !entry.key.is_empty());
        whole.map(|entry| entry.key.clone()).collect()
    }

    /// What an entry has.
    pub fn content(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.state).entries.iter().find(|entry| entry.key == key)?.blob.clone()
    }
}

impl State {
    fn answer(&mut self, request: &Request, host: &str) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        match path.strip_prefix(SERVICE) {
            Some(method) => self.call(method, request, host),
            None => self.blob(path, request),
        }
    }

    fn call(&mut self, method: &str, request: &Request, host: &str) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        if self.is_expired || request.header("authorization") != Some(&bearer) {
            return refusal(401, "unauthenticated", "token is expired");
        }
        let is_json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let question: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let text = |name: &str| question[name].as_str().unwrap_or_default().to_owned();
        let (key, version) = (text("key"), text("version"));
        if request.method != "POST" || !is_json || key.is_empty() || version.is_empty() {
            return refusal(400, "invalid_argument", "key and version are needed");
        }
        if key.chars().count() > KEY_CHARS_MAX || key.contains(',') {
            return refusal(400, "invalid_argument", "the key is too long or has a comma");
        }
        match method {
            "CreateCacheEntry" => self.create(key, version, host),
            "FinalizeCacheEntryUpload" => self.finish(&key, &version, &question["size_bytes"]),
            "GetCacheEntryDownloadURL" => {
                let restore = question["restore_keys"].as_array().cloned().unwrap_or_default();
                self.find(&key, &restore, &version, host)
            }
            _ => refusal(404, "bad_route", "no such method"),
        }
    }

    fn create(&mut self, key: String, version: String, host: &str) -> Answer {
        if self.entries.iter().any(|entry| entry.key == key && entry.version == version) {
            let said = "cache entry with the same key, version, and scope already exists";
            return refusal(409, "already_exists", said);
        }
        self.entries.push(Entry { key, version, blob: None, is_finished: false });
        let url = signed(self.entries.len() - 1, "cw", host);
        json(&json!({ "ok": true, "signed_upload_url": url }))
    }

    fn finish(&mut self, key: &str, version: &str, size: &Value) -> Answer {
        let at = self.entries.iter().position(|entry| entry.key == key && entry.version == version);
        let size = size.as_str().and_then(|text| text.parse().ok()).or_else(|| size.as_u64());
        let Some(at) = at else { return refusal(404, "not_found", "no such entry") };
        let entry = &mut self.entries[at];
        if entry.is_finished || entry.blob.as_ref().map(|blob| blob.len() as u64) != size {
            return json(&json!({ "ok": false, "message": "the size is not that of what was written" }));
        }
        entry.is_finished = true;
        json(&json!({ "ok": true, "entry_id": at.to_string() }))
    }

    /// One that has the key, or else the youngest that begins with one of the others, in their order.
    fn find(&self, key: &str, restore: &[Value], version: &str, host: &str) -> Answer {
        let whole = || {
            let entries = self.entries.iter().enumerate().rev();
            entries
                .filter(|(_, entry)| entry.is_finished && entry.version == version && !entry.key.is_empty())
        };
        let exact = whole().find(|(_, entry)| entry.key == key);
        let mut begins = restore.iter().filter_map(Value::as_str);
        let found =
            exact.or_else(|| begins.find_map(|part| whole().find(|(_, entry)| entry.key.starts_with(part))));
        json(&match found {
            Some((at, entry)) => {
                json!({ "ok": true, "signed_download_url": signed(at, "r", host), "matched_key": entry.key })
            }
            None => json!({ "ok": false }),
        })
    }

    /// What is at a signed address.
    fn blob(&mut self, path: &str, request: &Request) -> Answer {
        let one = |name| request.query(name).pop().unwrap_or_default();
        let at = path.strip_prefix("/account/actions-cache/").and_then(|at| at.parse().ok());
        let Some(at) = at.filter(|at| *at < self.entries.len()) else { return trouble(404, "BlobNotFound") };
        let may = one("sp").contains(if request.method == "PUT" { 'w' } else { 'r' });
        if one("sig") != signature(at, &one("sp")) || !may {
            return trouble(403, "AuthenticationFailed");
        }
        if request.method == "PUT" {
            return self.write(at, &one("comp"), one("blockid"), request);
        }
        let Some(blob) = &self.entries[at].blob else { return trouble(404, "BlobNotFound") };
        let found = Answer::new(200).header("ETag", format!("\"{at}\"")).header("Last-Modified", MODIFIED);
        found.body(blob.clone()).ranged(request.header("x-ms-range"), None)
    }

    fn write(&mut self, at: usize, part: &str, block: String, request: &Request) -> Answer {
        match part {
            "" if request.header("x-ms-blob-type") == Some("BlockBlob") => {
                self.entries[at].blob = Some(request.body.clone());
            }
            "block" if !block.is_empty() => {
                self.blocks.insert((at, block), request.body.clone());
            }
            "blocklist" => {
                let list = String::from_utf8_lossy(&request.body).into_owned();
                let ids = list.split("<Latest>").skip(1).filter_map(|rest| rest.split('<').next());
                let ids =
                    ids.chain(list.split("<Uncommitted>").skip(1).filter_map(|rest| rest.split('<').next()));
                let blocks: Option<Vec<_>> =
                    ids.map(|id| self.blocks.get(&(at, id.to_owned())).cloned()).collect();
                let Some(blocks) = blocks else { return trouble(400, "InvalidBlockList") };
                self.entries[at].blob = Some(blocks.concat());
            }
            _ => return trouble(400, "InvalidQueryParameterValue"),
        }
        Answer::new(201).header("ETag", format!("\"{at}\"")).header("Last-Modified", MODIFIED)
    }
}

/// The address of an entry's blob, for reading or for writing; as Azure's own stand-in does, with the account in the path.
fn signed(at: usize, permission: &str, host: &str) -> String {
    let signature = signature(at, permission).replace('+', "%2B").replace('=', "%3D");
    format!("http://{host}/account/actions-cache/{at}?sp={permission}&sv=2024-11-04&sr=b&sig={signature}")
}

fn signature(at: usize, permission: &str) -> String {
    format!("secret+{at}+{permission}=")
}

fn json(value: &Value) -> Answer {
    Answer::new(200).header("Content-Type", "application/json").body(value.to_string())
}

/// An error as Twirp says it.
fn refusal(status: u16, code: &str, message: &str) -> Answer {
    Answer { status, ..json(&json!({ "code": code, "msg": message })) }
}

/// An error as Azure says it.
fn trouble(status: u16, code: &str) -> Answer {
    let answer =
        Answer::new(status).header("x-ms-error-code", code).header("Content-Type", "application/xml");
    answer.body(format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code></Error>"))
}
