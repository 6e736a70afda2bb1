//! What to do next about a pod: a pure function of what is wanted, what is there, and the time.

pub(crate) mod back_off;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kubeedge_core::names::UnixMillis;

use self::back_off::{BackOffs, go_duration};
use super::runtime::{ContainerId, ContainerState, ContainerStatus, SandboxId, SandboxStatus};

/// Containers get at least this long to end, so that a forced deletion is no reason to kill.
///
/// Upstream: kubelet, `minimumGracePeriodInSeconds`.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// No container waits longer than that for another attempt to create it.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// What is wanted of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// That it runs.
    Run,
    /// That it ends, within that grace.
    End(Duration),
}

/// What the runtime has of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<SandboxStatus>,
    pub(crate) containers: Vec<ContainerStatus>,
}

impl Observed {
    /// The newest sandbox.
    pub(crate) fn sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.iter().max_by_key(|sandbox| (sandbox.attempt, sandbox.created_at))
    }

    /// The newest start of a container.
    pub(crate) fn newest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().filter(|found| found.name == name).max_by_key(|found| found.attempt)
    }

    /// The start before the newest.
    pub(crate) fn previous(&self, name: &str) -> Option<&ContainerStatus> {
        let newest = self.newest(name)?.attempt;
        self.containers.iter().filter(|found| found.name == name && found.attempt < newest).max_by_key(|c| c.attempt)
    }
}

/// Why a container is not started yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// When to try again.
    pub(crate) until: UnixMillis,
}

/// What is remembered about a pod between two looks at it.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) back_off: BackOffs,
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// Stops under way, and when they kill.
    pub(crate) stopping: BTreeMap<ContainerId, UnixMillis>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    CreateSandbox { attempt: u32 },
    Start { container: String, attempt: u32, crashed_at: Option<UnixMillis> },
    Stop { id: ContainerId, grace: Duration },
    Remove { id: ContainerId },
    StopSandbox { id: SandboxId },
    RemoveSandbox { id: SandboxId },
}

/// What to do about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// When to look again at the latest.
    pub(crate) wake: Option<Duration>,
    /// Containers that wait for their next start, and why.
    pub(crate) crash_loops: BTreeMap<String, String>,
    /// Nothing of it runs, and nothing will.
    pub(crate) ended: bool,
}

/// Everything that a decision depends on.
pub(crate) struct Input<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) goal: Goal,
    /// The status that was told last.
    pub(crate) told: Option<&'a PodStatus>,
    pub(crate) observed: &'a Observed,
    pub(crate) memory: &'a Memory,
    pub(crate) now: UnixMillis,
}

/// What a single container needs.
enum Need {
    /// It runs as it should.
    Nothing,
    /// It has run, and that was it.
    Done,
    /// It has to be started now.
    Start(Action),
    /// It has to be started later.
    Later,
    /// It has to be stopped, or what is left of it removed, before it can be started again.
    First(Action),
}

