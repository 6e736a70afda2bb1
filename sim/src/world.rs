//! Running a scenario.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use kubeedge_core::names::NodeName;
use serde_json::{Value, json};
use turmoil::Sim;

use crate::{
    api::{Api, Place},
    check::{self, Violation},
    clock::HostClock,
    cloud,
    disk::Disk,
    edge::{self, Site},
    history::{Entry, Event, History},
    link::Shears,
    scenario::{Action, HEAL, Host, LinkFault, Moment, Scenario, Work, calm},
    truth::{self, Looked},
};

/// Within this time after the end of all faults, everything is settled.
pub const BOUND: Duration = Duration::from_secs(30);
/// After this time in a cut, the edge's end of a connection is reset.
pub const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Everything is settled when all agree and nothing moves for this time.
const QUIET: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(40);

/// How a run went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Everything that happened.
    pub history: Vec<Entry>,
    /// What should not have.
    pub violations: Vec<Violation>,
    /// When everything was settled, counted from the end of all faults.
    pub settled: Option<Duration>,
}

struct World<'a> {
    sim: Sim<'a>,
    history: History,
    api: Api,
    cloud_clock: Arc<HostClock>,
    sites: Vec<Site>,
    links: Vec<LinkState>,
    latency: Duration,
    down: BTreeSet<Host>,
    traps: Vec<(Host, Moment, u32)>,
    /// Entries of the history that traps have seen.
    seen: usize,
    edits: u64,
}

#[derive(Clone, Copy, Default)]
struct LinkState {
    fault: Option<LinkFault>,
    cut_since: Option<Duration>,
}

/// Plays `scenario` to its end, and checks it.
pub fn run(scenario: &Scenario) -> Outcome {
    // Pauses and jitter of our code.
    fastrand::seed(scenario.seed);
    let mut world = World::new(scenario);
    let mut actions = scenario.actions.iter().peekable();
    let mut failure = None;
    while world.sim.elapsed() < HEAL && failure.is_none() {
        while let Some((_, action)) = actions.next_if(|(at, _)| *at <= world.sim.elapsed()) {
            world.perform(action);
        }
        failure = world.step();
    }
    world.heal();
    let (mut calm, mut settled) = (None, None);
    while failure.is_none() && settled.is_none() && world.sim.elapsed() < HEAL + BOUND {
        failure = world.step();
        let now = world.sim.elapsed();
        // What is healed late makes everything move once more.
        calm = calm.filter(|(_, entries)| !world.moved(*entries));
        if calm.is_none() && world.is_settled() {
            calm = Some((now, world.history.len()));
        }
        settled = calm.map(|(since, _)| since).filter(|since| now >= *since + QUIET);
    }
    world.judge(settled.map(|at| at.saturating_sub(HEAL)), failure)
}

