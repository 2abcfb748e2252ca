//! What the traffic earned, against what a uniform split and the best single arm would have earned on the same reviews.

use std::sync::Arc;

use super::stream::Item;
use super::tally::{Outcome, Tally};
use crate::predict::Table;

/// Answers that differ from the table's by more than this share mean that the table is of other models.
const MOST_MISMATCHES: f64 = 0.01;

/// Every arm's answer to every review that was sent, counted: what each arm would have earned alone.
#[derive(Debug, Clone)]
pub struct Counterfactual {
    arms: Vec<String>,
    /// Per item, whether each arm's answer is right; `None` where the table has no such review.
    right: Vec<Option<Vec<bool>>>,
    /// Right answers that each arm would have given to the requests that were answered.
    correct: Vec<u64>,
    requests: u64,
    mismatches: u64,
}

impl Counterfactual {
    /// Takes the answers of `arms` to `items` from `table`; what the table lacks stays unknown.
    pub fn new(table: Option<&Table>, arms: &[String], items: &Arc<[Item]>) -> Self {
        let right = table
            .and_then(|table| answers(table, arms, items))
            .unwrap_or_else(|| vec![None; items.len()]);
        Self {
            arms: arms.to_vec(),
            right,
            correct: vec![0; arms.len()],
            requests: 0,
            mismatches: 0,
        }
    }

    /// Counts one more request.
    pub fn add(&mut self, outcome: &Outcome) {
        let Ok(answered) = &outcome.answer else {
            return;
        };
        self.requests += 1;
        let Some(right) = self.right.get(outcome.item).and_then(Option::as_ref) else {
            self.mismatches += 1;
            return;
        };
        for (correct, right) in self.correct.iter_mut().zip(right) {
            *correct += u64::from(*right);
        }
        let expected = self
            .arms
            .iter()
            .position(|arm| *arm == answered.arm)
            .and_then(|arm| right.get(arm));
        if expected != Some(&(answered.predicted == outcome.stars)) {
            self.mismatches += 1;
        }
    }

    /// Each arm's accuracy had it answered everything; `None` if the table does not fit what was answered.
    fn accuracies(&self) -> Option<Vec<f64>> {
        let fits =
            self.requests > 0 && self.mismatches as f64 <= MOST_MISMATCHES * self.requests as f64;
        fits.then(|| {
            self.correct
                .iter()
                .map(|correct| *correct as f64 / self.requests as f64)
                .collect()
        })
    }

    /// Each arm's accuracy on what it was sent; `None` until every arm has answered.
    fn measured(&self, tally: &Tally) -> Option<Vec<f64>> {
        self.arms
            .iter()
            .map(|arm| tally.arms.get(arm)?.accuracy())
            .collect()
    }
}

fn answers(table: &Table, arms: &[String], items: &Arc<[Item]>) -> Option<Vec<Option<Vec<bool>>>> {
    let columns: Vec<usize> = arms
        .iter()
        .map(|arm| table.variants.iter().position(|variant| variant == arm))
        .collect::<Option<_>>()?;
    let rows: std::collections::HashMap<&str, _> = table
        .rows
        .iter()
        .map(|row| (row.review_id.as_str(), row))
        .collect();
    let answers = items.iter().map(|item| {
        let row = rows.get(item.review_id.as_str())?;
        Some(
            columns
                .iter()
                .map(|column| row.answers[*column].stars == item.stars)
                .collect(),
        )
    });
    Some(answers.collect())
}

/// Accuracy earned, beside its two yardsticks.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// What the traffic earned.
    pub earned: f64,
    /// What an even split over all arms would have earned.
    pub uniform: f64,
    /// The arm that would have earned most alone.
    pub best_arm: String,
    /// What it would have earned.
    pub best: f64,
    /// Whether the yardsticks count the same reviews; else they are estimated from what each arm was sent.
    pub exact: bool,
}

