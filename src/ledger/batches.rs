//! Posts that have not been answered: each is answered when all its items are judged and durable.

use std::collections::HashMap;

use super::{Reply, Unavailable};
use crate::rewards::Answer;

/// Where an item's answer belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) batch: u64,
    pub(super) index: usize,
}

#[derive(Debug)]
struct Batch {
    answers: Vec<Option<Answer>>,
    missing: usize,
    reply: Reply<Result<Vec<Answer>, Unavailable>>,
}

/// The unanswered posts.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: HashMap<u64, Batch>,
    next: u64,
    /// Those with an answer that the next commit makes durable.
    touched: Vec<u64>,
}

impl Batches {
    /// A post of `items` items.
    pub(super) fn open(
        &mut self,
        items: usize,
        reply: Reply<Result<Vec<Answer>, Unavailable>>,
    ) -> u64 {
        let id = self.next;
        self.next += 1;
        self.open.insert(
            id,
            Batch {
                answers: vec![None; items],
                missing: items,
                reply,
            },
        );
        id
    }

    /// Whether the post still wants its answer.
    pub(super) fn is_open(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// An item's answer, to be told after the next commit.
    pub(super) fn answer(&mut self, place: Place, answer: Answer) {
        let Some(batch) = self.open.get_mut(&place.batch) else {
            return;
        };
        if let Some(slot) = batch.answers.get_mut(place.index)
            && slot.replace(answer).is_none()
        {
            batch.missing -= 1;
        }
        if self.touched.last() != Some(&place.batch) {
            self.touched.push(place.batch);
        }
    }

    /// What was answered is durable: tells the posts that are complete.
    pub(super) fn committed(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            if self.open.get(&id).is_some_and(|batch| batch.missing == 0)
                && let Some(batch) = self.open.remove(&id)
            {
                let answers = batch.answers.into_iter().flatten().collect();
                // A client that has hung up misses its answer and nothing else.
                batch.reply.send(Ok(answers)).ok();
            }
        }
    }

    /// Gives a post up.
    pub(super) fn refuse(&mut self, id: u64, why: Unavailable) {
        if let Some(batch) = self.open.remove(&id) {
            batch.reply.send(Err(why)).ok();
        }
    }

    /// Gives all posts up.
    pub(super) fn refuse_all(&mut self, why: Unavailable) {
        self.touched.clear();
        for (_, batch) in self.open.drain() {
            batch.reply.send(Err(why)).ok();
        }
    }
}
