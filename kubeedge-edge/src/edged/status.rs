//! The status of a pod, as Kubernetes tells it: a pure function of what the runtime has.

mod qos;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus as ApiStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kubeedge_core::names::UnixMillis;

use super::{
    decide::{Goal, Memory, Observed, is_sidecar, is_terminal},
    runtime::{ContainerState, ContainerStatus, Exit},
};

/// Everything that a status depends on.
pub(crate) struct StatusInput<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) goal: Goal,
    /// The status that was told last.
    pub(crate) told: Option<&'a PodStatus>,
    pub(crate) observed: &'a Observed,
    pub(crate) memory: &'a Memory,
    /// Containers in a crash loop, with the message.
    pub(crate) crash_loops: &'a BTreeMap<String, String>,
    /// Nothing of the pod runs, and nothing will.
    pub(crate) ended: bool,
    /// Scheme of container ids.
    pub(crate) runtime: &'a str,
    pub(crate) host_ip: Option<&'a str>,
    pub(crate) now: UnixMillis,
}

/// Time on the wire: seconds.
pub(crate) fn time(at: UnixMillis) -> Time {
    Time(Timestamp::from_second(at.0.div_euclid(1000)).unwrap_or_default())
}

/// Builds the status of a pod.
///
/// Upstream: kubelet, `generateAPIPodStatus` and `pkg/kubelet/status/generate.go`.
pub(crate) fn pod_status(input: &StatusInput<'_>) -> PodStatus {
    let spec = input.pod.spec.clone().unwrap_or_default();
    let has_inits = spec.init_containers.as_ref().is_some_and(|inits| !inits.is_empty());
    let inits: Vec<_> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| {
            container_status(input, container, if is_sidecar(container) { Role::Sidecar } else { Role::Init }, false)
        })
        .collect();
    let regular: Vec<_> =
        spec.containers.iter().map(|container| container_status(input, container, Role::Regular, has_inits)).collect();
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let phase = phase(input, &spec.init_containers.unwrap_or_default(), &inits, &regular, policy);
    let sandbox = input.observed.sandbox().filter(|sandbox| sandbox.ready);
    let told_ip = input.told.and_then(|told| told.pod_ip.clone());
    let pod_ip = match sandbox {
        Some(sandbox) => sandbox.ip.clone().or_else(|| input.host_ip.map(str::to_owned)),
        None => told_ip,
    };
    PodStatus {
        conditions: Some(conditions(input, phase, sandbox.is_some(), &inits, &regular)),
        host_ip: input.host_ip.map(str::to_owned),
        host_ips: input.host_ip.map(|ip| vec![HostIP { ip: ip.to_owned() }]),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        phase: Some(phase.to_owned()),
        qos_class: Some(qos::class(input.pod).to_owned()),
        start_time: Some(input.told.and_then(|told| told.start_time.clone()).unwrap_or_else(|| time(input.now))),
        init_container_statuses: has_inits.then_some(inits),
        container_statuses: Some(regular),
        ..PodStatus::default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Init,
    Sidecar,
    Regular,
}

fn container_status(input: &StatusInput<'_>, container: &Container, role: Role, has_inits: bool) -> ApiStatus {
    let newest = input.observed.newest(&container.name);
    let previous = input.observed.previous(&container.name);
    let told = told_status(input, &container.name);
    let waiting = |reason: &str, message: Option<String>| ApiState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ApiState::default()
    };
    // Why it is not running, for one that should be.
    let held = match (input.crash_loops.get(&container.name), input.memory.waiting.get(&container.name)) {
        _ if input.ended || input.goal != Goal::Run => None,
        (_, Some(held)) => Some(waiting(&held.reason, Some(held.message.clone()))),
        (Some(message), _) => Some(waiting("CrashLoopBackOff", Some(message.clone()))),
        _ => None,
    };
    let creating = || waiting(if has_inits { "PodInitializing" } else { "ContainerCreating" }, None);
    let last = |found: Option<&ContainerStatus>| {
        found
            .and_then(|found| terminated(input, found))
            .map(|terminated| ApiState { terminated: Some(terminated), ..ApiState::default() })
    };
    let (state, last_state) = match newest {
        Some(found) => match &found.state {
            ContainerState::Running { started_at } => {
                let running = ContainerStateRunning { started_at: Some(time(*started_at)) };
                (ApiState { running: Some(running), ..ApiState::default() }, last(previous))
            }
            ContainerState::Created => (creating(), last(previous)),
            ContainerState::Exited { .. } => match held {
                Some(held) => (held, last(newest)),
                None => (last(newest).unwrap_or_default(), last(previous)),
            },
        },
        // It was told to have run, and is gone, or the pod ends before it ran.
        None if input.ended || input.goal != Goal::Run => (lost_state(), None),
        None if told.is_some_and(|told| told.container_id.is_some()) => {
            (held.unwrap_or_else(creating), Some(lost_state()))
        }
        None => (held.unwrap_or_else(creating), None),
    };
    let running = newest.is_some_and(ContainerStatus::is_running);
    let completed = state.terminated.as_ref().is_some_and(|terminated| terminated.exit_code == 0);
    ApiStatus {
        container_id: newest.map(|found| id(input, found)),
        image: container.image.clone().unwrap_or_default(),
        image_id: newest.map(|found| found.image.id.clone()).unwrap_or_default(),
        last_state: Some(last_state.unwrap_or_default()),
        name: container.name.clone(),
        ready: if role == Role::Init { completed } else { running },
        restart_count: newest
            .map(|found| i32::try_from(found.attempt).unwrap_or(i32::MAX))
            .or(told.map(|told| told.restart_count))
            .unwrap_or(0),
        started: Some(running),
        state: Some(state),
        volume_mounts: volume_mounts(container),
        ..ApiStatus::default()
    }
}

