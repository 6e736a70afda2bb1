//! Join tokens: as they come, and with header and claims of the attacker's choice under a good signature. The first line
//! is the header, the rest are the claims.
#![no_main]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kubeedge_cloud::pki::{ExtKeyUsages, JoinToken};
use kubeedge_core::names::UnixMillis;
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use serde_json::Value;

const KEY: &[u8] = b"test-ca-key-der";
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    bounded(data, 256, || {
        let _ = JoinToken::verify(text, KEY, NOW);
        let _ = ExtKeyUsages::parse(Some(text));
    });
    let Some((header, claims)) = text.split_once('\n') else { return };
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    if bounded(data, 256, || JoinToken::verify(&token, KEY, NOW)).is_ok() {
        let (header, claims): (Value, Value) =
            (serde_json::from_str(header).expect("JSON"), serde_json::from_str(claims).expect("JSON"));
        // A list of the members in their order is read as the object; it is signed, after all.
        let member = |value: &Value, name: &str| value.get(name).or_else(|| value.get(0)).cloned();
        assert_eq!(member(&header, "alg"), Some("HS256".into()));
        assert!(member(&claims, "exp").and_then(|exp| exp.as_i64()).expect("a number") > NOW.0 / 1000);
    }
});
