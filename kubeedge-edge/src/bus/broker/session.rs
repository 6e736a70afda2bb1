//! What MQTT 3.1.1 asks of the server side of one connection. Sans-IO.

use std::{collections::BTreeSet, time::Duration};

use kubeedge_core::{
    bus::{Event, Qos},
    names::InvalidName,
    topic::{Topic, TopicFilter},
};
use rumqttc::mqttbytes::{
    Protocol,
    v4::{
        Connect, ConnectReturnCode, Packet, PubAck, PubComp, PubRec, PubRel, SubAck, Subscribe, SubscribeReasonCode,
        UnsubAck,
    },
};

use super::{BrokerConfig, access::Rights};
use crate::bus::{
    inflight::Inflight,
    packet::{event_in, publish_out, qos_in, qos_out},
};

/// What a client has done that ends its connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    #[error("bad topic in a publication")]
    Topic(#[from] InvalidName),
    #[error("packet id zero")]
    ZeroId,
    #[error("unexpected packet {0}")]
    Unexpected(&'static str),
}

/// What the connection has to do for a packet.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    Reply(Packet),
    /// Publish, then reply.
    Publish(Event, Option<Packet>),
    /// Subscribe to those that are filters, then reply with [`suback`].
    Subscribe(u16, Vec<Option<(TopicFilter, Qos)>>),
    /// Unsubscribe, then reply.
    Unsubscribe(Vec<TopicFilter>, Packet),
    /// The client leaves in peace: its will is forgotten.
    Leave,
}

/// The state of one connected client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client_id: String,
    /// The client has to send something so often; half of it is granted on top.
    pub(super) keep_alive: Option<Duration>,
    pub(super) will: Option<Event>,
    rights: Rights,
    /// It has been told once that something was refused.
    was_refused: bool,
    inflight: Inflight<()>,
    /// Ids of QoS 2 messages that were published and not released.
    received: BTreeSet<u16>,
}

impl Session {
    /// Lets a client in, or says why not.
    pub(super) fn admit(connect: Connect, config: &BrokerConfig) -> Result<Self, ConnectReturnCode> {
        if connect.protocol != Protocol::V4 {
            return Err(ConnectReturnCode::RefusedProtocolVersion);
        }
        let client_id = match connect.client_id {
            id if !id.is_empty() => id,
            _ if connect.clean_session => format!("auto-{}", uuid::Uuid::new_v4()),
            _ => return Err(ConnectReturnCode::BadClientId),
        };
        let login = connect.login.as_ref().map(|login| (login.username.as_str(), login.password.as_str()));
        let rights = config.access.admit(login, &client_id).ok_or(ConnectReturnCode::BadUserNamePassword)?;
        let will = match connect.last_will {
            None => None,
            Some(will) => {
                let topic = Topic::new(will.topic).ok().filter(|topic| rights.may_publish(topic));
                let topic = topic.ok_or(ConnectReturnCode::NotAuthorized)?;
                Some(Event { topic, payload: will.message, qos: qos_in(will.qos), retain: will.retain })
            }
        };
        let keep_alive = (connect.keep_alive > 0).then(|| Duration::from_secs(connect.keep_alive.into()));
        let (inflight, received) = (Inflight::new(config.inflight), BTreeSet::new());
        Ok(Self { client_id, keep_alive, will, rights, was_refused: false, inflight, received })
    }

    /// Whether [`deliver`](Self::deliver) may be called.
    pub(super) fn has_room(&self) -> bool {
        self.inflight.has_room()
    }

    /// The packet that brings `event` to the client.
    pub(super) fn deliver(&mut self, event: Event) -> Packet {
        let id = match event.qos {
            Qos::AtMostOnce => 0,
            qos => self.inflight.insert(qos, ()),
        };
        Packet::Publish(publish_out(event, id))
    }