fn told_status<'a>(input: &StatusInput<'a>, name: &str) -> Option<&'a ApiStatus> {
    let told = input.told?;
    told.container_statuses.iter().chain(&told.init_container_statuses).flatten().find(|status| status.name == name)
}

fn id(input: &StatusInput<'_>, found: &ContainerStatus) -> String {
    format!("{}://{}", input.runtime, found.id)
}

fn terminated(input: &StatusInput<'_>, found: &ContainerStatus) -> Option<ContainerStateTerminated> {
    let ContainerState::Exited { started_at, exit } = &found.state else { return None };
    let Exit { code, signal, finished_at, reason, message } = exit;
    Some(ContainerStateTerminated {
        container_id: Some(id(input, found)),
        exit_code: *code,
        signal: *signal,
        reason: Some(reason.clone()),
        message: Some(message.clone()).filter(|message| !message.is_empty()),
        started_at: started_at.map(time),
        finished_at: finished_at.map(time),
    })
}

/// State of a container that should be there and is not.
fn lost_state() -> ApiState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..ContainerStateTerminated::default()
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    Some(
        mounts
            .iter()
            .map(|mount| {
                let read_only = mount.read_only.filter(|read_only| *read_only);
                VolumeMountStatus {
                    mount_path: mount.mount_path.clone(),
                    name: mount.name.clone(),
                    read_only,
                    recursive_read_only: read_only.map(|_| "Disabled".to_owned()),
                }
            })
            .collect(),
    )
}

fn exit_code(status: &ApiStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn phase(
    input: &StatusInput<'_>,
    init_specs: &[Container],
    inits: &[ApiStatus],
    regular: &[ApiStatus],
    policy: &str,
) -> &'static str {
    if let Some(told) = input.told.and_then(|told| told.phase.as_deref()).filter(|phase| is_terminal(phase)) {
        return if told == "Succeeded" { "Succeeded" } else { "Failed" };
    }
    let all_well = regular.iter().all(|status| exit_code(status) == Some(0));
    if input.ended {
        return if all_well { "Succeeded" } else { "Failed" };
    }
    let began = |status: &&ApiStatus| {
        let state = status.state.as_ref();
        let crashed = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        crashed || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let started = regular.iter().filter(began).count();
    let initialising = inits.iter().zip(init_specs).any(|(status, spec)| !is_sidecar(spec) && !status.ready);
    if started < regular.len() || (initialising && started == 0) {
        return "Pending";
    }
    let running = regular.iter().any(|status| status.ready);
    let finished = regular.iter().all(|status| exit_code(status).is_some());
    match policy {
        _ if running || !finished => "Running",
        "Never" | "OnFailure" if all_well => "Succeeded",
        "Never" => "Failed",
        _ => "Running",
    }
}

fn conditions(
    input: &StatusInput<'_>,
    phase: &str,
    sandbox: bool,
    inits: &[ApiStatus],
    regular: &[ApiStatus],
) -> Vec<PodCondition> {
    let names = |statuses: &[ApiStatus], keep: fn(&ApiStatus) -> bool| {
        statuses.iter().filter(|status| keep(status)).map(|status| status.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let unready = names(regular, |status| !status.ready);
    let incomplete = names(inits, |status| !status.ready);
    let ready = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() && inits_fine(inits) => (true, "", String::new()),
        _ => (false, "ContainersNotReady", format!("containers with unready status: [{unready}]")),
    };
    let initialized = match phase {
        "Succeeded" => (true, "PodCompleted", String::new()),
        _ if incomplete.is_empty() || regular.iter().any(|status| status.container_id.is_some()) => {
            (true, "", String::new())
        }
        _ => (false, "ContainersNotInitialized", format!("containers with incomplete status: [{incomplete}]")),
    };
    [
        ("PodReadyToStartContainers", (sandbox, "", String::new())),
        ("Initialized", initialized),
        ("Ready", ready.clone()),
        ("ContainersReady", ready),
        ("PodScheduled", (true, "", String::new())),
    ]
    .into_iter()
    .map(|(type_, (holds, reason, message))| {
        let status = if holds { "True" } else { "False" };
        let told = input.told.and_then(|told| told.conditions.as_ref()?.iter().find(|known| known.type_ == type_));
        let since = told.filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
        PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            message: Some(message).filter(|message| !message.is_empty()),
            last_transition_time: Some(since.unwrap_or_else(|| time(input.now))),
            ..PodCondition::default()
        }
    })
    .collect()
}

/// Init containers that have not come to an end, and sidecars that do not run, keep a pod from being ready.
fn inits_fine(inits: &[ApiStatus]) -> bool {
    inits.iter().all(|status| status.ready || exit_code(status).is_some())
}
