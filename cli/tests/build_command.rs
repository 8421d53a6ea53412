//! `rbuild build`, from the outside: what is on the command line and in the Dockerfile, and what comes of it.

mod attestations;
mod cache_keys;
mod cache_mounts;
mod caching;
mod contexts;
mod damage;
mod deltas;
mod diagnostics;
mod history;
mod instructions;
mod interruption;
mod mistakes;
mod options;
mod parts;
mod platforms;
mod secrets;
mod sources;
mod squash;
mod ssh;
mod steps;
mod storage;
mod trees;
mod trust;