    pub(super) fn handle(&mut self, packet: Packet) -> Result<Step, Violation> {
        Ok(match packet {
            Packet::Publish(publish) => {
                let id = publish.pkid;
                let event = event_in(publish)?;
                let allowed = self.may_publish(&event.topic);
                let (fresh, reply) = match event.qos {
                    Qos::AtMostOnce => (true, None),
                    Qos::AtLeastOnce => (true, Some(Packet::PubAck(PubAck::new(id)))),
                    Qos::ExactlyOnce => (self.received.insert(id), Some(Packet::PubRec(PubRec::new(id)))),
                };
                match reply {
                    reply if allowed && fresh => Step::Publish(event, reply),
                    // MQTT 3.1.1 has no answer for what is not allowed: it is confirmed, and goes nowhere.
                    Some(reply) => Step::Reply(reply),
                    None => Step::Nothing,
                }
            }
            Packet::PubRel(PubRel { pkid }) => {
                self.received.remove(&pkid);
                Step::Reply(Packet::PubComp(PubComp::new(pkid)))
            }
            Packet::PubAck(PubAck { pkid }) => {
                self.inflight.acked(pkid);
                Step::Nothing
            }
            Packet::PubRec(PubRec { pkid }) => {
                self.inflight.received(pkid);
                Step::Reply(Packet::PubRel(PubRel::new(pkid)))
            }
            Packet::PubComp(PubComp { pkid }) => {
                self.inflight.completed(pkid);
                Step::Nothing
            }
            Packet::Subscribe(Subscribe { pkid: 0, .. }) => return Err(Violation::ZeroId),
            Packet::Subscribe(subscribe) => {
                let filters = subscribe.filters.into_iter().map(|asked| {
                    let filter = filter(&asked.path).filter(|filter| self.may_subscribe(filter))?;
                    Some((filter, qos_in(asked.qos)))
                });
                Step::Subscribe(subscribe.pkid, filters.collect())
            }
            Packet::Unsubscribe(unsubscribe) if unsubscribe.pkid == 0 => return Err(Violation::ZeroId),
            Packet::Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.topics.iter().filter_map(|text| filter(text)).collect();
                Step::Unsubscribe(filters, Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid)))
            }
            Packet::PingReq => Step::Reply(Packet::PingResp),
            Packet::Disconnect => Step::Leave,
            Packet::Connect(_) => return Err(Violation::Unexpected("CONNECT")),
            Packet::ConnAck(_) => return Err(Violation::Unexpected("CONNACK")),
            Packet::SubAck(_) => return Err(Violation::Unexpected("SUBACK")),
            Packet::UnsubAck(_) => return Err(Violation::Unexpected("UNSUBACK")),
            Packet::PingResp => return Err(Violation::Unexpected("PINGRESP")),
        })
    }
}

impl Session {
    fn may_publish(&mut self, topic: &Topic) -> bool {
        let may = self.rights.may_publish(topic);
        if !may && !std::mem::replace(&mut self.was_refused, true) {
            tracing::warn!(client = self.client_id, %topic, "publication of an mqtt client is not allowed, nor may others be");
        }
        may
    }

    fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        let may = self.rights.may_subscribe(filter);
        if !may {
            tracing::warn!(client = self.client_id, %filter, "subscription of an mqtt client is not allowed");
        }
        may
    }
}

/// The answer to SUBSCRIBE `id`, with the QoS granted to each filter, `None` for a refused one.
pub(super) fn suback(id: u16, granted: impl Iterator<Item = Option<Qos>>) -> Packet {
    let code =
        |qos: Option<Qos>| qos.map_or(SubscribeReasonCode::Failure, |q| SubscribeReasonCode::Success(qos_out(q)));
    Packet::SubAck(SubAck::new(id, granted.map(code).collect()))
}

