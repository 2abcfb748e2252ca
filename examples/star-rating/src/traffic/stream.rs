//! Which review comes next, and from whom: an endless sequence that depends on the seed alone.
//!
//! So the same seed sends the same reviews in the same order whatever stands behind the proxy, and policies can be compared on
//! equal terms. Within a kind no review comes twice before all came once.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::mix::Mix;
use crate::predict::Table;
use crate::random::SplitMix64;
use crate::reviews::{Domain, Review};

/// How many different users the reviews are sent for.
const USERS: usize = 2_000;

/// One rated text that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The review's id.
    pub review_id: String,
    /// The product category, sent as a header.
    pub category: String,
    /// The kind of review.
    pub domain: Domain,
    /// The true stars, posted as the label.
    pub stars: u8,
    /// What the model is asked to rate.
    pub text: String,
}

impl Item {
    /// A review as it is.
    pub fn of_review(review: &Review) -> Self {
        Self {
            review_id: review.review_id.clone(),
            category: review.product_category.clone(),
            domain: review.domain(),
            stars: review.star_rating,
            text: review.text(),
        }
    }

    /// The reviews of a table of predictions, which holds no texts: ids stand for them, which is all that a replaying server
    /// needs, with blanks to the text's length, which a policy may look at (a text that is shorter than its id counts as long as that).
    pub fn of_table(table: &Table) -> Vec<Self> {
        table
            .rows
            .iter()
            .map(|row| Self {
                review_id: row.review_id.clone(),
                category: row.product_category.clone(),
                domain: Domain::of_category(&row.product_category),
                stars: row.star_rating,
                text: format!("{:width$}", row.review_id, width = row.characters),
            })
            .collect()
    }
}

/// One request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Index of the item.
    pub item: usize,
    /// Number of the user who wrote it.
    pub user: usize,
}

/// The endless sequence.
#[derive(Debug, Clone)]
pub struct Stream {
    items: Arc<[Item]>,
    mix: Mix,
    decks: [Deck; 3],
    random: SplitMix64,
}

/// The reviews of one kind, dealt like cards.
#[derive(Debug, Clone, Default)]
struct Deck {
    cards: Vec<usize>,
    dealt: usize,
}

impl Stream {
    /// A sequence over `items` that depends on them, `mix` and `seed`.
    ///
    /// # Errors
    /// When `mix` asks for a kind of review that `items` does not have.
    pub fn new(items: Arc<[Item]>, mix: Mix, seed: u64) -> Result<Self> {
        let mut decks: [Deck; 3] = Default::default();
        for (index, item) in items.iter().enumerate() {
            decks[item.domain as usize].cards.push(index);
        }
        for domain in Domain::ALL {
            ensure!(
                mix.share(domain) == 0.0 || !decks[domain as usize].cards.is_empty(),
                "the mix asks for reviews of {}, but there are none",
                domain.name()
            );
        }
        Ok(Self {
            items,
            mix,
            decks,
            random: SplitMix64::new(seed),
        })
    }

    /// What is sent.
    pub fn items(&self) -> &Arc<[Item]> {
        &self.items
    }

    /// The next request.
    pub fn draw(&mut self) -> Draw {
        let domain = self.mix.domain_at(self.random.unit_interval());
        let item = self.decks[domain as usize].deal(&mut self.random);
        Draw {
            item,
            user: self.random.index(USERS),
        }
    }
}

impl Deck {
    fn deal(&mut self, random: &mut SplitMix64) -> usize {
        if self.dealt == 0 {
            random.shuffle(&mut self.cards);
        }
        let card = self.cards[self.dealt];
        self.dealt = (self.dealt + 1) % self.cards.len();
        card
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: usize) -> Arc<[Item]> {
        ["Tops", "Electronics", "Movies"]
            .iter()
            .cycle()
            .take(count)
            .enumerate()
            .map(|(index, category)| Item {
                review_id: index.to_string(),
                category: (*category).to_owned(),
                domain: Domain::of_category(category),
                stars: 5,
                text: "text".to_owned(),
            })
            .collect()
    }

    fn draws(seed: u64, count: usize) -> Vec<Draw> {
        let mut stream = Stream::new(items(30), Mix::default(), seed).unwrap();
        (0..count).map(|_| stream.draw()).collect()
    }

    #[test]
    fn the_sequence_depends_on_the_seed_alone() {
        assert_eq!(draws(7, 500), draws(7, 500));
        assert_ne!(draws(7, 500), draws(8, 500));
        let first: Vec<usize> = draws(7, 6).iter().map(|draw| draw.item).collect();
        assert_eq!(first, [18, 2, 21, 14, 27, 26]);
    }

    #[test]
    fn kinds_come_in_the_mix_and_reviews_come_evenly() {
        let mut counts = [0_u32; 30];
        for draw in draws(1, 3000) {
            counts[draw.item] += 1;
        }
        let clothing: u32 = counts.iter().step_by(3).sum();
        assert!((1700..1900).contains(&clothing), "{clothing}");
        let most = counts.iter().step_by(3).max().unwrap();
        let least = counts.iter().step_by(3).min().unwrap();
        assert!(most - least <= 1, "{counts:?}");
    }

    #[test]
    fn stand_in_texts_are_as_long_as_the_reviews() {
        let row = |id: &str, characters| crate::predict::Row {
            review_id: id.to_owned(),
            product_category: "Tops".to_owned(),
            star_rating: 5,
            characters,
            answers: Vec::new(),
        };
        let items = Item::of_table(&Table {
            variants: Vec::new(),
            rows: vec![row("WC1", 8), row("WC12345", 4)],
        });
        assert_eq!(items[0].text, "WC1     ");
        assert_eq!(items[1].text, "WC12345");
    }

    #[test]
    fn a_kind_without_reviews_is_an_error() {
        let error = Stream::new(items(2), Mix::default(), 1).unwrap_err();
        assert!(error.to_string().contains("movies"), "{error}");
        assert!(Stream::new(items(2), "Clothing=1".parse().unwrap(), 1).is_ok());
    }
}
