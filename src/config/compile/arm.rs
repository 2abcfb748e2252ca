//! `[[arm]]`: names, endpoints, priors.

use super::upstream;
use crate::document::Section;
use crate::experiment::id::{ArmId, Name};
use crate::experiment::reward::RewardKind;
use crate::experiment::{Arm, Endpoint, Matcher, UpstreamRule};
use crate::policy::prior;

/// What the rest of the file says; `None` where it is wrong, which is told already.
pub(super) struct Facts<'a> {
    pub(super) experiment: Option<&'a Name>,
    pub(super) reward: Option<RewardKind>,
    pub(super) matcher: Option<&'a Matcher>,
    pub(super) upstream: &'a UpstreamRule,
    /// Whether `[upstream]` has a `model_field`, rightly or wrongly.
    pub(super) has_model_field: bool,
}

pub(super) fn arm(section: &Section<'_>, facts: &Facts<'_>) -> Option<Arm> {
    let name = section.string("name").and_then(|text| {
        Name::new(text)
            .map_err(|error| {
                section.reject("name", format!("`{text}` is no name"), error.to_string());
            })
            .ok()
    });
    let endpoints = endpoints(section);
    let prior = facts
        .reward
        .and_then(|reward| prior::read(section, "prior", reward));
    let (protocol, host) = (upstream::protocol(section), upstream::host(section));
    let path = upstream::rewrite_path(section, facts.matcher);
    let model = model(section, facts.has_model_field);
    let version = section.string("version").unwrap_or_default().to_owned();
    let (experiment, name) = (facts.experiment?, name?);
    Some(Arm {
        id: ArmId::of(experiment, &name, &version),
        name,
        version,
        endpoints: endpoints?,
        weight: section.number("weight").unwrap_or(1.0),
        prior,
        protocol: protocol.unwrap_or(facts.upstream.protocol),
        host: host.unwrap_or_else(|| facts.upstream.host.clone()),
        path: path.or_else(|| facts.upstream.path.clone()),
        model,
    })
}

fn model(section: &Section<'_>, has_model_field: bool) -> Option<String> {
    let model = section.string("model")?;
    if model.is_empty() {
        section.reject(
            "model",
            "`model` is empty",
            "name the model as this arm's endpoints know it, or leave it out",
        );
    }
    if !has_model_field {
        section.reject_key(
            "model",
            "`model` needs `model_field` in [upstream]",
            "say where in the body it stands, as in model_field = \"/model\"",
        );
    }
    Some(model.to_owned())
}

fn endpoints(section: &Section<'_>) -> Option<Vec<Endpoint>> {
    let texts = section.strings("endpoints");
    if section.has("endpoints") && texts.is_empty() {
        section.reject(
            "endpoints",
            "there is no endpoint",
            "give at least one, as in [\"http://127.0.0.1:9001\"]",
        );
        return None;
    }
    let mut endpoints = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match Endpoint::parse(text) {
            Ok(endpoint) if endpoints.contains(&endpoint) => {
                section.reject_item(
                    "endpoints",
                    index,
                    format!("`{text}` is given twice"),
                    "leave one out",
                );
            }
            Ok(endpoint) => endpoints.push(endpoint),
            Err(help) => section.reject_item(
                "endpoints",
                index,
                format!("`{text}` is not an endpoint"),
                help,
            ),
        }
    }
    (endpoints.len() == texts.len() && !endpoints.is_empty()).then_some(endpoints)
}
