//! `[[arm]]`: names, endpoints, priors.

use crate::document::Section;
use crate::experiment::id::{ArmId, Name};
use crate::experiment::reward::RewardKind;
use crate::experiment::{Arm, Endpoint};
use crate::policy::prior;

pub(super) fn arm(
    section: &Section<'_>,
    experiment: Option<&Name>,
    reward: Option<RewardKind>,
) -> Option<Arm> {
    let name = section.string("name").and_then(|text| {
        Name::new(text)
            .map_err(|error| {
                section.reject("name", format!("`{text}` is no name"), error.to_string());
            })
            .ok()
    });
    let endpoints = endpoints(section);
    let prior = reward.and_then(|reward| prior::read(section, "prior", reward));
    let version = section.string("version").unwrap_or_default().to_owned();
    let (experiment, name) = (experiment?, name?);
    Some(Arm {
        id: ArmId::of(experiment, &name, &version),
        name,
        version,
        endpoints: endpoints?,
        weight: section.number("weight").unwrap_or(1.0),
        prior,
    })
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
        match endpoint(text) {
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

/// `http://HOST[:PORT]`, with an optional final slash.
fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    const FORM: &str = "an endpoint is http://HOST:PORT, without a path";
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(
                "endpoints over TLS are not supported by this version; use http://HOST:PORT",
            );
        }
        _ => return Err(FORM),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(literal) => literal.split_once(']').ok_or(FORM)?,
        None => authority
            .find(':')
            .map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(FORM)?,
        None if port.is_empty() => 80,
        None => return Err(FORM),
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_:".contains(letter);
    if host.is_empty()
        || !host.chars().all(plain)
        || (host.contains(':') && !authority.starts_with('['))
    {
        return Err(FORM);
    }
    Ok(Endpoint {
        host: host.to_owned(),
        port,
    })
}