/// Names the version of a container's spec that a running container has to have.
pub(crate) fn spec_hash(container: &Container) -> String {
    // FNV-1a: must be the same after a restart and in the next release.
    let text = [container.name.as_str(), container.image.as_deref().unwrap_or("")].join("\0");
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// Whether an init container goes on beside the regular ones.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Decides what to do about a pod.
pub(crate) fn decide(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let told_end = input.told.and_then(|status| status.phase.as_deref()).is_some_and(is_terminal);
    match input.goal {
        Goal::End(grace) => end(input, grace, &mut plan),
        Goal::Run if told_end => end(input, grace_of(input.pod), &mut plan),
        Goal::Run => run(input, &mut plan),
    }
    plan
}

/// Whether a pod in that phase has ended for good.
pub(crate) fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// How long the containers of a pod may take to end.
pub(crate) fn grace_of(pod: &Pod) -> Duration {
    let wanted = pod.metadata.deletion_grace_period_seconds;
    let wanted = wanted.or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds));
    wanted.map_or(Duration::from_secs(30), |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn end(input: &Input<'_>, grace: Duration, plan: &mut Plan) {
    stop(input, grace, plan, |_| true);
    if plan.actions.is_empty() && !input.observed.containers.iter().any(ContainerStatus::is_running) {
        for sandbox in input.observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
        plan.ended = plan.actions.is_empty();
    }
}

/// Stops what runs and is selected, unless it is being stopped soon enough.
fn stop(input: &Input<'_>, grace: Duration, plan: &mut Plan, select: impl Fn(&ContainerStatus) -> bool) {
    let grace = grace.max(LEAST_GRACE);
    for container in input.observed.containers.iter().filter(|found| found.is_running() && select(found)) {
        let kill_at = later(input.now, grace);
        if input.memory.stopping.get(&container.id).is_none_or(|planned| kill_at.0 < planned.0 - 500) {
            plan.actions.push(Action::Stop { id: container.id.clone(), grace });
        }
    }
}

fn run(input: &Input<'_>, plan: &mut Plan) {
    let Some(spec) = &input.pod.spec else { return };
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let sandbox = input.observed.sandbox().filter(|sandbox| sandbox.ready);
    let in_sandbox = |found: &ContainerStatus| sandbox.is_some_and(|sandbox| found.sandbox == sandbox.id);

    // What runs in a sandbox that is no longer the one has to end first.
    stop(input, grace_of(input.pod), plan, |found| !in_sandbox(found));
    if input.observed.containers.iter().any(|found| found.is_running() && !in_sandbox(found)) {
        return;
    }
    let regular: Vec<(&Container, Need)> =
        spec.containers.iter().map(|container| (container, need(input, container, policy, plan))).collect();
    if regular.iter().all(|(_, need)| matches!(need, Need::Done)) {
        plan.crash_loops.clear();
        return end(input, grace_of(input.pod), plan);
    }
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    if policy == "Never" && inits.iter().any(|init| !is_sidecar(init) && has_failed(input, init)) {
        forget(&regular, plan);
        return end(input, grace_of(input.pod), plan);
    }
    let Some(sandbox) = sandbox else {
        let attempt = input.observed.sandbox().map_or(0, |old| old.attempt + 1);
        plan.wake = None;
        plan.actions.push(Action::CreateSandbox { attempt });
        return;
    };
    let initialised = spec.containers.iter().any(|c| input.observed.newest(&c.name).is_some_and(&in_sandbox));
    for init in inits {
        let sidecar = is_sidecar(init);
        if initialised && !sidecar {
            continue;
        }
        let ran_here = input.observed.newest(&init.name).is_some_and(&in_sandbox);
        let policy = match (sidecar, policy) {
            (true, _) => "Always",
            (false, "Never") => "Never",
            (false, _) => "OnFailure",
        };
        let need = if ran_here { need(input, init, policy, plan) } else { start(input, init, None) };
        match need {
            Need::Nothing if sidecar => {}
            Need::Done => {}
            Need::Start(action) | Need::First(action) => {
                plan.actions.push(action);
                return forget(&regular, plan);
            }
            // A sidecar that was up once does not hold the others.
            Need::Later if sidecar && ran_here => {}
            Need::Nothing | Need::Later => return forget(&regular, plan),
        }
    }
    for (_, need) in regular {
        if let Need::Start(action) | Need::First(action) = need {
            plan.actions.push(action);
        }
    }
    tidy(input, sandbox, plan);
}

fn has_failed(input: &Input<'_>, container: &Container) -> bool {
    let newest = input.observed.newest(&container.name);
    newest.is_some_and(|newest| matches!(&newest.state, ContainerState::Exited { exit, .. } if exit.code != 0))
}

/// Regular containers that have not had their turn are in no crash loop.
fn forget(regular: &[(&Container, Need)], plan: &mut Plan) {
    for (container, _) in regular {
        plan.crash_loops.remove(&container.name);
    }
}

fn need(input: &Input<'_>, container: &Container, policy: &str, plan: &mut Plan) -> Need {
    let Some(newest) = input.observed.newest(&container.name) else {
        return match lost(input, &container.name) {
            Some(_) if policy == "Never" => Need::Done,
            _ => start_or_wait(input, container, None, plan),
        };
    };
    let changed = newest.spec_hash != spec_hash(container);
    match &newest.state {
        ContainerState::Created => Need::First(Action::Remove { id: newest.id.clone() }),
        ContainerState::Running { .. } if changed && !input.memory.stopping.contains_key(&newest.id) => {
            Need::First(Action::Stop { id: newest.id.clone(), grace: grace_of(input.pod).max(LEAST_GRACE) })
        }
        ContainerState::Running { .. } => Need::Nothing,
        ContainerState::Exited { .. } if changed => start_or_wait(input, container, None, plan),
        ContainerState::Exited { exit, .. } => {
            if policy == "Never" || (policy == "OnFailure" && exit.code == 0) {
                return Need::Done;
            }
            let Some(finished_at) = exit.finished_at else { return start_or_wait(input, container, None, plan) };
            if let Some(left) = input.memory.back_off.left(&container.name, finished_at, input.now) {
                let delay = go_duration(input.memory.back_off.delay(&container.name));
                let metadata = &input.pod.metadata;
                let (name, namespace, uid) =
                    (text(metadata.name.as_ref()), text(metadata.namespace.as_ref()), text(metadata.uid.as_ref()));
                plan.crash_loops.insert(
                    container.name.clone(),
                    format!(
                        "back-off {delay} restarting failed container={} pod={name}_{namespace}({uid})",
                        container.name
                    ),
                );
                wake(plan, left);
                return Need::Later;
            }
            start_or_wait(input, container, Some(finished_at), plan)
        }
    }
}

fn start_or_wait(input: &Input<'_>, container: &Container, crashed_at: Option<UnixMillis>, plan: &mut Plan) -> Need {
    match input.memory.waiting.get(&container.name) {
        // If it is far away, the clock was set back.
        Some(waiting) if waiting.until > input.now && since(waiting.until, input.now) <= LONGEST_WAIT => {
            wake(plan, since(waiting.until, input.now));
            Need::Later
        }
        _ => start(input, container, crashed_at),
    }
}

fn start(input: &Input<'_>, container: &Container, crashed_at: Option<UnixMillis>) -> Need {
    let seen = input.observed.newest(&container.name).map(|newest| newest.attempt + 1);
    let attempt = seen.into_iter().chain(lost(input, &container.name)).max().unwrap_or(0);
    Need::Start(Action::Start { container: container.name.clone(), attempt, crashed_at })
}

/// The next attempt of a container that was told to have run before.
fn lost(input: &Input<'_>, name: &str) -> Option<u32> {
    let told = input.told?;
    let all = told.container_statuses.iter().chain(&told.init_container_statuses).flatten();
    let before = all.into_iter().find(|status| status.name == name && status.container_id.is_some())?;
    u32::try_from(before.restart_count).ok().map(|count| count + 1)
}

/// Removes what nobody asks for any more: starts before the last but one, and former sandboxes.
fn tidy(input: &Input<'_>, sandbox: &SandboxStatus, plan: &mut Plan) {
    for found in &input.observed.containers {
        let keep = input.observed.previous(&found.name).map_or(0, |previous| previous.attempt);
        if found.attempt < keep && !found.is_running() {
            plan.actions.push(Action::Remove { id: found.id.clone() });
        }
    }
    let all_here = input
        .pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .all(|container| input.observed.newest(&container.name).is_some_and(|newest| newest.sandbox == sandbox.id));
    for old in input.observed.sandboxes.iter().filter(|old| all_here && old.id != sandbox.id) {
        plan.actions.push(Action::RemoveSandbox { id: old.id.clone() });
    }
}

fn wake(plan: &mut Plan, after: Duration) {
    plan.wake = Some(plan.wake.map_or(after, |earlier| earlier.min(after)));
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

/// `now` and so long.
pub(crate) fn later(now: UnixMillis, after: Duration) -> UnixMillis {
    UnixMillis(now.0.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)))
}

/// How long from `before` to `then`; nothing if the clock went back.
pub(crate) fn since(then: UnixMillis, before: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(then.0.saturating_sub(before.0)).unwrap_or(0))
}
