//! A rated review, and the table of them in the Amazon Customer Reviews column layout.
//!
//! The layout is that public data set's: a header line, then 15 tab-separated columns without quoting.
//! Columns without a source (customer, date) are empty.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail, ensure};
use sha1::{Digest, Sha1};

use crate::cache::{Cache, hexadecimal};

/// The table's name in the cache.
pub const REVIEWS_FILE: &str = "reviews.tsv";

/// The header line of the table.
pub const COLUMNS: [&str; 15] = [
    "marketplace",
    "customer_id",
    "review_id",
    "product_id",
    "product_parent",
    "product_title",
    "product_category",
    "star_rating",
    "helpful_votes",
    "total_votes",
    "vine",
    "verified_purchase",
    "review_headline",
    "review_body",
    "review_date",
];

/// One review with its true stars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// `WC…` clothing, `VA…` electronics, `VM…` movies.
    pub review_id: String,
    /// The reviewed product.
    pub product_id: String,
    /// The division of the shop, or `Snippets`.
    pub product_parent: String,
    /// The class of garment, or the category again.
    pub product_title: String,
    /// `Tops`, `Dresses`, …, `Electronics`, `Movies`.
    pub product_category: String,
    /// The true rating, 1 to 5.
    pub star_rating: u8,
    /// How many found the review helpful.
    pub helpful_votes: u32,
    /// Often empty.
    pub review_headline: String,
    /// Never empty.
    pub review_body: String,
}

/// The kind of text a review is; heads are trained on some of these.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Shoppers' reviews of clothing, with their own stars.
    Clothing,
    /// Single sentences about electronics, with stars derived from people's judgements.
    Electronics,
    /// Single sentences about movies, with stars derived from people's judgements.
    Movies,
}

impl Domain {
    /// All domains, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Clothing, Self::Electronics, Self::Movies];

    /// The kind of text that reviews of a product category are.
    pub fn of_category(category: &str) -> Self {
        match category {
            "Electronics" => Self::Electronics,
            "Movies" => Self::Movies,
            _ => Self::Clothing,
        }
    }

    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clothing => "clothing",
            Self::Electronics => "electronics",
            Self::Movies => "movies",
        }
    }
}

impl Review {
    /// Which kind of text this is.
    pub fn domain(&self) -> Domain {
        Domain::of_category(&self.product_category)
    }

    /// What the models read.
    pub fn text(&self) -> String {
        join_headline(&self.review_headline, &self.review_body)
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let stars = self.star_rating.to_string();
        let votes = self.helpful_votes.to_string();
        let fields: [&str; 15] = [
            "US",
            "",
            &self.review_id,
            &self.product_id,
            &self.product_parent,
            &self.product_title,
            &self.product_category,
            &stars,
            &votes,
            &votes,
            "N",
            "",
            &self.review_headline,
            &self.review_body,
            "",
        ];
        writeln!(out, "{}", fields.join("\t"))
    }

    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        ensure!(
            fields.len() == COLUMNS.len(),
            "expected 15 tab-separated columns, found {}",
            fields.len()
        );
        let stars: u8 = fields[7]
            .parse()
            .ok()
            .filter(|stars| (1..=5).contains(stars))
            .with_context(|| format!("star_rating must be 1 to 5, found {:?}", fields[7]))?;
        let votes = fields[8]
            .parse()
            .with_context(|| format!("helpful_votes must be a number, found {:?}", fields[8]))?;
        Ok(Self {
            review_id: fields[2].to_owned(),
            product_id: fields[3].to_owned(),
            product_parent: fields[4].to_owned(),
            product_title: fields[5].to_owned(),
            product_category: fields[6].to_owned(),
            star_rating: stars,
            helpful_votes: votes,
            review_headline: fields[12].to_owned(),
            review_body: fields[13].to_owned(),
        })
    }
}

/// Headline and body as one text: `headline. body`.
pub fn join_headline(headline: &str, body: &str) -> String {
    match (headline.is_empty(), body.is_empty()) {
        (true, _) => body.to_owned(),
        (false, true) => headline.to_owned(),
        (false, false) => format!("{headline}. {body}"),
    }
}