impl World<'_> {
    fn new(scenario: &Scenario) -> Self {
        let history = History::default();
        let api = Api::new(history.clone(), scenario.seed);
        api.trouble(calm());
        let mut sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(scenario.latency)
            .simulation_duration(Duration::from_secs(3600))
            .tcp_capacity(4096)
            .epoch(SystemTime::UNIX_EPOCH)
            .rng_seed(scenario.seed)
            .build();
        let cloud_clock = Arc::new(HostClock::default());
        let (of_cloud, clock) = (api.clone(), cloud_clock.clone());
        sim.host("cloud", move || cloud::run(of_cloud.clone(), clock.clone()));
        let mut sites = Vec::new();
        for (index, extensions) in scenario.edges.iter().enumerate() {
            let node = NodeName::new(name(index)).unwrap_or_else(|_| unreachable!("it is a name"));
            let labels = json!({ "node-role.kubernetes.io/edge": "" });
            api.create(&Place::cluster("nodes", node.as_str()), json!({ "metadata": { "labels": labels } }));
            let seed = scenario.seed.wrapping_mul(31).wrapping_add(index as u64);
            let site = Site {
                disk: Disk::new(node.clone(), history.clone(), seed, scenario.mutation),
                node,
                clock: Arc::new(HostClock::default()),
                extensions: *extensions,
                history: history.clone(),
                shears: Arc::new(Shears::default()),
                mutation: scenario.mutation,
                reporting: Arc::new(AtomicBool::new(true)),
            };
            let software = site.clone();
            sim.host(name(index), move || edge::run(software.clone()));
            sites.push(site);
        }
        Self {
            sim,
            history,
            api,
            cloud_clock,
            links: vec![LinkState::default(); sites.len()],
            sites,
            latency: scenario.latency,
            down: BTreeSet::new(),
            traps: Vec::new(),
            seen: 0,
            edits: 0,
        }
    }

    /// One step of everything; gives why the simulation broke, if it did.
    fn step(&mut self) -> Option<String> {
        let now = self.sim.elapsed();
        self.history.tick(now);
        self.cloud_clock.tick(now);
        for index in 0..self.sites.len() {
            self.sites[index].clock.tick(now);
            self.sites[index].disk.step(now);
            let link = &mut self.links[index];
            if link.cut_since.is_some_and(|since| now >= since + USER_TIMEOUT) {
                link.cut_since = Some(now);
                self.sites[index].shears.reset();
            }
        }
        self.api.step(now);
        self.spring();
        let failure = self.sim.step().err().map(|err| err.to_string());
        self.spring();
        failure
    }

    fn host(&self, host: Host) -> IpAddr {
        match host {
            Host::Cloud => self.sim.lookup("cloud"),
            Host::Edge(index) => self.sim.lookup(name(index)),
        }
    }

    fn note(&self, text: impl Into<String>) {
        self.history.add(Event::Note(text.into()));
    }

    fn perform(&mut self, action: &Action) {
        self.history.tick(self.sim.elapsed());
        if !matches!(action, Action::CrashAt(..)) {
            self.note(format!("{action:?}"));
        }
        match action {
            Action::Link(edge, fault) => self.link(*edge, *fault),
            Action::Crash(host, silent) => self.crash(*host, *silent),
            Action::CrashAt(host, moment, times) => self.traps.push((*host, *moment, *times)),
            Action::Start(host) => self.start(*host),
            Action::DiskFull(edge, full) => self.sites[*edge].disk.full(*full),
            Action::DiskLatency(edge, latency) => self.sites[*edge].disk.latency(*latency),
            Action::Jump(Host::Cloud, by) => self.cloud_clock.jump(*by),
            Action::Jump(Host::Edge(edge), by) => self.sites[*edge].clock.jump(*by),
            Action::Api(trouble) => self.api.trouble(*trouble),
            Action::CutWatches => self.api.cut_watches(),
            Action::Compact => self.api.compact(),
            Action::Stall(plural) => self.api.stall(plural),
            Action::Flow => self.api.flow(),
            Action::Operate(edge, slot, work) => self.operate(*edge, *slot, *work),
        }
    }

    fn link(&mut self, index: usize, fault: Option<LinkFault>) {
        let (cloud, edge) = (self.host(Host::Cloud), self.host(Host::Edge(index)));
        // Out of the old trouble first.
        match self.links[index].fault {
            Some(LinkFault::Stalled) => self.sim.release(cloud, edge),
            Some(LinkFault::Cut | LinkFault::CutUp | LinkFault::CutDown) => {
                self.sim.repair(cloud, edge);
                self.sites[index].shears.reset();
            }
            Some(LinkFault::Slow(_)) => self.latency(index, self.latency),
            None => {}
        }
        match fault {
            Some(LinkFault::Cut) => self.sim.partition(cloud, edge),
            Some(LinkFault::CutUp) => self.sim.partition_oneway(edge, cloud),
            Some(LinkFault::CutDown) => self.sim.partition_oneway(cloud, edge),
            Some(LinkFault::Stalled) => self.sim.hold(cloud, edge),
            Some(LinkFault::Slow(latency)) => self.latency(index, latency),
            None => {}
        }
        let is_cut = matches!(fault, Some(LinkFault::Cut | LinkFault::CutUp | LinkFault::CutDown));
        self.links[index] = LinkState { fault, cut_since: is_cut.then(|| self.sim.elapsed()) };
    }

    fn latency(&self, index: usize, latency: Duration) {
        self.sim.set_link_max_message_latency(self.host(Host::Cloud), self.host(Host::Edge(index)), latency);
    }

    fn crash(&mut self, host: Host, silent: bool) {
        if !self.down.insert(host) {
            return;
        }
        let peers = match host {
            Host::Cloud => 0..self.sites.len(),
            Host::Edge(index) => index..index + 1,
        };
        let address = self.host(host);
        for index in peers.clone() {
            if silent {
                // Its last words are lost.
                self.sim.partition(self.host(Host::Cloud), self.host(Host::Edge(index)));
            }
        }
        self.sim.crash(address);
        if let Host::Edge(index) = host {
            self.sites[index].disk.crash();
        }
        for index in peers {
            if silent {
                self.sim.repair(self.host(Host::Cloud), self.host(Host::Edge(index)));
                let fault = self.links[index].fault;
                self.links[index].fault = None;
                self.link(index, fault);
            }
        }
    }

    fn start(&mut self, host: Host) {
        self.traps.retain(|(trapped, ..)| *trapped != host);
        if self.down.remove(&host) {
            self.sim.bounce(self.host(host));
        }
    }

    /// Lets hosts die at their moments.
    fn spring(&mut self) {
        let entries = self.history.since(self.seen);
        self.seen += entries.len();
        let mut dying = Vec::new();
        for entry in &entries {
            for (host, moment, times) in &mut self.traps {
                if happened(*moment, *host, &entry.event) && *times > 0 {
                    *times -= 1;
                    if *times == 0 {
                        dying.push((*host, *moment));
                    }
                }
            }
        }
        for (host, moment) in dying {
            self.note(format!("{host:?} dies at {moment:?}"));
            self.crash(host, true);
        }
        self.seen = self.history.len();
    }

    /// Ends all trouble.
    fn heal(&mut self) {
        self.history.tick(self.sim.elapsed());
        self.note("all is well again");
        self.traps.clear();
        self.api.trouble(calm());
        self.api.flow();
        for index in 0..self.sites.len() {
            self.link(index, None);
            self.sites[index].disk.full(false);
            self.sites[index].disk.latency(Duration::from_millis(10));
            self.sites[index].reporting.store(false, Ordering::Relaxed);
            self.start(Host::Edge(index));
        }
        self.start(Host::Cloud);
    }

    fn differences(&self) -> Vec<String> {
        let edges: Vec<_> = self
            .sites
            .iter()
            .map(|site| Looked { node: &site.node, disk: &site.disk, tells: site.extensions.inventory })
            .collect();
        truth::differences(&self.api, &self.history, &edges)
    }

    fn is_settled(&self) -> bool {
        // Looking costs more than a step.
        self.sim.elapsed().as_millis().is_multiple_of(200) && self.differences().is_empty()
    }

    /// Whether anything has reached an edge, or left one, since there were so many entries.
    fn moved(&self, entries: usize) -> bool {
        let news = self.history.since(entries);
        news.iter()
            .any(|entry| matches!(entry.event, Event::Received { .. } | Event::Stored { .. } | Event::Left { .. }))
    }

    fn judge(self, settled: Option<Duration>, failure: Option<String>) -> Outcome {
        let at = self.sim.elapsed();
        let mut left: Vec<String> = failure.into_iter().collect();
        left.extend(self.differences());
        if settled.is_none() && left.is_empty() {
            left.push("all agree, and still something moves".to_owned());
        }
        let history = self.history.entries();
        let mut violations = check::check(&history);
        let promise = check::CONVERGENCE;
        violations.extend(left.into_iter().map(|how| Violation { promise, at, how }));
        Outcome { history, violations, settled }
    }

    fn operate(&mut self, edge: usize, slot: usize, work: Work) {
        self.edits += 1;
        let edit = self.edits;
        let pod = Place::namespaced("pods", &format!("pod-{edge}-{slot}"));
        let plural = if slot.is_multiple_of(2) { "configmaps" } else { "secrets" };
        let config = Place::namespaced(plural, &format!("config-{slot}"));
        let api = &self.api;
        let make_pod = || api.create(&pod, pod_object(edge, slot, edit));
        let make_config = || api.create(&config, json!({ "data": { "edit": edit.to_string() } }));
        match work {
            Work::PutPod => {
                if !make_pod() {
                    api.edit(&pod, |pod| pod["metadata"]["annotations"] = json!({ "edit": edit.to_string() }));
                }
            }
            Work::RemovePod => drop(api.remove(&pod)),
            Work::EndPod => drop(api.terminate(&pod)),
            Work::ReplacePod => {
                api.remove(&pod);
                make_pod();
            }
            Work::PutConfig => {
                if !make_config() {
                    api.edit(&config, |config| config["data"] = json!({ "edit": edit.to_string() }));
                }
            }
            Work::RemoveConfig => drop(api.remove(&config)),
            Work::ReplaceConfig => {
                api.remove(&config);
                make_config();
            }
            Work::EditNode => {
                let node = Place::cluster("nodes", &name(edge));
                api.edit(&node, |node| node["metadata"]["labels"]["edit"] = edit.to_string().into());
            }
        }
    }
}

