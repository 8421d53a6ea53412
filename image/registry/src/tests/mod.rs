//! The client against a registry in this process that misbehaves, and against the real one.

mod auth;
mod http;
mod pull;
mod push;
pub(crate) mod real;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::testing::FakeRegistry;
use crate::{Anonymous, Client, ClientOptions, CredentialSource, Watch};

pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

/// A transfer that nobody follows and nobody stops.
pub(crate) fn unwatched() -> Watch<'static> {
    Watch { progress: &|_| {}, cancel: &NEVER }
}

/// Options whose waits are short.
fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_millis(500),
        retries: 3,
        backoff: Duration::from_millis(1),
        ..ClientOptions::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(options(), Arc::new(Anonymous))
}

fn client_of(credentials: impl CredentialSource + 'static) -> Client {
    Client::new(options(), Arc::new(credentials))
}

pub(crate) fn registry() -> FakeRegistry {
    FakeRegistry::start().expect("loopback is there")
}

/// Bytes that no two places of are alike, so that a shifted resume shows.
pub(crate) fn content(size: usize) -> Vec<u8> {
    (0..size as u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(size).collect()
}