/// Puts reviews into the table's order, a fixed shuffle: by the SHA-1 of their id.
///
/// So "the first N of a category" is a fair sample, the same everywhere.
pub fn sort(reviews: &mut [Review]) {
    reviews.sort_by_cached_key(|review| hexadecimal(&Sha1::digest(review.review_id.as_bytes())));
}

/// Writes the table.
///
/// # Errors
/// When `out` fails.
pub fn write_table(reviews: &[Review], out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{}", COLUMNS.join("\t"))?;
    for review in reviews {
        review.write(out)?;
    }
    Ok(())
}

/// Reads a table.
///
/// # Errors
/// When a line is not as expected, with its number.
pub fn read_table(input: impl BufRead) -> Result<Vec<Review>> {
    let mut lines = input.lines();
    let header = lines.next().context("the file is empty")??;
    if header != COLUMNS.join("\t") {
        bail!("line 1: expected the columns {}", COLUMNS.join(" "));
    }
    lines
        .enumerate()
        .map(|(index, line)| Review::parse(&line?).with_context(|| format!("line {}", index + 2)))
        .collect()
}

/// Reads the fetched reviews from the cache.
///
/// # Errors
/// When they are missing (says how to fetch them) or damaged.
pub fn load(cache: &Cache) -> Result<Vec<Review>> {
    let file = cache.open(REVIEWS_FILE)?;
    read_table(std::io::BufReader::new(file)).with_context(|| {
        format!(
            "{} is damaged: delete it and run `star-rating fetch`",
            cache.path(REVIEWS_FILE).display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(id: &str, category: &str) -> Review {
        Review {
            review_id: id.to_owned(),
            product_id: "WC1".to_owned(),
            product_parent: "General".to_owned(),
            product_title: "Knits".to_owned(),
            product_category: category.to_owned(),
            star_rating: 4,
            helpful_votes: 2,
            review_headline: "Soft".to_owned(),
            review_body: "Very soft.".to_owned(),
        }
    }

    #[test]
    fn a_table_survives_writing_and_reading() {
        let mut reviews = vec![
            review("WC00001", "Tops"),
            review("VM2", "Movies"),
            review("VA1_1", "Electronics"),
        ];
        sort(&mut reviews);
        let mut bytes = Vec::new();
        write_table(&reviews, &mut bytes).unwrap();
        assert_eq!(read_table(bytes.as_slice()).unwrap(), reviews);
    }

    #[test]
    fn the_order_is_that_of_the_sha1_of_the_id() {
        let mut reviews = vec![
            review("WC01907", "Bottoms"),
            review("VM544", "Movies"),
            review("WC12837", "Jackets"),
            review("VM4104", "Movies"),
        ];
        sort(&mut reviews);
        let order: Vec<&str> = reviews
            .iter()
            .map(|review| review.review_id.as_str())
            .collect();
        assert_eq!(order, ["VM4104", "WC12837", "VM544", "WC01907"]);
    }

    #[test]
    fn damage_is_reported_with_its_line() {
        let header = COLUMNS.join("\t");
        for (table, expected) in [
            (String::new(), "empty"),
            ("a\tb\n".to_owned(), "line 1"),
            (format!("{header}\nonly one field\n"), "line 2"),
            (
                format!("{header}\nUS\t\tx\tp\tp\tt\tTops\t9\t0\t0\tN\t\th\tb\t\n"),
                "star_rating must be 1 to 5",
            ),
        ] {
            let message = format!("{:#}", read_table(table.as_bytes()).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn texts_and_domains() {
        assert_eq!(review("x", "Tops").text(), "Soft. Very soft.");
        assert_eq!(join_headline("", "body"), "body");
        assert_eq!(join_headline("head", ""), "head");
        assert_eq!(review("x", "Movies").domain(), Domain::Movies);
        assert_eq!(review("x", "Dresses").domain(), Domain::Clothing);
    }
}
