//! How long it takes to make a network namespace and connect it: `connect_time DIRECTORY [COUNT]`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, not a part of the library")]

use std::time::Instant;

use rbuild_executor::network::Networks;

fn main() {
    let mut args = std::env::args().skip(1);
    let directory = args.next().unwrap();
    let count: u32 = args.next().map_or(20, |count| count.parse().unwrap());
    rbuild_executor::rootless::enter().unwrap();
    let networks = Networks::new(directory.into());
    let first = Instant::now();
    println!("{:?} in {:?}", networks.support(), first.elapsed());
    let start = Instant::now();
    for _ in 0..count {
        let connection = {
            networks.prepare();
            networks.connect().unwrap()
        };
        println!("{:?} {:?}", connection.addresses(), connection.host_address());
    }
    println!("{:?} each", start.elapsed() / count);
}
