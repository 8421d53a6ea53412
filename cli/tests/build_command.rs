//! `rbuild build`, from the outside: what is on the command line and in the Dockerfile, and what comes of it.

mod caching;
mod damage;
mod instructions;
mod interruption;
mod mistakes;
mod options;
mod storage;
