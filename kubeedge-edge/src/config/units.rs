//! Values in the notations of Go.

#[cfg(feature = "dmi")]
use std::path::{Path, PathBuf};
use std::{net::SocketAddr, time::Duration};

/// Reads a duration such as `10s`, `1m30s` or `300ms`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match rest.get(..unit)? {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = rest.get(unit..)?;
    }
    (!text.is_empty()).then_some(total)
}

/// Reads the address that a broker listens on, such as `tcp://127.0.0.1:1884`.
pub(super) fn listen_address(url: &str) -> Option<SocketAddr> {
    let address = url.split_once("://").map_or(Some(url), |(scheme, rest)| (scheme == "tcp").then_some(rest))?;
    address.strip_prefix("localhost:").map_or_else(
        || address.parse().ok(),
        |port| port.parse().ok().map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
    )
}

/// The socket for mappers at the place that `modules.deviceTwin.dmiSockPath` names.
///
/// Upstream: `edge/pkg/devicetwin/dmiserver` (a value that ends in `.sock` means its folder).
#[cfg(feature = "dmi")]
pub(super) fn dmi_socket(configured: &str) -> PathBuf {
    let path = Path::new(configured);
    let is_socket = path.extension().is_some_and(|extension| extension == "sock");
    let folder = if is_socket { path.parent().unwrap_or(Path::new("")) } else { path };
    folder.join(kubeedge_mapper::dmi::DmiConfig::SOCKET_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "dmi")]
    #[test]
    fn the_socket_for_mappers_is_in_the_configured_folder() {
        for (configured, socket) in [
            ("/etc/kubeedge/", "/etc/kubeedge/dmi.sock"),
            ("/run/edge", "/run/edge/dmi.sock"),
            ("/run/edge/other.sock", "/run/edge/dmi.sock"),
            ("dmi.sock", "dmi.sock"),
        ] {
            assert_eq!(dmi_socket(configured), Path::new(socket), "{configured}");
        }
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "10", "s", "10 s", "ten", "-1s", "1d", "1e400h", "..s"] {
            assert_eq!(duration(wrong), None, "{wrong:?} is no duration");
        }
    }

    #[test]
    fn listen_addresses_are_urls_or_not() {
        for text in ["tcp://127.0.0.1:1884", "127.0.0.1:1884", "tcp://localhost:1884"] {
            assert_eq!(listen_address(text), Some(SocketAddr::from(([127, 0, 0, 1], 1884))), "{text}");
        }
        assert_eq!(listen_address("ssl://127.0.0.1:1884"), None);
        assert_eq!(listen_address("tcp://127.0.0.1"), None);
    }
}
