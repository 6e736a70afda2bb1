//! Connections to MQTT brokers, shared by all who want the same one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use kubeedge_core::{mapper::DriverError, service::Causes};
use rumqttc::{
    AsyncClient, ClientError, ConnAck, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing,
    Packet, Publish, QoS, SubscribeFilter,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::{Backoff, Retry};

/// Which broker, and as whom.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct BrokerKey {
    host: String,
    port: u16,
    /// `None` for one that is made up.
    client_id: Option<String>,
    login: Option<(String, String)>,
    keep_alive: u16,
}

impl BrokerKey {
    /// `tcp://host:1883`, also `mqtt://` or no scheme.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("tcp", url));
        if !matches!(scheme, "tcp" | "mqtt") {
            return Err("must start with tcp:// or mqtt://");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let malformed = "must be like tcp://host:1883";
        let uri: Vec<&str> = match rest.strip_prefix('[') {
            Some(v6) => v6.split("]:").collect(),
            None => rest.split(':').collect(),
        };
        let (host, port) = match uri[..] {
            [host] => (host.trim_end_matches(']'), 1883),
            [host, port] => (host, port.parse().map_err(|_| malformed)?),
            _ => return Err(malformed),
        };
        if host.is_empty() || host.contains(['/', '@', '?', ' ']) || port == 0 {
            return Err(malformed);
        }
        Ok(Self { host: host.to_owned(), port, client_id: None, login: None, keep_alive: 30 })
    }

    /// The settings that a device has for its broker.
    #[cfg(feature = "mqtt-device")]
    pub(crate) fn read(settings: crate::settings::Settings<'_>) -> Result<Self, DriverError> {
        let url = settings.text("brokerURL")?.ok_or_else(|| settings.wrong("brokerURL", "the broker is needed"))?;
        let mut key = Self::parse(&url).map_err(|why| settings.wrong("brokerURL", why))?;
        key.client_id = settings.text("clientID")?.filter(|id| !id.is_empty());
        key.login = settings.text("username")?.map(|name| {
            let password = settings.text("password").ok().flatten().unwrap_or_default();
            (name, password)
        });
        key.keep_alive = settings.whole("keepAlive", 1, u16::MAX)?.unwrap_or(30);
        Ok(key)
    }

    fn options(&self) -> MqttOptions {
        let id = match &self.client_id {
            Some(id) => id.clone(),
            None => format!("kubeedge-mapper-{:016x}", fastrand::u64(..)),
        };
        let mut options = MqttOptions::new(id, self.host.clone(), self.port);
        options.set_keep_alive(Duration::from_secs(self.keep_alive.into()));
        options.set_max_packet_size(Broker::MAX_PACKET, Broker::MAX_PACKET);
        if let Some((name, password)) = &self.login {
            options.set_credentials(name, password);
        }
        options
    }
}

impl fmt::Debug for BrokerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The brokers in use. A connection goes when the last who uses it does.
#[derive(Debug, Default)]
pub(crate) struct Brokers(Mutex<HashMap<BrokerKey, Weak<Broker>>>);

impl Brokers {
    /// The connection for `key`; a new one is made in the background, on the present runtime.
    pub(crate) fn broker(&self, key: BrokerKey) -> Arc<Broker> {
        let mut brokers = lock(&self.0);
        brokers.retain(|_, broker| broker.strong_count() > 0);
        if let Some(broker) = brokers.get(&key).and_then(Weak::upgrade) {
            return broker;
        }
        let shared = Arc::new(Shared {
            connected: watch::channel(None).0,
            link: Mutex::default(),
            routes: Mutex::default(),
            wake: Notify::new(),
        });
        let task = tokio::spawn(keep(key.clone(), Arc::clone(&shared)));
        let broker = Arc::new(Broker { shared, _task: AbortOnDropHandle::new(task) });
        brokers.insert(key, Arc::downgrade(&broker));
        broker
    }
}

/// Gets what arrives on a topic. Called by the task of the connection: it must not block.
pub(crate) trait Inbox: Send + Sync {
    fn deliver(&self, topic: &str, payload: &[u8]);
}

/// A connection to a broker that comes back by itself.
pub(crate) struct Broker {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    /// `None` until the first attempt is over.
    connected: watch::Sender<Option<bool>>,
    link: Mutex<Link>,
    routes: Mutex<Routes>,
    wake: Notify,
}

