//! Measures what a container costs: from `spawn` to the end of a program that does nothing.
//!
//! `spawn_time ROOT [ROUNDS]`, where `ROOT` has a static `bin/busybox`. Prints the median and the best in milliseconds.

#![expect(clippy::print_stdout, reason = "it reports what it measured")]

use std::path::PathBuf;
use std::time::Instant;

use rbuild_executor::{Container, Error, Executor, ExecutorOptions, Network, Networks, Process, Root, Stdio};

type MakeNetwork<'a> = &'a dyn Fn() -> Result<Network, Error>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    rbuild_executor::init_hook();
    let privilege = rbuild_executor::rootless::enter(rbuild_executor::rootless::Isolation::Auto)?;
    let mut args = std::env::args().skip(1);
    let root = PathBuf::from(args.next().ok_or("usage: spawn_time ROOT [ROUNDS]")?);
    let rounds: usize = args.next().map_or(Ok(200), |rounds| rounds.parse())?;
    let executor = Executor::new(ExecutorOptions::default())?;
    println!("{privilege:?}");
    let directory = std::env::temp_dir().join("rbuild-spawn-time");
    let networks = Networks::new(directory.clone());
    println!("{:?}", networks.support());
    let kinds: [(&str, MakeNetwork<'_>); 3] = [
        ("host network", &|| Ok(Network::Host)),
        ("no network", &|| Ok(Network::None)),
        ("own network", &|| networks.connect().map(Network::from)),
    ];
    for (name, network) in kinds {
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            run(&executor, root.clone(), network()?)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{name}: median {:.2} ms, best {:.2} ms", times[rounds / 2], times[0]);
    }
    drop(networks);
    Ok(std::fs::remove_dir_all(directory)?)
}

fn run(executor: &Executor, root: PathBuf, network: Network) -> Result<(), Error> {
    let process = Process::new(["/bin/busybox", "true"]);
    let container = Container { network, ..Container::new(Root::Directory(root), process) };
    executor.spawn(container, Stdio::captured(|_, _: &[u8]| {}))?.wait().map(drop)
}
