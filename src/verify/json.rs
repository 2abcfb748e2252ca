//! A verification for programs. Names and types are promised; fields may be added.

use serde_json::{Map, Value, json};

use super::{Torn, Verification};

/// The verification as JSON, without a line feed at its end.
pub fn to_json(found: &Verification) -> String {
    let records: Map<String, Value> = found
        .records
        .iter()
        .map(|(kind, lines)| {
            let lines = json!({"count": lines.count, "bytes": lines.bytes});
            (kind.clone(), lines)
        })
        .collect();
    let problems: Vec<Value> = found
        .problems
        .iter()
        .map(|problem| {
            json!({
                "code": problem.kind.as_str(),
                "segment": problem.segment,
                "offset": problem.offset,
                "message": problem.message,
            })
        })
        .collect();
    let counts: Map<String, Value> = found
        .counts
        .iter()
        .map(|(kind, count)| (kind.as_str().to_owned(), json!(count)))
        .collect();
    let torn = found.torn.as_ref().map(|Torn { segment, range }| {
        json!({"segment": segment, "offset": range.start, "bytes": range.end - range.start})
    });
    let report = json!({
        "ok": found.holds(),
        "segments": found.segments,
        "bytes": found.bytes,
        "groups": found.groups,
        "repeated_groups": found.repeated,
        "first_group": found.numbers.map(|(first, _)| first.to_string()),
        "last_group": found.numbers.map(|(_, last)| last.to_string()),
        "records": records,
        "first_at": found.span.map(|(first, _)| first.to_string()),
        "last_at": found.span.map(|(_, last)| last.to_string()),
        "clock_set_back_millis": found.stepped_back,
        "propensities_compared": found.compared,
        "propensities_not_compared": found.uncompared,
        "checkpoints": found.checkpoints,
        "torn": torn,
        "problems": problems,
        "counts": counts,
    });
    format!("{report:#}")
}