/// What belongs to one connection.
#[derive(Default)]
struct Link {
    client: Option<AsyncClient>,
    /// Publications that wait for their number, in the order in which they are sent.
    queued: VecDeque<oneshot::Sender<()>>,
    /// Publications that wait for their confirmation.
    open: HashMap<u16, oneshot::Sender<()>>,
}

#[derive(Default)]
struct Routes {
    exact: HashMap<String, Vec<Route>>,
    /// Filters with wildcards.
    wild: BTreeMap<String, Vec<Route>>,
    /// Filters that the broker has still to be told of, and their QoS.
    fresh: BTreeSet<(String, u8)>,
}

struct Route {
    qos: u8,
    inbox: Weak<dyn Inbox>,
}

impl Routes {
    fn table(&mut self, filter: &str) -> &mut Vec<Route> {
        if filter.contains(['+', '#']) {
            self.wild.entry(filter.to_owned()).or_default()
        } else {
            self.exact.entry(filter.to_owned()).or_default()
        }
    }

    fn all(&self) -> impl Iterator<Item = (&String, &Vec<Route>)> {
        self.exact.iter().chain(&self.wild)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// Longest packet, in bytes.
    const MAX_PACKET: usize = 1024 * 1024;
    /// Requests on their way to the connection at most.
    const REQUESTS: usize = 64;
    /// Filters in one SUBSCRIBE at most.
    const FILTERS: usize = 16;

    /// Whether the connection stands; `None` until the first attempt is over.
    pub(crate) fn is_connected(&self) -> Option<bool> {
        *self.shared.connected.borrow()
    }

    /// Subscribes `inbox` to `filter`, across reconnections, for as long as the inbox lives.
    pub(crate) fn subscribe(&self, filter: &str, qos: u8, inbox: &Arc<dyn Inbox>) {
        let mut routes = lock(&self.shared.routes);
        let table = routes.table(filter);
        table.retain(|route| route.inbox.strong_count() > 0);
        table.push(Route { qos, inbox: Arc::downgrade(inbox) });
        // A subscription that stands already is made again, since only that brings the retained message.
        routes.fresh.insert((filter.to_owned(), qos));
        self.shared.wake.notify_one();
    }

    /// Forgets inboxes that are gone, and the subscriptions that nobody else has.
    pub(crate) fn unsubscribe<'a>(&self, filters: impl Iterator<Item = &'a str>) {
        let mut routes = lock(&self.shared.routes);
        for filter in filters {
            let table = routes.table(filter);
            table.retain(|route| route.inbox.strong_count() > 0);
            if table.is_empty() {
                routes.exact.remove(filter);
                routes.wild.remove(filter);
                routes.fresh.retain(|(fresh, _)| fresh != filter);
                if let Some(client) = &lock(&self.shared.link).client {
                    // The broker forgets it with the connection at the latest.
                    let _ = client.try_unsubscribe(filter);
                }
            }
        }
    }

    /// Publishes, and waits until the broker has it: with QoS 0 until it is sent, else until it is confirmed.
    ///
    /// Nothing is kept for later: a publication fails with the connection that it was made on.
    pub(crate) async fn publish(
        &self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: Vec<u8>,
        limit: Duration,
    ) -> Result<(), DriverError> {
        let done = {
            let mut link = lock(&self.shared.link);
            let Some(client) = &link.client else {
                return Err(DriverError::Offline("no connection to the broker".into()));
            };
            client.try_publish(topic, quality(qos), retain, payload).map_err(|error| match error {
                ClientError::TryRequest(_) => DriverError::Busy,
                error @ ClientError::Request(_) => DriverError::Refused(error.to_string()),
            })?;
            let (sent, done) = oneshot::channel();
            link.queued.push_back(sent);
            done
        };
        match timeout(limit, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(DriverError::Offline("the connection to the broker broke".into())),
            Err(_) => Err(DriverError::TimedOut),
        }
    }
}

fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// Keeps the connection until it is dropped.
async fn keep(key: BrokerKey, shared: Arc<Shared>) {
    let backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(5) };
    let mut retry = Retry::default();
    let mut complained = false;
    let options = key.options();
    loop {
        // Each connection has a client of its own, so that nothing of an old one is sent on a new one.
        let (client, mut events) = AsyncClient::new(options.clone(), Broker::REQUESTS);
        let since = Instant::now();
        let error = tokio::select! {
            error = session(&shared, &client, &mut events) => error,
            () = resubscribe(&shared, &client) => continue,
        };
        // Dropped, it tells those who wait on it.
        *lock(&shared.link) = Link::default();
        shared.connected.send_replace(Some(false));
        if std::mem::replace(&mut complained, true) {
            tracing::debug!(broker = ?key, error = %Causes(&error), "still no connection to the broker");
        } else {
            tracing::warn!(broker = ?key, error = %Causes(&error), "no connection to the broker");
        }
        if since.elapsed() > backoff.most {
            retry.clear();
            complained = false;
        }
        retry.failed(backoff, Instant::now().into_std());
        sleep(retry.at(Instant::now().into_std()).saturating_duration_since(Instant::now().into_std())).await;
    }
}

/// Runs one connection until it breaks.
async fn session(shared: &Shared, client: &AsyncClient, events: &mut EventLoop) -> ConnectionError {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, .. }))) => {
                {
                    let mut routes = lock(&shared.routes);
                    let all = routes.all().map(|(filter, table)| {
                        (filter.clone(), table.iter().map(|route| route.qos).max().unwrap_or(0))
                    });
                    routes.fresh = all.collect();
                }
                lock(&shared.link).client = Some(client.clone());
                shared.connected.send_replace(Some(true));
                shared.wake.notify_one();
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => deliver(shared, &publish),
            Ok(Event::Incoming(
                Packet::PubAck(rumqttc::PubAck { pkid }) | Packet::PubComp(rumqttc::PubComp { pkid }),
            )) => {
                if let Some(done) = lock(&shared.link).open.remove(&pkid) {
                    let _gone = done.send(());
                }
            }
            Ok(Event::Outgoing(Outgoing::Publish(pkid))) => {
                let mut link = lock(&shared.link);
                if let Some(done) = link.queued.pop_front() {
                    if pkid == 0 {
                        let _gone = done.send(());
                    } else {
                        link.open.insert(pkid, done);
                    }
                }
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// Tells the broker of filters that it does not know yet. Beside the session, since it waits for room in its queue.
async fn resubscribe(shared: &Shared, client: &AsyncClient) {
    let mut connected = shared.connected.subscribe();
    loop {
        if connected.wait_for(|connected| *connected == Some(true)).await.is_err() {
            return;
        }
        let batch: Vec<_> = {
            let mut routes = lock(&shared.routes);
            let batch: Vec<_> = routes.fresh.iter().take(Broker::FILTERS).cloned().collect();
            for filter in &batch {
                routes.fresh.remove(filter);
            }
            batch
        };
        if batch.is_empty() {
            shared.wake.notified().await;
            continue;
        }
        let filters = batch.into_iter().map(|(filter, qos)| SubscribeFilter::new(filter, quality(qos)));
        // It fails only when the session is over, which is seen there.
        let _ = client.subscribe_many(filters).await;
    }
}

fn deliver(shared: &Shared, publish: &Publish) {
    let Publish { topic, payload, .. } = publish;
    let inboxes: Vec<_> = {
        let routes = lock(&shared.routes);
        let wild = routes.wild.iter().filter(|(filter, _)| rumqttc::matches(topic, filter)).map(|(_, table)| table);
        let tables = routes.exact.get(topic).into_iter().chain(wild);
        tables.flatten().filter_map(|route| route.inbox.upgrade()).collect()
    };
    for inbox in inboxes {
        inbox.deliver(topic, payload);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn brokers_are_named_by_url() {
        let of = |url| BrokerKey::parse(url).map(|key| (key.host, key.port));
        assert_eq!(of("tcp://10.0.0.1:1884"), Ok(("10.0.0.1".into(), 1884)));
        assert_eq!(of("mqtt://broker/"), Ok(("broker".into(), 1883)));
        assert_eq!(of("broker:1"), Ok(("broker".into(), 1)));
        assert_eq!(of("tcp://[::1]:1884"), Ok(("::1".into(), 1884)));
        assert_eq!(of("tcp://[::1]"), Ok(("::1".into(), 1883)));
        for wrong in ["ssl://broker:8883", "tcp://", "tcp://a:b", "tcp://a:1/x", "tcp://u@h:1", "a:1:2", "tcp://a:0"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
