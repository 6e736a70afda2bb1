//! Certificate requests of nodes, and certificates that clients show.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use kubeedge_cloud::pki::{CertificateAuthority, ExtKeyUsages, peer_node_name};
use kubeedge_core::names::{NodeName, UnixMillis};
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

static AUTHORITY: LazyLock<CertificateAuthority> =
    LazyLock::new(|| CertificateAuthority::generate(NOW).expect("an authority"));
static NODE: LazyLock<NodeName> = LazyLock::new(|| NodeName::new("edge-go").expect("a name"));

fuzz_target!(|data: &[u8]| {
    let _ = peer_node_name(&data.into());
    let (authority, node) = (&*AUTHORITY, &*NODE);
    let day = Duration::from_secs(24 * 3600);
    let signed = bounded(data, 64, || authority.sign_edge(data, node, ExtKeyUsages::default(), day, NOW));
    if let Ok(certificate) = signed {
        // Whatever else was asked for, it speaks for that node.
        assert_eq!(peer_node_name(&certificate).expect("a name"), *node);
    }
});
