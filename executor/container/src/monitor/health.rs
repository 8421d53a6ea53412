//! The health check of a container: a further process, at intervals, whose exit code tells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rbuild_executor::{Stdio, Stream};
use rbuild_image::Healthcheck;

use super::hub::locked;
use super::process::{further, security};
use super::{Current, Monitor};
use crate::ContainerError;
use crate::log::time;
use crate::protocol::Exec;
use crate::spec::ContainerSpec;
use crate::state::{HealthResult, HealthStatus};

/// Docker's, where the image says nothing.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const START_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
const RETRIES_DEFAULT: i64 = 3;
/// How much of what a check prints is kept.
const OUTPUT_SIZE_BYTES_MAX: usize = 4096;
/// The exit code of a check that took too long.
const EXIT_CODE_TIMEOUT: i32 = -1;

/// The command line of a container's health check; `None` where it has none.
pub(super) fn of(spec: &ContainerSpec) -> Option<Vec<String>> {
    let check = spec.config.healthcheck.as_ref()?;
    match check.test.split_first() {
        Some((kind, args)) if kind == "CMD" => Some(args.to_vec()),
        Some((kind, args)) if kind == "CMD-SHELL" => {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut shell = spec.config.shell.clone().unwrap_or_else(default);
            shell.extend(args.first().cloned());
            Some(shell)
        }
        _ => None,
    }
}

/// Checks a process until it ends, on a thread of its own.
pub(super) fn watch(monitor: &Arc<Monitor>, spec: &ContainerSpec, current: &Arc<Current>) {
    let (Some(args), Some(check)) = (of(spec), spec.config.healthcheck.clone()) else { return };
    let (monitor, current) = (Arc::clone(monitor), Arc::clone(current));
    let exec = Exec { args, ..Exec::default() };
    monitor.clone().serve(move |_| {
        let begun = Instant::now();
        while monitor.is_current(&current, pause(&check, begun, &monitor)) {
            // A check that cannot be run says nothing; the next one may.
            drop(monitor.check_health(&current, &exec, &check, begun));
        }
    });
}

fn duration(nanoseconds: i64, default: Duration) -> Duration {
    u64::try_from(nanoseconds).ok().filter(|ns| *ns > 0).map_or(default, Duration::from_nanos)
}

fn is_starting(check: &Healthcheck, begun: Instant) -> bool {
    begun.elapsed() < duration(check.start_period_ns, Duration::ZERO)
}

/// How long to wait before the next check.
fn pause(check: &Healthcheck, begun: Instant, monitor: &Monitor) -> Duration {
    let health = monitor.container().ok().and_then(|container| container.state.health);
    let unknown = health.is_none_or(|health| health.status == HealthStatus::Starting);
    if unknown && is_starting(check, begun) {
        duration(check.start_interval_ns, START_INTERVAL_DEFAULT)
    } else {
        duration(check.interval_ns, INTERVAL_DEFAULT)
    }
}

impl Monitor {
    /// Waits; whether the process is still the one that runs after it.
    fn is_current(&self, process: &Arc<Current>, limit: Duration) -> bool {
        let runs = |current: &Option<Arc<Current>>| {
            current.as_ref().is_some_and(|current| Arc::ptr_eq(current, process))
        };
        let shared = locked(&self.shared);
        let wait = self.changed.wait_timeout_while(shared, limit, |shared| runs(&shared.current));
        runs(&wait.unwrap_or_else(PoisonError::into_inner).0.current)
    }

    fn check_health(
        &self,
        current: &Current,
        exec: &Exec,
        check: &Healthcheck,
        begun: Instant,
    ) -> Result<(), ContainerError> {
        let container = self.container()?;
        let start = (self.clock.now_ns)();
        let output: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = Arc::clone(&output);
        let sink = move |_: Stream, bytes: &[u8]| {
            let mut output = locked(&into);
            let room = OUTPUT_SIZE_BYTES_MAX - output.len();
            output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        };
        let process = further(&container, exec)?;
        let security = security(container.state.spec.privileged);
        let mut running = self.executor.join(&current.handle, process, security, Stdio::captured(sink))?;
        let timeout = duration(check.timeout_ns, TIMEOUT_DEFAULT);
        let exit_code = wait_at_most(&mut running, timeout)?;
        let mut text = String::from_utf8_lossy(&locked(&output)).into_owned();
        if exit_code == EXIT_CODE_TIMEOUT {
            text = format!("Health check exceeded timeout ({}s)", timeout.as_secs_f64());
        }
        let end = time((self.clock.now_ns)());
        let result = HealthResult { start: time(start), end, exit_code, output: text };
        let retries = if check.retries > 0 { check.retries } else { RETRIES_DEFAULT };
        self.containers.change(&self.id, |state| {
            if let Some(health) = &mut state.health {
                health.note(result, retries, is_starting(check, begun));
            }
        })
    }
}

/// The exit code of a process that is killed when it takes too long.
fn wait_at_most(running: &mut rbuild_executor::Running, limit: Duration) -> Result<i32, ContainerError> {
    let late = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let flag = Arc::clone(&late);
    let handle = running.handle();
    let timer = thread::spawn(move || {
        if receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            flag.store(true, Ordering::Relaxed);
            // One that has ended meanwhile is what is wanted.
            drop(handle.kill());
        }
    });
    let exit = running.wait()?;
    drop(sender);
    drop(timer.join());
    Ok(if late.load(Ordering::Relaxed) { EXIT_CODE_TIMEOUT } else { exit.code() })
}
