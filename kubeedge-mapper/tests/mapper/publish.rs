//! Push methods, against mosquitto and Python's http.server.

use std::{sync::Arc, time::Duration};

use kubeedge_core::mapper::Value;
use kubeedge_mapper::push::{HttpPublisher, MqttPublisher};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    host::Site,
    mosquitto::{Mosquitto, Sub},
    soon,
    web::Web,
};

fn site() -> Site {
    Site::with(|mut config| {
        config.publishers = vec![Arc::new(HttpPublisher::new()), Arc::new(MqttPublisher::new())];
        config.backoff.first = Duration::from_millis(50);
        config.backoff.most = Duration::from_millis(200);
        config
    })
}

/// What the server was sent so far.
async fn log(port: u16) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let _ = tokio::time::timeout(Duration::from_millis(500), read).await;
    answer.split_once("\r\n\r\n").map(|(_, log)| log.lines().map(str::to_owned).collect()).unwrap_or_default()
}

#[tokio::test]
async fn values_are_posted_as_a_form_and_the_newest_survives_an_outage() {
    let web = Web::start();
    let site = site();
    let push =
        json!({"http": {"hostName": "http://127.0.0.1", "port": web.port, "requestPath": "/value/t", "timeout": 20}});
    site.set(&json!({"properties": [
        {"name": "temperature", "collectCycle": 20, "reportCycle": 20, "pushMethod": push}]}));
    let wait = async |what: &str| {
        let arrived = async {
            loop {
                let log = log(web.port).await;
                if let Some(line) = log.iter().find(|line| line.contains(what)) {
                    return line.clone();
                }
            }
        };
        soon(what, arrived).await
    };
    let line = wait("temperature=20&").await;
    let form = "POST /value/t application/x-www-form-urlencoded None temperature=20&time=";
    let time = line.strip_prefix(form).unwrap_or_else(|| panic!("{line}"));
    assert!(time.len() == 19 && time.as_bytes()[10] == b' ', "{time}");
    site.plant.set("temperature", Value::Float(21.5));
    wait("temperature=21.5&").await;
    site.shutdown.cancel();
}

#[tokio::test]
async fn values_are_published_as_text_and_the_newest_survives_an_outage() {
    let mut broker = Mosquitto::start().await;
    let site = site();
    let push = |topic: &str| json!({"mqtt": {"address": broker.url(), "topic": topic, "qos": 1, "retained": true}});
    site.set(&json!({"properties": [
        {"name": "temperature", "collectCycle": 20, "reportCycle": 20, "pushMethod": push("plant/t")},
        {"name": "setpoint", "collectCycle": 20, "reportCycle": 20, "pushMethod": push("plant/s")}]}));
    let port = broker.port;
    let wait = async |topic: &str, what: &str| {
        let mut sub = Sub::start(port, topic).await;
        loop {
            let message = sub.next().await;
            if message.ends_with(what) {
                return message;
            }
        }
    };
    let message = soon("a value", wait("plant/t", "  plant/t: 20")).await;
    assert!(message.contains(" time is ") && message.starts_with("plant/t 1 "), "{message}");
    soon("another value", wait("plant/s", "  plant/s: 45")).await;
    broker.kill().await;
    site.plant.set("temperature", Value::Float(30.0));
    site.plant.set("temperature", Value::Float(31.0));
    broker.restart().await;
    soon("the newest value", wait("plant/t", "  plant/t: 31")).await;
    site.shutdown.cancel();
}