fn name(edge: usize) -> String {
    format!("edge-{edge}")
}

/// A pod that refers to two of the objects of configuration, which it shares with others.
fn pod_object(edge: usize, slot: usize, edit: u64) -> Value {
    let reference = |slot: usize| {
        let name = format!("config-{slot}");
        if slot.is_multiple_of(2) {
            json!({ "name": name, "configMap": { "name": name } })
        } else {
            json!({ "name": name, "secret": { "secretName": name } })
        }
    };
    let other = (slot + 1 + usize::try_from(edit % 3).unwrap_or(0)) % crate::scenario::SLOTS;
    json!({
        "metadata": { "annotations": { "edit": edit.to_string() } },
        "spec": {
            "nodeName": name(edge),
            "containers": [{ "name": "main", "image": "app" }],
            "volumes": [reference(slot), reference(other)],
        },
    })
}

/// Whether an event is the moment at which a host is to die.
fn happened(moment: Moment, host: Host, event: &Event) -> bool {
    let of_host = |edge: &NodeName| match host {
        Host::Cloud => true,
        Host::Edge(index) => edge.as_str() == name(index),
    };
    match (moment, event) {
        (Moment::Received, Event::Received { edge, .. })
        | (Moment::Stored, Event::Stored { edge, .. })
        | (Moment::Answered, Event::Answered { edge, .. })
        | (Moment::Left, Event::Left { edge, .. }) => of_host(edge),
        (Moment::StatusWritten, Event::Written { place, shows: Some(_), .. }) => place.plural == "pods",
        (Moment::RecordWritten, Event::Written { place, .. }) => place.plural.ends_with("objectsyncs"),
        (Moment::Removed, Event::Removed { .. }) => true,
        _ => false,
    }
}
