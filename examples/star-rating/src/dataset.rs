//! Which reviews are held out, which train, and which validate.
//!
//! The table's order is a fixed shuffle, so the split is fair and the same everywhere. Held-out
//! reviews never train, validate, or choose anything.

use crate::random::SplitMix64;
use crate::reviews::{Domain, Review};
use crate::variant::Recipe;

/// How many reviews of each domain are held out: the first ones of the table.
pub const HELD_OUT: [(Domain, usize); 3] = [
    (Domain::Clothing, 900),
    (Domain::Electronics, 300),
    (Domain::Movies, 300),
];

/// One in this many training reviews validates: it stops the training early.
const VALIDATION_SHARE: usize = 10;

fn held_out_count(domain: Domain) -> usize {
    HELD_OUT
        .iter()
        .find(|(held_out, _)| *held_out == domain)
        .map_or(0, |(_, count)| *count)
}

/// The held-out reviews, in the table's order.
pub fn held_out(reviews: &[Review]) -> Vec<&Review> {
    let mut seen = Seen::default();
    reviews
        .iter()
        .filter(|review| seen.next(review.domain()) < held_out_count(review.domain()))
        .collect()
}

/// The training reviews of `recipe`: per domain the first ones that are not held out.
pub fn training<'a>(reviews: &'a [Review], recipe: &Recipe) -> Vec<&'a Review> {
    let mut seen = Seen::default();
    reviews
        .iter()
        .filter(|review| {
            let domain = review.domain();
            let held_out = held_out_count(domain);
            (held_out..held_out + recipe.count(domain)).contains(&seen.next(domain))
        })
        .collect()
}

/// Splits the indices `0..count` into those that train and those that validate.
pub fn validation_split(count: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut indices: Vec<usize> = (0..count).collect();
    SplitMix64::new(seed).shuffle(&mut indices);
    let validation = indices.split_off(count - count / VALIDATION_SHARE);
    (indices, validation)
}

#[derive(Default)]
struct Seen([usize; 3]);

impl Seen {
    /// How many reviews of `domain` came before this one.
    fn next(&mut self, domain: Domain) -> usize {
        let seen = &mut self.0[domain as usize];
        *seen += 1;
        *seen - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews() -> Vec<Review> {
        let categories = ["Tops", "Electronics", "Movies"];
        (0..3300)
            .map(|index| Review {
                review_id: index.to_string(),
                product_id: String::new(),
                product_parent: String::new(),
                product_title: String::new(),
                product_category: categories[index % 3].to_owned(),
                star_rating: 3,
                helpful_votes: 0,
                review_headline: String::new(),
                review_body: "text".to_owned(),
            })
            .collect()
    }

    #[test]
    fn held_out_and_training_reviews_are_disjoint() {
        let reviews = reviews();
        let recipe = Recipe {
            clothing: 150,
            electronics: 10,
            movies: 100_000,
            seed: 1,
            learning_rate: 1.0,
            weight_decay: 0.0,
            batch_size: 1,
            epochs: 1,
            patience: 1,
        };
        let held_out = held_out(&reviews);
        let training = training(&reviews, &recipe);
        assert_eq!(held_out.len(), 1500);
        assert_eq!(training.len(), 150 + 10 + 800);
        assert!(held_out.iter().all(|held_out| !training.contains(held_out)));
    }

    #[test]
    fn validation_is_a_tenth_and_depends_on_the_seed() {
        let (train, validation) = validation_split(105, 1);
        assert_eq!((train.len(), validation.len()), (95, 10));
        assert_ne!(validation, validation_split(105, 2).1);
        let mut all = [train, validation].concat();
        all.sort_unstable();
        assert_eq!(all, (0..105).collect::<Vec<_>>());
    }
}
