//! What the traffic earned, against what a uniform split and the best single arm would have earned on the same reviews.

use std::sync::Arc;

use super::stream::Item;
use super::tally::{Outcome, Tally};
use crate::predict::Table;
use crate::reviews::Domain;

/// Answers that differ from the table's by more than this share mean that the table is of other models.
const MOST_MISMATCHES: f64 = 0.01;

/// Every arm's answer to every review that was sent, counted: what each arm would have earned alone.
#[derive(Debug, Clone)]
pub struct Counterfactual {
    arms: Vec<String>,
    /// Per item, whether each arm's answer is right; `None` where the table has no such review.
    right: Vec<Option<Vec<bool>>>,
    /// In the order of [`Domain::ALL`].
    counts: [Counts; 3],
    mismatches: u64,
}

/// The answered requests of one kind of review; lists are in the order of the arms.
#[derive(Debug, Clone, Default)]
struct Counts {
    requests: u64,
    /// Right answers that each arm would have given to all of them.
    known: Vec<u64>,
    /// What each arm answered.
    answered: Vec<u64>,
    /// How much of that is right.
    correct: Vec<u64>,
}

impl Counts {
    fn of(arms: usize) -> Self {
        Self {
            requests: 0,
            known: vec![0; arms],
            answered: vec![0; arms],
            correct: vec![0; arms],
        }
    }

    /// Each arm's accuracy had it answered everything.
    fn known(&self) -> Vec<f64> {
        let share = |correct: &u64| *correct as f64 / self.requests as f64;
        self.known.iter().map(share).collect()
    }

    /// Each arm's accuracy on what it was sent; `None` until every arm has answered.
    fn measured(&self) -> Option<Vec<f64>> {
        self.correct
            .iter()
            .zip(&self.answered)
            .map(|(correct, answered)| (*answered > 0).then(|| *correct as f64 / *answered as f64))
            .collect()
    }
}

/// One kind of review: its share of the traffic, and each arm's accuracy on it.
type Accuracies = (Domain, f64, Vec<f64>);

impl Counterfactual {
    /// Takes the answers of `arms` to `items` from `table`; what the table lacks stays unknown.
    pub fn new(table: Option<&Table>, arms: &[String], items: &Arc<[Item]>) -> Self {
        let right = table
            .and_then(|table| answers(table, arms, items))
            .unwrap_or_else(|| vec![None; items.len()]);
        Self {
            arms: arms.to_vec(),
            right,
            counts: std::array::from_fn(|_| Counts::of(arms.len())),
            mismatches: 0,
        }
    }

    /// Counts one more request.
    pub fn add(&mut self, outcome: &Outcome) {
        let Ok(answered) = &outcome.answer else {
            return;
        };
        let counts = &mut self.counts[outcome.domain as usize];
        counts.requests += 1;
        let is_right = answered.predicted == outcome.stars;
        let arm = self.arms.iter().position(|arm| *arm == answered.arm);
        if let Some(arm) = arm {
            counts.answered[arm] += 1;
            counts.correct[arm] += u64::from(is_right);
        }
        let Some(right) = self.right.get(outcome.item).and_then(Option::as_ref) else {
            self.mismatches += 1;
            return;
        };
        for (known, right) in counts.known.iter_mut().zip(right) {
            *known += u64::from(*right);
        }
        if arm.and_then(|arm| right.get(arm)) != Some(&is_right) {
            self.mismatches += 1;
        }
    }

    fn requests(&self) -> u64 {
        self.counts.iter().map(|counts| counts.requests).sum()
    }

    /// Whether the table fits what was answered.
    fn fits(&self) -> bool {
        let requests = self.requests();
        requests > 0 && self.mismatches as f64 <= MOST_MISMATCHES * requests as f64
    }