fn filter(text: &str) -> Option<TopicFilter> {
    if text.starts_with("$share/") {
        return None;
    }
    TopicFilter::new(text).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rumqttc::mqttbytes::{
        QoS,
        v4::{LastWill, Login, Publish, Unsubscribe},
    };

    use super::*;
    use crate::bus::{BrokerAccess, Credentials};

    fn config() -> BrokerConfig {
        BrokerConfig::new("127.0.0.1:0".parse().unwrap())
    }

    fn session() -> Session {
        Session::admit(Connect::new("c"), &config()).unwrap()
    }

    fn publish(topic: &str, qos: QoS, id: u16) -> Packet {
        let mut publish = Publish::new(topic, qos, "x");
        publish.pkid = id;
        Packet::Publish(publish)
    }

    #[test]
    fn who_does_not_fit_is_told_why() {
        let refused = |connect: Connect, config: &BrokerConfig| Session::admit(connect, config).unwrap_err();
        let mut connect = Connect::new("c");
        connect.protocol = Protocol::V5;
        assert_eq!(refused(connect, &config()), ConnectReturnCode::RefusedProtocolVersion);
        let mut connect = Connect::new("");
        connect.clean_session = false;
        assert_eq!(refused(connect, &config()), ConnectReturnCode::BadClientId);
        assert!(!Session::admit(Connect::new(""), &config()).unwrap().client_id.is_empty());
        let mut connect = Connect::new("c");
        connect.last_will = Some(LastWill::new("a/#", "x", QoS::AtMostOnce, false));
        assert_eq!(refused(connect, &config()), ConnectReturnCode::NotAuthorized);
    }

    #[test]
    fn only_the_right_password_opens() {
        let closed = BrokerConfig { access: BrokerAccess::open().user(Credentials::new("u", "p")), ..config() };
        for (login, opens) in
            [(None, false), (Some(("u", "q")), false), (Some(("v", "p")), false), (Some(("u", "p")), true)]
        {
            let mut connect = Connect::new("c");
            connect.login = login.map(|(username, password)| Login::new(username, password));
            assert_eq!(Session::admit(connect, &closed).is_ok(), opens, "{login:?}");
        }
    }

    #[test]
    fn what_rules_do_not_allow_is_confirmed_and_goes_nowhere() {
        let access = BrokerAccess::open().rules("topic read a/#\ntopic write b").unwrap();
        let mut session = Session::admit(Connect::new("c"), &BrokerConfig { access, ..config() }).unwrap();
        assert!(matches!(session.handle(publish("b", QoS::AtLeastOnce, 1)).unwrap(), Step::Publish(..)));
        let confirmed = Step::Reply(Packet::PubAck(PubAck::new(2)));
        assert_eq!(session.handle(publish("a/x", QoS::AtLeastOnce, 2)).unwrap(), confirmed);
        assert_eq!(session.handle(publish("a/x", QoS::AtMostOnce, 0)).unwrap(), Step::Nothing);
        let mut subscribe = Subscribe::new("a/+", QoS::AtMostOnce);
        subscribe.add("#".to_owned(), QoS::AtMostOnce);
        subscribe.pkid = 3;
        let Step::Subscribe(3, filters) = session.handle(Packet::Subscribe(subscribe)).unwrap() else { panic!() };
        assert_eq!(filters, [Some((TopicFilter::new("a/+").unwrap(), Qos::AtMostOnce)), None]);
    }

    #[test]
    fn a_repeated_qos_2_message_is_published_once() {
        let mut session = session();
        let received = Packet::PubRec(PubRec::new(7));
        let first = session.handle(publish("t", QoS::ExactlyOnce, 7)).unwrap();
        assert!(matches!(first, Step::Publish(_, Some(reply)) if reply == received));
        assert_eq!(session.handle(publish("t", QoS::ExactlyOnce, 7)).unwrap(), Step::Reply(received));
        let complete = Step::Reply(Packet::PubComp(PubComp::new(7)));
        assert_eq!(session.handle(Packet::PubRel(PubRel::new(7))).unwrap(), complete);
        assert!(matches!(session.handle(publish("t", QoS::ExactlyOnce, 7)).unwrap(), Step::Publish(..)));
    }

    #[test]
    fn a_wildcard_in_a_publication_ends_the_connection() {
        for topic in ["a/#", "+", ""] {
            assert!(
                matches!(session().handle(publish(topic, QoS::AtMostOnce, 0)), Err(Violation::Topic(_))),
                "{topic:?}"
            );
        }
    }

    #[test]
    fn bad_filters_are_refused_one_by_one() {
        let mut subscribe = Subscribe::new("a/#/b", QoS::AtMostOnce);
        subscribe.add("$hw/#".to_owned(), QoS::AtLeastOnce);
        subscribe.add("$share/g/t".to_owned(), QoS::AtLeastOnce);
        assert!(session().handle(Packet::Subscribe(subscribe.clone())).is_err(), "id zero");
        subscribe.pkid = 3;
        let Step::Subscribe(3, filters) = session().handle(Packet::Subscribe(subscribe)).unwrap() else { panic!() };
        let good = (TopicFilter::new("$hw/#").unwrap(), Qos::AtLeastOnce);
        assert_eq!(filters, [None, Some(good), None]);
    }

    #[test]
    fn unsubscribing_from_nothing_is_confirmed() {
        let mut unsubscribe = Unsubscribe::new("a+");
        unsubscribe.pkid = 4;
        let step = session().handle(Packet::Unsubscribe(unsubscribe)).unwrap();
        assert_eq!(step, Step::Unsubscribe(Vec::new(), Packet::UnsubAck(UnsubAck::new(4))));
    }

    #[test]
    fn the_window_opens_again_with_confirmations() {
        let mut session = Session::admit(Connect::new("c"), &BrokerConfig { inflight: 1, ..config() }).unwrap();
        let event = Event::new(Topic::new("t").unwrap(), "x");
        let Packet::Publish(sent) = session.deliver(event) else { panic!() };
        assert!(sent.pkid != 0 && !session.has_room());
        session.handle(Packet::PubAck(PubAck::new(sent.pkid))).unwrap();
        assert!(session.has_room());
    }
}
