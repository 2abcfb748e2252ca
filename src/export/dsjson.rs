//! "Decision service JSON", which Vowpal Wabbit reads with `--dsjson --cb_explore_adf` (or `--cb_adf`). A line for each decision that was
//! drawn and credited; the others teach nothing.
//!
//! The cost is what the decision was credited with, with the sign that makes less of it better. The arms that could be drawn are the
//! actions, in the order of the allocation; the chosen one stands first in `a` and `p`, as Vowpal Wabbit writes it.

use std::io::{self, Write};

use super::Sink;
use super::buffer::Buffer;
use super::row::{Row, write_context};
use crate::experiment::decision::Reason;
use crate::experiment::reward::Goal;
use crate::journal::scalar::{TimeWriter, write_decimal, write_json};

pub(super) struct Dsjson<'a> {
    buffer: Buffer<'a>,
    time: TimeWriter,
}

impl<'a> Dsjson<'a> {
    pub(super) fn new(output: Box<dyn Write + Send + 'a>) -> Self {
        Self {
            buffer: Buffer::new(output),
            time: TimeWriter::new(),
        }
    }
}

impl Sink for Dsjson<'_> {
    fn row(&mut self, row: &Row<'_>) -> io::Result<bool> {
        let decision = &row.logged.decision;
        let (Some(credit), Some(distribution)) = (row.fate.credit(), row.distribution) else {
            return Ok(false);
        };
        let arms = &distribution.arms;
        let chosen = arms.iter().position(|(arm, _)| **arm == *row.arm);
        let Some(chosen) = chosen.filter(|_| decision.reason == Reason::Sampled) else {
            return Ok(false);
        };
        let cost = match row.fate.goal {
            Some(Goal::Minimize) => credit,
            // Not its negation, which makes a reward of 0 a cost of -0.
            _ => 0.0 - credit,
        };
        let line = self.buffer.lines();
        line.extend_from_slice(b"{\"_label_cost\":");
        write_json(line, &cost);
        line.extend_from_slice(b",\"_label_probability\":");
        write_json(line, &decision.propensity);
        line.extend_from_slice(b",\"_label_Action\":");
        write_decimal(line, chosen as u64 + 1);
        line.extend_from_slice(b",\"_labelIndex\":");
        write_decimal(line, chosen as u64);
        line.extend_from_slice(b",\"Timestamp\":\"");
        self.time.write(line, decision.at);
        line.extend_from_slice(b"\",\"Version\":\"1\",\"EventId\":");
        write_json(line, row.id);
        let first = std::iter::once(chosen);
        let order = first.chain((0..arms.len()).filter(|arm| *arm != chosen));
        list(line, b",\"a\":[", order.clone(), |line, arm| {
            write_decimal(line, arm as u64 + 1);
        });
        line.extend_from_slice(b",\"c\":{");
        if let Some(context) = row.context() {
            line.extend_from_slice(b"\"Context\":");
            write_context(line, context, |_| true);
            line.push(b',');
        }
        list(line, b"\"_multi\":[", 0..arms.len(), |line, arm| {
            line.extend_from_slice(b"{\"Arm\":{\"id\":");
            write_json(line, &*arms[arm].0);
            line.extend_from_slice(b"}}");
        });
        list(line, b"},\"p\":[", order, |line, arm| {
            write_json(line, &arms[arm].1);
        });
        line.extend_from_slice(b",\"VWState\":{\"m\":\"");
        write!(line, "{}", decision.policy_version)?;
        line.extend_from_slice(b"\"}}\n");
        self.buffer.write_some()?;
        Ok(true)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.buffer.finish()
    }
}

/// `open`, the items with commas between them, and a closing bracket.
fn list(
    line: &mut Vec<u8>,
    open: &[u8],
    items: impl Iterator<Item = usize>,
    write: impl Fn(&mut Vec<u8>, usize),
) {
    line.extend_from_slice(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            line.push(b',');
        }
        write(line, item);
    }
    line.push(b']');
}
