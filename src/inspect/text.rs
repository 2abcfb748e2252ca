//! An inspection for people.

use super::redraw::{Chance, Redraw, Source};
use super::{Inspection, Signature, why_not_drawn};
use crate::engine::event::Rewarded;
use crate::experiment::context::Value;
use crate::experiment::decision::{Ending, Label, Outcome};
use crate::experiment::id::ArmId;

/// Width of the column of field names.
const NAMES: usize = 12;

/// Between two facts on a line.
const AND: &str = " · ";

/// Green and red, in ANSI's codes.
const GOOD: &str = "32";
const BAD: &str = "1;31";

/// ANSI escapes, or nothing.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn good(self, text: &str) -> String {
        self.with(GOOD, text)
    }

    fn bad(self, text: &str) -> String {
        self.with(BAD, text)
    }

    fn strong(self, text: &str) -> String {
        self.with("1", text)
    }
}

/// Lines of a field's name and what is to be said of it.
struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn line(&mut self, name: &str, said: &str) {
        self.line_in("34", name, said);
    }

    /// A line whose name has a colour of its own.
    fn line_in(&mut self, code: &str, name: &str, said: &str) {
        let name = self.paint.with(code, &format!("{name:<NAMES$}"));
        self.text.push_str(&format!("{name} {said}\n"));
    }

    fn facts(&mut self, name: &str, facts: &[Option<String>]) {
        let facts: Vec<&str> = facts.iter().flatten().map(String::as_str).collect();
        self.line(name, &facts.join(AND));
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }
}

/// The inspection as lines of text; `color` adds ANSI escapes.
pub fn render(inspection: &Inspection, color: bool) -> String {
    let mut page = Page {
        text: String::new(),
        paint: Paint(color),
    };
    id(&mut page, inspection);
    page.gap();
    journal(&mut page, inspection);
    page.gap();
    draw(&mut page, inspection);
    page.gap();
    verdict(&mut page, inspection);
    page.text
}

fn id(page: &mut Page, inspection: &Inspection) {
    let decision = &inspection.decision;
    let paint = page.paint;
    page.line("decision", &paint.strong(&inspection.id));
    let signature = match inspection.signature {
        Signature::Valid => paint.good("valid"),
        Signature::Forged => paint.bad("FORGED"),
        Signature::UnknownKey => paint.bad("by a key that is not in the secret file"),
    };
    page.line("signature", &signature);
    page.facts(
        "experiment",
        &[
            Some(paint.strong(&inspection.experiment())),
            Some(format!("epoch {}", decision.epoch)),
            Some(format!("policy {}", decision.policy_version)),
        ],
    );
    page.facts(
        "arm",
        &[
            Some(paint.strong(&inspection.arm(decision.arm))),
            Some(format!(
                "{} with probability {:?}",
                decision.reason, decision.propensity
            )),
        ],
    );
    page.line("time", &decision.at.to_string());
    let sequence = decision.sequence;
    page.facts(
        "sequence",
        &[
            Some(format!("origin {:016x}", sequence.origin)),
            Some(format!("worker {}", sequence.worker)),
            Some(format!("counter {}", sequence.counter)),
        ],
    );
}

