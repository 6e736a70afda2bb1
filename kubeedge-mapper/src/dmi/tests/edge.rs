//! The socket, and calls that are wrong.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::Duration,
};

use kubeedge_core::{meta::MetaHandle, testing::MemoryStore};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::fake::{Desk, Edge, FakeMapper, within};
use crate::dmi::{
    DmiConfig, DmiHost,
    rpc::ManagerCalls,
    socket::{Socket, dial},
    wire::{
        DeviceStatus, MapperInfo, MapperRegisterRequest, ReportDeviceStatesRequest, ReportDeviceStatusRequest, Twin,
        TwinProperty,
    },
};

fn value(value: &str) -> TwinProperty {
    TwinProperty { value: value.into(), ..TwinProperty::default() }
}

fn report(twin: Twin) -> ReportDeviceStatusRequest {
    ReportDeviceStatusRequest {
        device_name: "boiler".into(),
        reported_device: Some(DeviceStatus { twins: vec![twin], ..DeviceStatus::default() }),
        device_namespace: "default".into(),
    }
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn a_socket_is_replaced_in_one_step_with_its_mode_and_removed_by_its_owner() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("made/for/it/dmi.sock");
    let first = Socket::bind(&path).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o750));
    let inode = fs::metadata(&path).unwrap().ino();
    let second = Socket::bind(&path).unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    drop(first);
    assert!(path.exists(), "it is the second's");
    drop(second);
    assert!(!path.exists());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "nothing is left");
    fs::write(&path, "not a socket").unwrap();
    assert!(Socket::bind(&path).is_err(), "files of others are left alone");
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a socket");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_cannot_be_made_is_tried_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dmi.sock");
    fs::write(&path, "in the way").unwrap();
    let config = DmiConfig::new(&path, MetaHandle::of(MemoryStore::new()), Desk::default().handle());
    let (_host, driver) = DmiHost::new(config);
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(dial(&path).await.is_ok());
    stop.cancel();
    within(running).await.unwrap();
}

#[tokio::test]
async fn calls_that_lack_something_are_refused_with_a_reason() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let dialed = edge.dial().await;
    let manager = ManagerCalls(&dialed.calls);
    let mapper = FakeMapper::new(edge.folder.path(), "modbus").info();
    for (mapper, reason) in [
        (None, "mapper is missing"),
        (Some(MapperInfo { protocol: String::new(), ..mapper.clone() }), "mapper.protocol is missing"),
        (Some(MapperInfo { name: String::new(), ..mapper.clone() }), "mapper.name is missing"),
        (Some(MapperInfo { address: vec![0xff], ..mapper.clone() }), "mapper.address is not the path of a socket"),
        (Some(MapperInfo { address: vec![], ..mapper }), "mapper.address is not the path of a socket"),
    ] {
        let status = manager.mapper_register(MapperRegisterRequest { with_data: true, mapper }).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, reason));
    }
    let whole = Twin { property_name: "level".into(), observed_desired: Some(value("")), reported: Some(value("1")) };
    for (twin, reason) in [
        (Twin { observed_desired: None, ..whole.clone() }, "observedDesired is missing"),
        (Twin { reported: None, ..whole.clone() }, "reported is missing"),
        (Twin { property_name: "bad".into(), ..whole.clone() }, "property bad is refused: it is bad"),
    ] {
        let status = manager.report_device_status(report(twin)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, reason));
    }
    let mut nameless = report(whole.clone());
    nameless.device_name.clear();
    assert_eq!(code(manager.report_device_status(nameless).await), Code::InvalidArgument);
    let nothing = ReportDeviceStatusRequest { reported_device: None, ..report(whole.clone()) };
    assert_eq!(code(manager.report_device_status(nothing).await), Code::InvalidArgument);
    assert_eq!(code(manager.report_device_states(ReportDeviceStatesRequest::default()).await), Code::InvalidArgument);
    assert!(edge.desk.take().is_empty(), "nothing of it was done");
    manager.report_device_status(report(whole)).await.unwrap();
    assert_eq!(edge.desk.take().len(), 1);
}

#[tokio::test]
async fn too_many_reports_and_too_many_mappers_are_told_so() {
    let desk = Desk::default();
    let edge = Edge::start_with(desk.clone(), |mut config| {
        (config.reports, config.mappers) = (2, 1);
        config
    })
    .await;
    edge.host.all_set();
    desk.hold.send_replace(true);
    let whole = Twin { property_name: "level".into(), observed_desired: Some(value("")), reported: Some(value("1")) };
    let dialed = edge.dial().await;
    let manager = ManagerCalls(&dialed.calls);
    let calls = (0..5).map(|_| manager.report_device_status(report(whole.clone())));
    let release = async {
        // The refused ones are answered while the others wait.
        within(async {
            while desk.hold.receiver_count() < 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        desk.hold.send_replace(false);
    };
    let (answers, ()) = within(Box::pin(async { tokio::join!(futures_util::future::join_all(calls), release) })).await;
    let codes: Vec<_> = answers.into_iter().map(code).collect();
    let count = |of| codes.iter().filter(|code| **code == of).count();
    assert_eq!((count(Code::Ok), count(Code::ResourceExhausted)), (2, 3), "{codes:?}");
    assert_eq!(desk.take().len(), 2);

    edge.register(&FakeMapper::new(edge.folder.path(), "modbus")).await;
    let request =
        MapperRegisterRequest { with_data: true, mapper: Some(FakeMapper::new(edge.folder.path(), "opcua").info()) };
    assert_eq!(code(manager.mapper_register(request).await), Code::ResourceExhausted);
}

#[tokio::test]
async fn reports_of_a_device_share_commits_and_none_suffers_for_another() {
    let desk = Desk::default();
    let edge = Edge::start_with(desk.clone(), |config| config).await;
    let dialed = edge.dial().await;
    let manager = ManagerCalls(&dialed.calls);
    desk.hold.send_replace(true);
    let calls = [("level", "1"), ("bad", "2"), ("other", "3"), ("level", "4"), ("level", "5")].map(|(name, has)| {
        let twin = Twin { property_name: name.into(), observed_desired: Some(value("")), reported: Some(value(has)) };
        manager.report_device_status(report(twin))
    });
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        desk.hold.send_replace(false);
    };
    let (answers, ()) = within(Box::pin(async { tokio::join!(futures_util::future::join_all(calls), release) })).await;
    let codes: Vec<_> = answers.into_iter().map(code).collect();
    assert_eq!(codes, [Code::Ok, Code::InvalidArgument, Code::Ok, Code::Ok, Code::Ok]);
    let told: Vec<_> = desk.take().into_iter().map(|(_, _, name, value, _)| (name, value)).collect();
    let expected = [("level", "1"), ("other", "3"), ("level", "4"), ("level", "5")];
    assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())), "each value, in order");
}

#[tokio::test]
async fn unknown_calls_are_unimplemented() {
    let edge = Edge::start().await;
    let dialed = edge.dial().await;
    let answer = crate::dmi::rpc::MapperCalls(&dialed.calls).get_device(crate::dmi::wire::DeviceName::default()).await;
    assert_eq!(code(answer), Code::Unimplemented);
}
