//! Quality of service class of a pod.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity};

/// The class that follows from requests and limits of CPU and memory.
///
/// Upstream: Kubernetes, `pkg/apis/core/v1/helper/qos`.
pub(super) fn class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let mut any = false;
    let mut guaranteed = true;
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let resources = container.resources.clone().unwrap_or_default();
        for resource in ["cpu", "memory"] {
            let limit = given(resources.limits.as_ref(), resource);
            // A request that is not given is the limit.
            let request = given(resources.requests.as_ref(), resource).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn given<'a>(quantities: Option<&'a BTreeMap<String, Quantity>>, name: &str) -> Option<&'a str> {
    quantities?.get(name).map(|quantity| quantity.0.as_str()).filter(|text| *text != "0")
}
