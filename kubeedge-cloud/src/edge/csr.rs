//! Certificate signing requests: a node may ask for its own serving certificate.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kubeedge_core::answer::ApiStatus;
use serde_json::Value;
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer as _};

use super::{
    authorize::{forbidden, found},
    uplink::{Done, Outcome, Parts, Request},
};
use crate::{object::Kind, pki::node_of_subject};

const SERVING: &str = "kubernetes.io/kubelet-serving";

impl Parts {
    pub(super) async fn create_signing_request(&self, request: &Request<'_>) -> Outcome {
        let body = request.object(&Kind::SIGNING_REQUEST)?;
        check(request, &body)?;
        self.calls_of(request.node).create(&Kind::SIGNING_REQUEST, None, &body).await.map(|made| Done::object(&made))
    }

    pub(super) async fn query_signing_request(&self, request: &Request<'_>) -> Outcome {
        let stored = found(self.calls.get(request.place(&Kind::SIGNING_REQUEST)).await)?.unwrap_or_default();
        // The same answer for one that is not there.
        check(request, &stored).map_err(|_| forbidden(request, "the node has made no such request"))?;
        Ok(Done::object(&stored))
    }
}

/// The subject has to be the node, and the signer the one for kubelets' servers.
fn check(request: &Request<'_>, object: &Value) -> Result<(), ApiStatus> {
    let spec = &object["spec"];
    if spec["signerName"].as_str() != Some(SERVING) {
        return Err(forbidden(request, "the signer is not that of serving certificates"));
    }
    let pem = spec["request"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let der = pem.and_then(|pem| Some(parse_x509_pem(&pem).ok()?.1.contents));
    let node = der.and_then(|der| {
        let (_, parsed) = X509CertificationRequest::from_der(&der).ok()?;
        node_of_subject(&parsed.certification_request_info.subject)
    });
    if node.as_ref() == Some(request.node) { Ok(()) } else { Err(forbidden(request, "the subject is not the node")) }
}