impl Standing {
    /// The standing so far; `None` until every arm has answered or the counterfactual is known.
    pub fn of(tally: &Tally, counterfactual: &Counterfactual) -> Option<Self> {
        let earned = tally.accuracy()?;
        let known = counterfactual.accuracies();
        let exact = known.is_some();
        let accuracies = known.or_else(|| counterfactual.measured(tally))?;
        let (best, best_arm) = accuracies
            .iter()
            .zip(&counterfactual.arms)
            .max_by(|a, b| a.0.total_cmp(b.0))?;
        let uniform = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
        Some(Self {
            earned,
            uniform,
            best_arm: best_arm.clone(),
            best: *best,
            exact,
        })
    }

    /// How much of the way from the uniform split to the best arm was earned; `None` if there is no such way.
    pub fn share_of_the_gain(&self) -> Option<f64> {
        let way = self.best - self.uniform;
        (way > 1e-9).then(|| (self.earned - self.uniform) / way)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::predict::{Answer, Row};
    use crate::traffic::tally::Answered;

    fn row(id: usize, answers: [u8; 2]) -> Row {
        Row {
            review_id: id.to_string(),
            product_category: "Tops".to_owned(),
            star_rating: 5,
            answers: answers
                .map(|stars| Answer {
                    stars,
                    latency_milliseconds: 1.0,
                })
                .to_vec(),
        }
    }

    /// Arm a is right on reviews 0 and 1, arm b on 0, 2 and 3.
    fn table() -> Table {
        let rows = [[5, 5], [5, 1], [1, 5], [1, 5]];
        Table {
            variants: vec!["a".to_owned(), "b".to_owned()],
            rows: rows
                .into_iter()
                .enumerate()
                .map(|(id, answers)| row(id, answers))
                .collect(),
        }
    }

    fn send(choices: &[(usize, &str)], with_table: bool) -> Option<Standing> {
        let table = table();
        let items: Arc<[Item]> = Item::of_table(&table).into();
        let arms = ["a".to_owned(), "b".to_owned()];
        let mut counterfactual = Counterfactual::new(with_table.then_some(&table), &arms, &items);
        let mut tally = Tally::default();
        for (item, arm) in choices {
            let column = usize::from(*arm == "b");
            let outcome = Outcome {
                item: *item,
                stars: 5,
                latency: Duration::from_millis(1),
                answer: Ok(Answered {
                    arm: (*arm).to_owned(),
                    predicted: table.rows[*item].answers[column].stars,
                    decision_id: String::new(),
                }),
            };
            tally.add(&outcome);
            counterfactual.add(&outcome);
        }
        Standing::of(&tally, &counterfactual)
    }

    #[test]
    fn with_a_table_the_yardsticks_are_exact() {
        let standing = send(&[(0, "a"), (1, "a"), (2, "b"), (3, "a")], true).unwrap();
        assert_eq!(
            (standing.earned, standing.uniform, standing.best),
            (0.75, 0.625, 0.75)
        );
        assert_eq!((standing.best_arm.as_str(), standing.exact), ("b", true));
        assert_eq!(standing.share_of_the_gain(), Some(1.0));
    }

    #[test]
    fn without_a_table_they_are_estimated_once_every_arm_has_answered() {
        assert_eq!(send(&[(0, "a")], false), None);
        let standing = send(&[(0, "a"), (3, "a"), (2, "b")], false).unwrap();
        assert_eq!(
            (standing.uniform, standing.best, standing.exact),
            (0.75, 1.0, false)
        );
        assert_eq!(
            send(&[(0, "a"), (0, "b")], false)
                .unwrap()
                .share_of_the_gain(),
            None
        );
    }

    #[test]
    fn a_table_of_other_models_is_not_believed() {
        let table = table();
        let items: Arc<[Item]> = Item::of_table(&table).into();
        let mut counterfactual = Counterfactual::new(Some(&table), &["a".to_owned()], &items);
        let mut tally = Tally::default();
        let outcome = Outcome {
            item: 3,
            stars: 5,
            latency: Duration::ZERO,
            answer: Ok(Answered {
                arm: "a".to_owned(),
                predicted: 5,
                decision_id: String::new(),
            }),
        };
        tally.add(&outcome);
        counterfactual.add(&outcome);
        assert!(!Standing::of(&tally, &counterfactual).unwrap().exact);
    }
}
