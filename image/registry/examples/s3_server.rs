//! An object store for tries: `cargo run -p rbuild-registry --features testing --example s3_server -- ADDRESS DIRECTORY`.
//!
//! Prints the word of the command line by which builds know it, and serves until it is ended.
#![expect(clippy::print_stdout, reason = "a program for a person")]

use std::io::{self, Error};
use std::path::Path;
use std::thread;

use rbuild_registry::testing::S3Server;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |what| arguments.next().ok_or_else(|| Error::other(format!("{what} is missing")));
    let (address, directory) = (argument("ADDRESS")?, argument("DIRECTORY")?);
    let server = S3Server::start_at(&address, Path::new(&directory))?;
    println!("{}", server.cache(&server.name(), "team"));
    loop {
        thread::park();
    }
}