fn journal(page: &mut Page, inspection: &Inspection) {
    let evidence = &inspection.evidence;
    let paint = page.paint;
    let Some(record) = &evidence.record else {
        page.line("journal", &paint.bad("not there"));
        return;
    };
    page.facts(
        "journal",
        &[
            Some(paint.good("recorded")),
            Some(format!("allocation {}", record.allocation_version)),
            record.unit.map(|unit| format!("unit {:016x}", unit.0)),
        ],
    );
    if let Some(context) = record.context.as_ref().and_then(|logged| logged.found()) {
        let names = context.names.iter();
        let facts: Vec<Option<String>> = names
            .zip(&context.values)
            .map(|(name, value)| Some(format!("{} {}", name.escape_debug(), shown(value))))
            .collect();
        page.facts("context", &facts);
    }
    if let Some(original) = &evidence.instead_of {
        page.line("instead of", inspection.keys.encode(original).as_str());
    }
    if let Some(fallback) = &evidence.answered_by {
        page.line("answered by", inspection.keys.encode(fallback).as_str());
    }
    match &evidence.outcome {
        Some(outcome) => page.facts("outcome", &ended(outcome)),
        None => page.line("outcome", "none in the journal"),
    }
    if evidence.rewards.is_empty() {
        page.line("rewards", "none in the journal");
    }
    for (index, rewarded) in evidence.rewards.iter().enumerate() {
        page.facts(if index == 0 { "rewards" } else { "" }, &reward(rewarded));
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Missing => "missing".into(),
        Value::Number(number) => format!("{number:?}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::Text(text) => format!("{text:?}"),
    }
}

/// What clients sent is quoted, so that it cannot steer the terminal.
fn label(label: &Label) -> String {
    match label {
        Label::Number(number) => format!("{number:?}"),
        Label::Boolean(truth) => truth.to_string(),
        Label::Text(text) => format!("{text:?}"),
    }
}

fn ended(outcome: &Outcome) -> [Option<String>; 3] {
    let ending = match outcome.ending {
        Ending::Answered => "answered",
        Ending::Failed => "the arm failed",
        Ending::Aborted => "the client left, or its body was bad",
    };
    let status = outcome
        .status
        .map(|status| format!(" with status {status}"));
    [
        Some(format!("{ending}{}", status.unwrap_or_default())),
        Some(format!("{:.3} ms", outcome.latency_micros as f64 / 1e3)),
        outcome
            .prediction
            .as_ref()
            .map(|prediction| format!("prediction {}", label(prediction))),
    ]
}

fn reward(rewarded: &Rewarded) -> [Option<String>; 6] {
    let value = if rewarded.value.is_nan() {
        String::new()
    } else {
        format!(" {:?}", rewarded.value)
    };
    let after = rewarded.received.since(rewarded.decision.at);
    [
        Some(format!("{}{value}", rewarded.verdict.as_str())),
        rewarded
            .label
            .as_ref()
            .map(|given| format!("label {}", label(given))),
        rewarded
            .metric
            .as_ref()
            .map(|metric| format!("metric {metric}")),
        rewarded.id.as_ref().map(|id| format!("id {id:?}")),
        Some(format!("{} after the decision", duration(after))),
        rewarded.at.map(|at| format!("client's time {at}")),
    ]
}

/// Milliseconds, for people.
fn duration(millis: u64) -> String {
    let seconds = millis as f64 / 1e3;
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{seconds:.3} s"),
        120_000..7_200_000 => format!("{:.1} min", seconds / 60.0),
        7_200_000..172_800_000 => format!("{:.1} h", seconds / 3_600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

fn draw(page: &mut Page, inspection: &Inspection) {
    let evidence = &inspection.evidence;
    let Some(record) = &evidence.record else {
        page.line("draw", "cannot be made again without its record");
        return;
    };
    match &inspection.redraw {
        Redraw::NotDrawn => {
            let why = why_not_drawn(record.decision.reason, record.instead_of.is_some());
            let why = why.unwrap_or_default();
            page.line("draw", &format!("none to be made again: {why}"));
        }
        Redraw::Impossible => {
            let what = "cannot be made again: what it was drawn from is not in the journal";
            page.line("draw", what);
        }
        Redraw::Drawn {
            source,
            probabilities,
            chance,
            drawn,
        } => {
            let from = match (source, &evidence.allocation) {
                (Source::Allocation, Some(allocation)) => {
                    format!(
                        "from allocation {} of {}",
                        allocation.version, allocation.at
                    )
                }
                (Source::Remaining, _) => format!(
                    "from the probabilities in its own record: those of allocation {} over the arms that were available",
                    record.allocation_version
                ),
                _ => "from the probabilities in its own record, which depend on its context".into(),
            };
            page.line("draw", &from);
            let by = match chance {
                Chance::Uniform(uniform) => {
                    format!("by {uniform:?}, the uniform number of its sequence key")
                }
                Chance::Unit(unit) => {
                    format!(
                        "by the rendezvous hashes of unit {:016x} and each arm",
                        unit.0
                    )
                }
            };
            page.line("", &by);
            let rows = rows(inspection, probabilities, matches!(chance, Chance::Unit(_)));
            for ((arm, _), row) in probabilities.iter().zip(rows) {
                let is_drawn = drawn.is_some_and(|(drawn, _)| drawn == *arm);
                let mark = if is_drawn { '▸' } else { ' ' };
                let row = format!("{mark} {row}");
                let paint = page.paint;
                page.line("", &if is_drawn { paint.strong(&row) } else { row });
            }
        }
    }
}

/// Arm, probability and, where a uniform number decides, the stretch of [0, 1) that is the arm's.
fn rows(inspection: &Inspection, probabilities: &[(ArmId, f64)], sticky: bool) -> Vec<String> {
    let names: Vec<String> = probabilities
        .iter()
        .map(|(arm, _)| inspection.arm(*arm))
        .collect();
    let numbers: Vec<String> = probabilities
        .iter()
        .map(|(_, probability)| format!("{probability:?}"))
        .collect();
    let width = |cells: &[String]| cells.iter().map(String::len).max().unwrap_or(0);
    let (left, middle) = (width(&names), width(&numbers));
    let mut start = 0.0;
    let mut rows = Vec::new();
    for ((name, number), (_, probability)) in names.iter().zip(&numbers).zip(probabilities) {
        let end = start + probability;
        let stretch = if sticky || *probability == 0.0 {
            String::new()
        } else {
            format!("  [{start:.6}, {end:.6})")
        };
        rows.push(
            format!("{name:<left$}  {number:<middle$}{stretch}")
                .trim_end()
                .to_owned(),
        );
        start = end;
    }
    rows
}

fn verdict(page: &mut Page, inspection: &Inspection) {
    if inspection.holds() {
        let said = match &inspection.redraw {
            Redraw::Drawn { .. } => {
                "the signature is valid, and the draw, made again, gives the same arm and propensity"
            }
            _ => "the signature is valid, and the journal has the decision as the id says it",
        };
        page.line_in(GOOD, "ok", said);
        return;
    }
    for problem in &inspection.problems {
        page.line_in(BAD, "not ok", &problem.to_string());
    }
}
