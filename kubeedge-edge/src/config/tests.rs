#![allow(clippy::unwrap_used)]
use super::*;

const NATIVE: &str = "modules: {edged: {tailoredKubeletConfig: {containerRuntimeEndpoint: 'native://'}}}";
