//! A simulated boiler that speaks Modbus TCP, for `examples/manifests/boiler.yaml`. `cargo run --example boiler`
use kubeedge_mapper::simulator::BoilerServer;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let boiler = BoilerServer::new(tokio::net::TcpListener::bind("127.0.0.1:1502").await?);
    println!("boiler: Modbus TCP at {}, until Ctrl-C", boiler.local_addr()?);
    let (view, stop) = (boiler.view(), CancellationToken::new());
    let _ended = stop.clone().drop_guard();
    tokio::select! {
        () = boiler.run(stop) => {}
        asked = tokio::signal::ctrl_c() => asked?,
    }
    println!("boiler: the water is at {:.1} °C", view.now().water);
    Ok(())
}
