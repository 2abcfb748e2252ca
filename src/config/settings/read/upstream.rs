//! `[default]`.

use super::Reading;
use crate::config::settings::DefaultUpstream;
use crate::experiment::Endpoint;
use crate::experiment::upstream::{HostRule, Protocol, RetryRule, Scheme, TlsRule, UpstreamRule};

impl Reading<'_> {
    /// Evaluates every key, whether there is an upstream or not.
    pub(super) fn default_upstream(&self) -> Option<DefaultUpstream> {
        let endpoint = self.default_endpoint();
        let ca_file = self.file("default", "ca_file");
        let is_tls = endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.scheme == Scheme::Https);
        if let (Some(_), false, Some(layer)) = (&ca_file, is_tls, self.layer("default", "ca_file"))
        {
            layer.reject(
                "ca_file",
                "`ca_file` says nothing without an https:// `upstream`",
                "write `upstream` as https://HOST:PORT, or leave `ca_file` out",
            );
        }
        let [connect, response, idle] = ["connect_timeout", "response_timeout", "idle_timeout"]
            .map(|key| self.time("default", key));
        let protocol = match self.string("default", "protocol")? {
            "http1" => Protocol::Http1,
            "http2" => Protocol::Http2,
            _ => Protocol::Auto,
        };
        let host = match self.string("default", "host")? {
            "endpoint" => HostRule::Endpoint,
            _ => HostRule::Keep,
        };
        let rule = UpstreamRule {
            connect_timeout: connect?,
            response_timeout: response?,
            idle_timeout: idle?,
            protocol,
            host,
            // There is no other endpoint that could know better: whatever it answers is passed on.
            retry: RetryRule {
                statuses: Vec::new(),
                ..RetryRule::default()
            },
            tls: TlsRule {
                ca_file,
                ..TlsRule::default()
            },
            ..UpstreamRule::default()
        };
        endpoint.map(|endpoint| DefaultUpstream { endpoint, rule })
    }

    fn default_endpoint(&self) -> Option<Endpoint> {
        let layer = self.layer("default", "upstream")?;
        let text = layer.string("upstream").filter(|text| !text.is_empty())?;
        Endpoint::parse(text)
            .map_err(|help| {
                layer.reject("upstream", format!("`{text}` is not an endpoint"), help);
            })
            .ok()
    }
}
