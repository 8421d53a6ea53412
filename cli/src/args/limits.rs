//! What the processes of a step may use, as it is typed.

use clap::Args;

use super::STEPS;

/// `rbuild build`: what each RUN step may use. In no cache key.
#[derive(Debug, Default, Args)]
pub(crate) struct LimitArgs {
    /// The most memory of a RUN step: `512m`, `2g`.
    #[arg(help_heading = STEPS, short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// The most memory and swap together; -1 is unlimited [default: twice the memory].
    #[arg(help_heading = STEPS, long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// The most processor time of a RUN step, in microseconds of each period; -1 is unlimited.
    #[arg(help_heading = STEPS, long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// The length of that period [default: 100000].
    #[arg(help_heading = STEPS, long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// The weight of a RUN step when processors are short [default: 1024].
    #[arg(help_heading = STEPS, short, long, value_name = "SHARES")]
    pub(crate) cpu_shares: Option<u64>,
    /// The processors that RUN steps may use: `0-3,7`.
    #[arg(help_heading = STEPS, long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// The memory nodes that RUN steps may use.
    #[arg(help_heading = STEPS, long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// The most processes of a RUN step; -1 is unlimited [default: half of what the machine can have].
    #[arg(help_heading = STEPS, long, value_name = "COUNT", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// One of the limits above, as BuildKit spells them: `memory=2g`, `cpu-quota=50000` (repeatable).
    #[arg(help_heading = STEPS, long = "resource", value_name = "NAME=VALUE", allow_hyphen_values = true)]
    pub(crate) resources: Vec<String>,
    /// How long a RUN step may run: `90s`, `1h30m`.
    #[arg(help_heading = STEPS, long, value_name = "DURATION")]
    pub(crate) step_timeout: Option<String>,
}