    /// Every arm's accuracy on every kind of review that was sent: known if the table fits, else measured; `None` until there is something to
    /// measure. Kind by kind, because a policy that looks at requests sends each arm what it is good at.
    fn accuracies(&self) -> Option<Vec<Accuracies>> {
        let fits = self.fits();
        let requests = self.requests() as f64;
        Domain::ALL
            .into_iter()
            .zip(&self.counts)
            .filter(|(_, counts)| counts.requests > 0)
            .map(|(domain, counts)| {
                let accuracies = if fits {
                    counts.known()
                } else {
                    counts.measured()?
                };
                Some((domain, counts.requests as f64 / requests, accuracies))
            })
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

/// Accuracy earned, beside its yardsticks.
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
    /// For each kind of review that was sent, the arm that would have earned most on it.
    pub best_arms: Vec<(Domain, String)>,
    /// What they would have earned together, each on its kind.
    pub by_category: f64,
    /// Whether the yardsticks count the same reviews; else they are estimated from what each arm was sent.
    pub exact: bool,
}

impl Standing {
    /// The standing so far; `None` until every arm has answered reviews of each kind, or the counterfactual is known.
    pub fn of(tally: &Tally, counterfactual: &Counterfactual) -> Option<Self> {
        let earned = tally.accuracy()?;
        let kinds = counterfactual.accuracies()?;
        let alone = |arm: usize| -> f64 {
            kinds
                .iter()
                .map(|(_, share, accuracies)| share * accuracies[arm])
                .sum()
        };
        let alone: Vec<f64> = (0..counterfactual.arms.len()).map(alone).collect();
        let (best, best_arm) = greatest(&alone, &counterfactual.arms)?;
        let mut by_category = 0.0;
        let mut best_arms = Vec::new();
        for (domain, share, accuracies) in &kinds {
            let (accuracy, arm) = greatest(accuracies, &counterfactual.arms)?;
            by_category += share * accuracy;
            best_arms.push((*domain, arm));
        }
        Some(Self {
            earned,
            uniform: alone.iter().sum::<f64>() / alone.len() as f64,
            best_arm,
            best,
            best_arms,
            by_category,
            exact: counterfactual.fits(),
        })
    }

    /// How much of the way from the uniform split to the best arm was earned; `None` if there is no such way.
    pub fn share_of_the_gain(&self) -> Option<f64> {
        let way = self.best - self.uniform;
        (way > 1e-9).then(|| (self.earned - self.uniform) / way)
    }
}

fn greatest(accuracies: &[f64], arms: &[String]) -> Option<(f64, String)> {
    let pairs = accuracies.iter().zip(arms);
    pairs
        .max_by(|one, other| one.0.total_cmp(other.0))
        .map(|(accuracy, arm)| (*accuracy, arm.clone()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::predict::{Answer, Row};
    use crate::traffic::tally::Answered;

    fn row(id: usize, category: &str, answers: [u8; 2]) -> Row {
        Row {
            review_id: id.to_string(),
            product_category: category.to_owned(),
            star_rating: 5,
            characters: 10,
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
                .map(|(id, answers)| row(id, "Tops", answers))
                .collect(),
        }
    }

    fn send(choices: &[(usize, &str)], with_table: bool) -> Option<Standing> {
        send_of(&table(), choices, with_table)
    }

    fn send_of(table: &Table, choices: &[(usize, &str)], with_table: bool) -> Option<Standing> {
        let items: Arc<[Item]> = Item::of_table(table).into();
        let arms = ["a".to_owned(), "b".to_owned()];
        let mut counterfactual = Counterfactual::new(with_table.then_some(table), &arms, &items);
        let mut tally = Tally::default();
        for (item, arm) in choices {
            let column = usize::from(*arm == "b");
            let outcome = Outcome {
                item: *item,
                domain: items[*item].domain,
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

    /// Arm a is right on all clothing and half the movies, arm b on half the clothing and all movies.
    fn table_of_kinds() -> Table {
        let rows = [
            ("Tops", [5, 5]),
            ("Tops", [5, 1]),
            ("Movies", [1, 5]),
            ("Movies", [5, 5]),
        ];
        let rows = rows.into_iter().enumerate();
        Table {
            rows: rows
                .map(|(id, (category, answers))| row(id, category, answers))
                .collect(),
            ..table()
        }
    }

    #[test]
    fn the_best_arm_of_each_category_beats_the_best_arm() {
        let choices = [(0, "a"), (1, "a"), (1, "b"), (2, "b")];
        let standing = send_of(&table_of_kinds(), &choices, true).unwrap();
        assert_eq!((standing.best, standing.by_category), (0.75, 1.0));
        assert_eq!(
            standing.best_arms,
            [
                (Domain::Clothing, "a".to_owned()),
                (Domain::Movies, "b".to_owned())
            ]
        );
    }

    #[test]
    fn an_arm_that_was_sent_what_it_is_good_at_is_not_taken_for_the_best() {
        // Arm b answers movies only, but for one text of clothing.
        let choices = [(0, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "b"), (2, "b")];
        let standing = send_of(&table_of_kinds(), &choices, false).unwrap();
        // a: 1 on clothing, 0 on movies; b: 0 and 1. A third of the traffic is clothing.
        assert_eq!(standing.best_arm, "b");
        assert!((standing.best - 2.0 / 3.0).abs() < 1e-12, "{standing:?}");
        assert!(
            !standing.exact && standing.by_category == 1.0,
            "{standing:?}"
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
            domain: Domain::Clothing,
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
