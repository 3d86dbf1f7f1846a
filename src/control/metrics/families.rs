//! Every family of `GET /metrics`, as data. `mainstay help metrics`, the alert rules and the dashboard are tested against
//! it.

/// Begins every name.
pub const PREFIX: &str = "mainstay";

/// A family of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Without prefix, unit and suffix.
    pub name: &'static str,
    pub kind: Kind,
    /// A base unit, which is a part of the name.
    pub unit: Option<&'static str>,
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the agent lives, whatever happens to engines.
    Counter,
    Gauge,
    Histogram,
    /// Always 1: its labels are what it says.
    Info,
}

impl Kind {
    /// The name in OpenMetrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

impl Family {
    /// The name of its samples; those of a histogram have `_bucket`, `_sum` and `_count` after it.
    pub fn sample_name(&self) -> String {
        let unit = self.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{PREFIX}_{}{unit}{suffix}", self.name)
    }
}

/// Declares each family and the list of them all, in the order of the page.
macro_rules! families {
    ($($id:ident: $kind:ident $name:literal $(in $unit:literal)? [$($label:literal)*] $help:literal;)*) => {
        $(pub const $id: Family = Family {
            name: $name,
            kind: Kind::$kind,
            unit: unit!($($unit)?),
            labels: &[$($label),*],
            help: $help,
        };)*
        pub const ALL: &[Family] = &[$($id),*];
    };
}
macro_rules! unit {
    () => {
        None
    };
    ($unit:literal) => {
        Some($unit)
    };
}

families! {
    BUILD: Info "build" ["version"] "The version of the agent";
    START_TIME: Gauge "start_time" in "seconds" [] "When the agent began, in seconds since 1970";
    AGENT_STATE: Gauge "agent_state" ["state"] "1 for the state that the agent is in: starting, serving or draining";
    CONFIG_PROBLEM: Gauge "config_problem" [] "1 when the configuration file was found wrong at the last SIGHUP";
    HEART_AGE: Gauge "heart_age" in "seconds" ["heart"] "Time since a critical loop last completed a turn";
    AGENT_MEMORY: Gauge "agent_memory" in "bytes" [] "Resident memory of the agent alone";
    AGENT_CPU: Counter "agent_cpu" in "seconds" [] "CPU time of the agent alone";
    PANICS: Counter "connection_panics" [] "Clients' connections that ended in a defect of mainstay";
    INCIDENTS: Gauge "incidents_open" ["kind"] "Incidents that are not over: failure, gpu, failover, held or all-down";
    MAIL_WAITING: Gauge "mail_waiting" [] "Mails that wait in the outbox";
    MAIL_FAILING: Gauge "mail_failing" [] "1 when the last try to send a mail failed";
    MAIL: Counter "mails" ["outcome"] "Mails by what became of them: sent, or lost (given up, or dropped from a full outbox)";
    STATE_PROBLEM: Gauge "state_problem" [] "1 when incidents, events and mail cannot be kept just now";
    UNWRITTEN: Counter "unwritten_records" []
        "Records of incidents and events that are lost, because too many could not be written down";
    LOG_DROPPED: Counter "log_dropped_lines" [] "Lines of the agent's log that its reader was too slow for";

    TIER: Info "tier" ["tier" "engine" "model"] "What a tier is";
    RANK: Gauge "tier_rank" ["tier"] "Place in the chain, 0 is the best";
    HEALTH: Gauge "tier_health" ["tier" "health"] "1 for the health that a tier has: healthy, degraded or down";
    ROUTABLE: Gauge "tier_routable" ["tier"] "1 when requests may go to the tier";
    SERVING: Gauge "tier_serving" ["tier"] "1 for the tier that the next request goes to, 0 for every tier when none can answer";
    CHECK_LATENCY: Gauge "tier_check_latency" in "seconds" ["tier"] "How long the last health check took";
    CHECK_FAILURES: Gauge "tier_check_failures" ["tier"] "Failed health checks in a row";

    REQUESTS: Counter "requests" ["tier" "outcome"]
        "Requests that a tier was asked, by what became of them there: answered, client_error (answered, and the request \
         was wrong), failed_over, cut, refused (no other tier was left), skipped (it cannot carry such) or abandoned \
         (the client left)";
    WEAKENED: Counter "weakened_answers" ["tier"] "Answers that were begun under the tier's degrade table";
    IN_FLIGHT: Gauge "requests_in_flight" ["tier"] "Requests that a tier is at";
    ERRORS: Counter "errors" ["code"] "Requests that mainstay itself answered with an error, by its code";
    FIRST_CONTENT: Histogram "first_content" in "seconds" ["tier"]
        "From a streaming request's arrival to the first content that its client got, by the tier that gave it";
    FAILOVERS: Counter "failovers" ["from" "to"] "How often serving moved down the chain";
    RETURNS: Counter "returns" ["from" "to"] "How often serving moved back up";
    OUTAGES: Counter "outages" [] "How often the last tier went down";
    FAILOVER_TIME: Histogram "failover" in "seconds" []
        "From the instant at which a request is known lost at one tier to its last byte written to the next";

    ENGINE_STATE: Gauge "engine_state" ["tier" "state"]
        "1 for the state that an engine is in: stopped, starting, ready, stopping, backoff, held, wedged or fenced";
    RUN: Gauge "engine_run" ["tier"] "Number of the live run, or of the last one";
    PROGRESS: Gauge "engine_startup" in "ratio" ["tier"]
        "How far a start has come; where no earlier one is known, how far its present stage has";
    RESTARTS: Counter "restarts" ["tier" "cause"] "Starts of an engine after its first, by the cause of the end before";
    STRIKES: Gauge "engine_strikes" ["tier"] "Ends that nobody asked for, since they were last forgiven";
    ENGINE_MEMORY: Gauge "engine_memory" in "bytes" ["tier"] "Resident memory of the live run's processes";
    ENGINE_CPU: Gauge "engine_cpu" in "seconds" ["tier"]
        "CPU time of the live run's processes, from 0 with each run; falls when one of them ends";

    HOST_MEMORY: Gauge "host_memory" in "bytes" [] "Memory of the host";
    HOST_AVAILABLE: Gauge "host_memory_available" in "bytes" [] "Memory that programs can still have";
    HOST_LOAD: Gauge "host_load" [] "Mean number of runnable processes over the last minute";

    GPU_PROBE: Gauge "gpu_probe_state" ["state"]
        "1 for the state of the GPU probe: ok, no-driver, unresponsive, wedged, starting or off";
    GPU: Info "gpu" ["gpu" "uuid" "pci" "name"] "What a GPU is";
    GPU_VERDICT: Gauge "gpu_verdict" ["gpu" "verdict"]
        "1 for the verdict on a GPU: ok, note, degraded, draining, fenced or unknown";
    GPU_TEMPERATURE: Gauge "gpu_temperature" in "celsius" ["gpu"] "Temperature of a GPU";
    GPU_MEMORY_USED: Gauge "gpu_memory_used" in "bytes" ["gpu"] "Memory of a GPU that is in use";
    GPU_MEMORY: Gauge "gpu_memory" in "bytes" ["gpu"] "Memory of a GPU";
    GPU_UTILIZATION: Gauge "gpu_utilization" in "ratio" ["gpu"] "Share of the time in which a GPU computed";
    GPU_POWER: Gauge "gpu_power" in "watts" ["gpu"] "Power that a GPU draws";
    GPU_THROTTLE: Gauge "gpu_throttle_active" ["gpu" "reason"] "1 for each reason that slows a GPU's clocks now";
    GPU_THROTTLE_SHARE: Gauge "gpu_throttle" in "ratio" ["gpu"] "Share of the last minute in which heat slowed a GPU";
    GPU_ECC: Counter "gpu_ecc_errors" ["gpu" "type"]
        "Memory errors of a GPU, corrected or uncorrected, as its driver counts them";
}
